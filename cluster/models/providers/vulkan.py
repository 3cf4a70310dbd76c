"""The Vulkan devices that a process sees, asked of the loader itself.

The runtime does not say which device its WebGPU provider uses, so the devices are listed beside it,
by ctypes. Structures and numbers are those of the Vulkan specification's ``vk.xml``
(https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char, c_uint32, c_uint64, c_void_p
from typing import Any, ClassVar, NamedTuple

from cluster.models.repository.manifest import ModelError

LIBRARY = "libvulkan.so.1"
AMD = 0x1002
SOFTWARE_TYPE = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
TYPES = ("another kind of device", "integrated GPU", "discrete GPU", "virtual GPU", "software")

DEVICES_MAX = 64
_API_1_1 = 1 << 22 | 1 << 12
_PCI_EXTENSION = b"VK_EXT_pci_bus_info"


class VulkanDevice(NamedTuple):
    """A device as its driver describes it.

    ``pci`` is its PCI address, None if the driver tells none; ``has_fp16`` says that shaders may
    compute with float16 and read it from buffers, which WebGPU's shader-f16 needs.
    """

    name: str
    vendor_id: int
    device_id: int
    kind: str
    pci: str | None
    driver: str
    has_fp16: bool

    @property
    def is_software(self) -> bool:
        """Whether the CPU plays this device."""
        return self.kind == TYPES[SOFTWARE_TYPE]

    def __str__(self) -> str:
        """In words, such as ``AMD Radeon RX 580 (discrete GPU) at 0000:03:00.0``."""
        return f"{self.name} ({self.kind})" + (f" at {self.pci}" if self.pci else "")


class _Chained(Structure):
    """The head of a structure that may be followed by others."""

    _fields_: ClassVar[Any] = (("kind", c_uint32), ("next", c_void_p))


class _InstanceInfo(_Chained):
    _fields_ = (
        ("flags", c_uint32), ("application", c_void_p), ("layers_n", c_uint32),
        ("layers", c_void_p), ("extensions_n", c_uint32), ("extensions", c_void_p),
    )  # fmt: skip


class _ApplicationInfo(_Chained):
    _fields_ = (
        ("name", c_void_p), ("version", c_uint32), ("engine", c_void_p),
        ("engine_version", c_uint32), ("api_version", c_uint32),
    )  # fmt: skip


class _Properties(_Chained):
    """The part of VkPhysicalDeviceProperties2 that is read, and room for the limits after it."""

    _fields_ = (
        ("api_version", c_uint32), ("driver_version", c_uint32), ("vendor_id", c_uint32),
        ("device_id", c_uint32), ("device_type", c_uint32), ("name", c_char * 256),
        ("rest", c_uint64 * 128),
    )  # fmt: skip


class _PciBusInfo(_Chained):
    _fields_ = tuple((name, c_uint32) for name in ("domain", "bus", "device", "function"))


class _DriverProperties(_Chained):
    _fields_ = (
        ("id", c_uint32), ("name", c_char * 256), ("info", c_char * 256), ("version", c_uint32),
    )  # fmt: skip


class _Features(_Chained):
    _fields_ = (("rest", c_uint32 * 64),)


class _Float16(_Chained):
    _fields_ = (("float16", c_uint32), ("int8", c_uint32))


class _Storage16(_Chained):
    _fields_ = tuple(
        (name, c_uint32) for name in ("storage", "uniform_and_storage", "push_constant", "in_out")
    )


class _Extension(Structure):
    _fields_ = (("name", c_char * 256), ("version", c_uint32))


def vulkan_devices() -> list[VulkanDevice]:
    """Every device that the loader shows this process, in its order.

    Raises:
        ModelError: there is no loader, or it finds no driver that works.
    """
    try:
        vulkan = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise ModelError(
            f"there is no Vulkan loader ({error}); on Debian and Ubuntu install libvulkan1 and "
            "mesa-vulkan-drivers"
        ) from error
    vulkan.vkDestroyInstance.argtypes = [c_void_p, c_void_p]
    application = _ApplicationInfo(kind=0, api_version=_API_1_1)
    info = _InstanceInfo(kind=1, application=ctypes.addressof(application))
    instance = c_void_p()
    code = vulkan.vkCreateInstance(byref(info), None, byref(instance))
    if code:
        raise ModelError(
            f"the Vulkan loader finds no driver that works (vkCreateInstance gave {code}); install "
            "mesa-vulkan-drivers, and look at VK_DRIVER_FILES, VK_ICD_FILENAMES and "
            "VK_LOADER_DRIVERS_SELECT if they are set"
        )
    try:
        count = c_uint32(DEVICES_MAX)
        handles = (c_void_p * DEVICES_MAX)()
        ask = vulkan.vkEnumeratePhysicalDevices
        ask.argtypes = [c_void_p, POINTER(c_uint32), c_void_p]
        code = ask(instance, byref(count), handles)
        if code < 0:
            raise ModelError(f"the Vulkan driver can't list its devices (it gave {code})")
        return [_describe(vulkan, handle) for handle in handles[: count.value] if handle]
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _describe(vulkan: Any, handle: int) -> VulkanDevice:
    driver = _DriverProperties(kind=1000196000)
    pci = _PciBusInfo(kind=1000212000)
    properties = _Properties(kind=1000059001)
    has_pci = _PCI_EXTENSION in _extensions(vulkan, handle)
    _chain(properties, [driver, pci] if has_pci else [driver])
    vulkan.vkGetPhysicalDeviceProperties2.argtypes = [c_void_p, c_void_p]
    vulkan.vkGetPhysicalDeviceProperties2(handle, byref(properties))
    float16, storage = _Float16(kind=1000082000), _Storage16(kind=1000083000)
    features = _Features(kind=1000059000)
    _chain(features, [float16, storage])
    vulkan.vkGetPhysicalDeviceFeatures2.argtypes = [c_void_p, c_void_p]
    vulkan.vkGetPhysicalDeviceFeatures2(handle, byref(features))
    address = f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.{pci.function:x}"
    return VulkanDevice(
        name=properties.name.decode(errors="replace"),
        vendor_id=properties.vendor_id,
        device_id=properties.device_id,
        kind=TYPES[properties.device_type if properties.device_type < len(TYPES) else 0],
        pci=address if has_pci else None,
        driver=f"{driver.name.decode(errors='replace')} {driver.info.decode(errors='replace')}",
        has_fp16=bool(float16.float16 and storage.storage and storage.uniform_and_storage),
    )


def _extensions(vulkan: Any, handle: int) -> set[bytes]:
    ask = vulkan.vkEnumerateDeviceExtensionProperties
    ask.argtypes = [c_void_p, c_void_p, POINTER(c_uint32), c_void_p]
    count = c_uint32()
    ask(handle, None, byref(count), None)
    found = (_Extension * count.value)()
    ask(handle, None, byref(count), found)
    return {it.name for it in found}


def _chain(head: _Chained, others: Sequence[_Chained]) -> None:
    for before, after in zip([head, *others], others, strict=False):
        before.next = ctypes.addressof(after)
