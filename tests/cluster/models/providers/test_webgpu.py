"""Which device counts as the card that was asked for, which options there are, and what a session
on a card does when it is lost.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.models.providers import webgpu
from cluster.models.providers.vulkan import VulkanDevice
from cluster.models.providers.webgpu import CardSession, DeviceLost, check_options, find_card
from cluster.models.repository.manifest import ModelError

RX580 = VulkanDevice(
    "AMD Radeon RX 580", 0x1002, 0x67DF, "discrete GPU", "0000:03:00.0", "radv", False
)
VEGA = RX580._replace(name="AMD Radeon Vega", device_id=0x687F, pci="0000:04:00.0", has_fp16=True)
LLVMPIPE = VulkanDevice("llvmpipe", 0x10005, 0, "software", None, "llvmpipe", True)
#: A software device that takes AMD's name is none of AMD's cards.
PRETENDER = LLVMPIPE._replace(vendor_id=0x1002, pci="0000:03:00.0")
INTEL = VulkanDevice("Intel UHD", 0x8086, 1, "integrated GPU", "0000:00:02.0", "anv", True)


@pytest.mark.parametrize(
    ("wanted", "devices", "found"),
    [
        ("any", [RX580], RX580),
        ("any", [LLVMPIPE, INTEL, RX580], RX580),
        ("0000:04:00.0", [RX580, VEGA], VEGA),
        ("0000:03:00.0", [PRETENDER, RX580], RX580),
    ],
)
def test_the_card_that_is_asked_for_is_found(
    wanted: str, devices: list[VulkanDevice], found: VulkanDevice
) -> None:
    assert find_card(wanted, devices) == found


@pytest.mark.parametrize(
    ("wanted", "devices", "complaint"),
    [
        ("any", [], "there is no AMD card for Vulkan: Vulkan shows no device$"),
        ("any", [INTEL], r"no AMD card .* Intel UHD \(integrated GPU\) at 0000:00:02.0$"),
        ("any", [PRETENDER], "no AMD card .* for tests ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1"),
        ("any", [RX580, VEGA], "must name one of several cards by its PCI address: .*RX 580.*Vega"),
        ("0000:05:00.0", [RX580, VEGA], "the card at 0000:05:00.0 .* not there .*RX 580.*Vega"),
        ("0000:03:00.0", [PRETENDER], r"the card at 0000:03:00.0 .* llvmpipe \(software\)"),
    ],
)
def test_anything_else_is_refused_with_what_was_seen(
    wanted: str, devices: list[VulkanDevice], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        find_card(wanted, devices)


def test_a_software_device_needs_permission_and_never_stands_for_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(webgpu.ALLOW_SOFTWARE, "1")
    assert find_card("any", [LLVMPIPE]) == LLVMPIPE
    assert find_card("any", [LLVMPIPE, VEGA]) == VEGA
    with pytest.raises(ModelError, match="not there for Vulkan"):
        find_card("0000:03:00.0", [LLVMPIPE])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preferedLayout": "NHWC"}, "no option 'preferedLayout'; did you mean 'preferredLayout'"),
        ({"deviceId": "1"}, "no option 'deviceId'; there are preferredLayout, "),
        ({"preferredLayout": "nhwc"}, "preferredLayout = 'nhwc' does not match NCHW|NHWC"),
        ({"enableGraphCapture": "true"}, r"enableGraphCapture = 'true' does not match \[01\]"),
    ],
)
def test_an_option_that_there_is_not_is_refused(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        check_options(options)


def test_options_that_there_are_pass() -> None:
    check_options({"preferredLayout": "NCHW", "validationMode": "basic", "preserveDevice": "1"})


LOST = (
    "Failed to download data from buffer. wgpu::MapAsyncStatus value: 4, message: [Device] is lost."
)


class Failing:
    """A session whose runs raise what the runtime raised when RADV lost its card, or another."""

    def __init__(self, says: str) -> None:
        self.says = says

    def run(self, outputs: Any, feeds: Any) -> Any:
        raise RuntimeError(self.says)


def test_a_lost_card_is_told_once_to_what_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Exception] = []
    monkeypatch.setattr(webgpu, "on_device_lost", told.append)
    feed = {"x": np.ones(1)}
    with pytest.raises(DeviceLost, match=r"the card is lost for this process: .*is lost"):
        CardSession(lambda: Failing(LOST)).run(None, feed)
    assert [type(it) for it in told] == [DeviceLost]
    with pytest.raises(RuntimeError, match="another fault"):
        CardSession(lambda: Failing("another fault")).run(None, feed)
    assert len(told) == 1


def test_a_runtime_that_would_give_the_card_no_work_is_refused(tmp_path: Path) -> None:
    old = SimpleNamespace(__version__="1.31.1")
    with pytest.raises(ModelError, match=r"onnxruntime 1\.31\.1 gives .* no work; it takes 1\.32"):
        webgpu.claim_card(old, tmp_path)
