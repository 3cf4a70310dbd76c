"""The WebGPU provider, by which models run on a card over Vulkan, and the guards around it.

The plug-in ``onnxruntime-ep-webgpu`` reaches any card that has a Vulkan driver, so also those that
ROCm has dropped. It has faults that cost more than speed, and each has its guard here:

- It takes what device it finds, a software one too, and names itself as before. `find_card` looks
  at the devices first, and `cluster.models.providers.usage` asks the kernel who did the work.
- It accepts options that it does not know: `check_options`.
- It crashes when it is registered twice: `claim_card`. It is never unregistered.
- Two sessions at once disturb each other, an empty batch fails, and a forked process hangs:
  `CardSession`.
- A device that is lost stays lost for the whole process: `CardSession` tells `on_device_lost`,
  which ends a worker.

**None of this was tried on a real card of the Polaris family.** It was tried on software devices
(SwiftShader, Mesa's lavapipe), on Mesa's RADV driver without hardware behind it, which shows the
features of a Polaris card and then loses it, and on one real card: an NVIDIA H200, with the checks
for an AMD card and for the time that the kernel counts for it left out. There minilm's graph ran 3
to 11 × as fast as on eight cores, and magika's answers were refused (0.0055 from the CPU's).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cluster.models.providers.vulkan import AMD, VulkanDevice, vulkan_devices
from cluster.models.repository.manifest import ModelError
from cluster.vocabulary.cards import ANY_CARD, CARD
from cluster.vocabulary.errors import did_you_mean

WEBGPU = "WebGpuExecutionProvider"
#: The plug-in's own variable: "1" lets tests run on a software device.
ALLOW_SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
SHADER_CACHE = "MESA_SHADER_CACHE_DIR"
NEEDS_PLUGIN = "models on a card need the extra [gpu]: pip install 'perfkit[gpu]'"
#: An older runtime takes the plug-in and gives it no work.
RUNTIME_MIN = (1, 32)

_SWITCH = r"[01]"
_NUMBER = r"[0-9]{1,18}"
_CACHE_MODE = "disabled|lazyRelease|simple|bucket|dynamicBucket"
#: The options of the plug-in 0.4 and the form of their values, as its library names them; those
#: that take pointers or another device are left out. See
#: https://onnxruntime.ai/docs/execution-providers/WebGPU-ExecutionProvider.html
OPTIONS: Mapping[str, str] = {
    "preferredLayout": "NCHW|NHWC",
    "enableGraphCapture": _SWITCH,
    "enableInt64": _SWITCH,
    "enableRobustness": _SWITCH,
    "preserveDevice": _SWITCH,
    "powerPreference": "high-performance|low-power",
    "validationMode": "disabled|wgpuOnly|basic|full",
    "forceCpuNodeNames": r"(?s:.*)",
    "maxStorageBufferBindingSize": _NUMBER,
    "maxNumPendingDispatches": _NUMBER,
    "sessionBufferPoolGenerations": _NUMBER,
    "storageBufferCacheMode": _CACHE_MODE,
    "uniformBufferCacheMode": _CACHE_MODE,
    "queryResolveBufferCacheMode": _CACHE_MODE,
    "defaultBufferCacheMode": _CACHE_MODE,
}

_LOST = re.compile(r"device\]? (is|was) lost|DEVICE_LOST|device lost", re.IGNORECASE)

#: The card of this process once the provider is registered.
_claimed: list[VulkanDevice] = []
_claiming = threading.Lock()
#: Held while a session on the card is opened, runs or is closed. Closing one may be the collector's
#: work in a thread that holds it already.
ONE_AT_A_TIME = threading.RLock()


class DeviceLost(ModelError):
    """The card is gone for this process; only another process can use it again."""


def _raise(error: DeviceLost) -> None:
    raise error


#: Called with the error when the card is lost. A worker ends itself here.
on_device_lost: Callable[[DeviceLost], None] = _raise


def find_card(wanted: str, devices: Sequence[VulkanDevice]) -> VulkanDevice:
    """The device that is ``wanted``: a PCI address, or `ANY_CARD` for the only AMD card. That may
    be a software device where `ALLOW_SOFTWARE` permits it.

    Raises:
        ModelError: no such card is among the devices, or there are several.
    """
    cards = [it for it in devices if it.vendor_id == AMD and not it.is_software]
    seen = f"Vulkan shows {', '.join(map(str, devices)) or 'no device'}"
    if wanted != ANY_CARD:
        for card in cards:
            if card.pci == wanted.lower():
                return card
        raise ModelError(
            f"the card at {wanted} ({CARD}) is not there for Vulkan: {seen}; it needs the driver "
            "amdgpu, the package mesa-vulkan-drivers, and a user of the group render"
        )
    if len(cards) == 1:
        return cards[0]
    if cards:
        raise ModelError(f"{CARD} must name one of several cards by its PCI address: {seen}")
    software = [it for it in devices if it.is_software]
    if software and os.environ.get(ALLOW_SOFTWARE) == "1":
        return software[0]
    advice = f"; for tests {ALLOW_SOFTWARE}=1 permits a software device" if software else ""
    raise ModelError(f"there is no AMD card for Vulkan: {seen}{advice}")


def check_options(options: Mapping[str, str]) -> None:
    """Raise ModelError for an option that the provider does not have, or a value it can't take."""
    for option, value in options.items():
        if option not in OPTIONS:
            hint = did_you_mean(option, OPTIONS) or f"; there are {', '.join(OPTIONS)}"
            raise ModelError(f"{WEBGPU} has no option {option!r}{hint}")
        if not re.fullmatch(OPTIONS[option], value):
            raise ModelError(f"{WEBGPU}: {option} = {value!r} does not match {OPTIONS[option]}")


def has_plugin() -> bool:
    """Whether the provider's package is installed."""
    return find_spec("onnxruntime_ep_webgpu") is not None


def claim_card(onnxruntime: Any, shaders: Path) -> VulkanDevice:
    """The card of this process, with the provider made known to the runtime at the first call.

    The variable `CARD` names it, by default `ANY_CARD`. Mesa keeps compiled shaders in the folder
    ``shaders`` unless the environment names another.

    Raises:
        ModelError: the plug-in is not installed, the runtime is too old for it, or there is no such
            card.
    """
    with _claiming:
        if not _claimed:
            _check_version(onnxruntime.__version__)
            card = find_card(os.environ.get(CARD, ANY_CARD), vulkan_devices())
            if WEBGPU not in onnxruntime.get_available_providers():
                _register(onnxruntime, shaders)
            _claimed.append(card)
    if WEBGPU not in onnxruntime.get_available_providers():
        raise ModelError(
            f"{WEBGPU} finds no device, though Vulkan shows {claimed_card()}: the runtime looks "
            "for cards in /sys/bus/pci, and the user must be of the group render"
        )
    return claimed_card()


def claimed_card() -> VulkanDevice:
    """The card of this process; `claim_card` has been called before."""
    return _claimed[0]


def _check_version(version: str) -> None:
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < RUNTIME_MIN:
        least = ".".join(map(str, RUNTIME_MIN))
        raise ModelError(
            f"onnxruntime {version} gives a card no work; it takes {least} or newer: "
            "pip install --upgrade onnxruntime"
        )


def _register(onnxruntime: Any, shaders: Path) -> None:
    try:
        import onnxruntime_ep_webgpu
    except ImportError as error:
        raise ModelError(NEEDS_PLUGIN) from error
    if SHADER_CACHE not in os.environ:
        with suppress(OSError):  # shaders are compiled again in each process
            shaders.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ[SHADER_CACHE] = str(shaders)
    onnxruntime.register_execution_provider_library(
        "webgpu", onnxruntime_ep_webgpu.get_library_path()
    )


class CardSession:
    """A session of the runtime on a card, opened here; it takes turns with other sessions."""

    def __init__(self, open_session: Callable[[], Any]) -> None:
        with ONE_AT_A_TIME:
            self._session = open_session()
        self._pid = os.getpid()

    def __del__(self) -> None:
        with ONE_AT_A_TIME:
            self.__dict__.pop("_session", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_session"], name)

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> Any:
        """The outputs, as of the runtime's own session.

        Raises:
            ModelError: a tensor is empty, or this process was forked from the one that loaded it.
            DeviceLost: unless `on_device_lost` has ended the process.
        """
        empty = [name for name, it in feeds.items() if 0 in it.shape]
        if empty:
            raise ModelError(f"its input {empty[0]!r} has no rows, which a card can't run")
        if os.getpid() != self._pid:
            raise ModelError("a forked process can't use the card of the one it comes from")
        with ONE_AT_A_TIME:
            try:
                return self._session.run(outputs, feeds)
            except Exception as error:
                if _LOST.search(str(error)):
                    lost = DeviceLost(f"the card is lost for this process: {error}")
                    on_device_lost(lost)
                    raise lost from error
                raise
