"""What stands between the AMD cards of a machine and a worker: driver, permissions, heat, Vulkan.

Formats and names: the kernel's amdgpu guide for `power_dpm_force_performance_level`, and the Vulkan
loader's interface to drivers for the manifests, which it looks for in `vulkan/icd.d`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from cluster.models.providers.vulkan import AMD, VulkanDevice, vulkan_devices
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning.advice import Advice, Standing
from perfkit.gpu.card import Cards
from perfkit.gpu.device.discovery import CardInfo, no_card_text
from perfkit.gpu.device.record import read_text
from perfkit.gpu.probe import complaint

LEVEL = "power_dpm_force_performance_level"
#: Levels that hold a card at its lowest clocks.
SLOW_LEVELS = ("low", "profile_min_sclk", "profile_min_mclk")


def card_advice(
    root: Path, devices: Callable[[], Sequence[VulkanDevice]] = vulkan_devices
) -> Iterator[Advice]:
    """What to do about each card below `root`; `devices` asks Vulkan, and only if there is one."""
    with closing(Cards(root / "sys/class/drm")) as cards:
        found = [card.info for card in cards]
        if not found:
            text = no_card_text(Path("/sys/class/drm"), cards.skipped)
            yield Advice("cards", Standing.FINE, text)
            return
        for card, sample in zip(found, cards.sample(), strict=True):
            yield from _driver(card)
            yield _level(card)
            yield _link(card)
            trouble = complaint(sample)
            if trouble is not None:
                yield Advice(
                    f"{card.key}: health", Standing.FAULT, trouble,
                    "a worker on this card gets no work; a hot card is slowed down on purpose",
                    "let it cool, clean its fan, look at dmesg",
                )  # fmt: skip
    yield _permission(root)
    yield _vulkan(devices)


def _driver(card: CardInfo) -> Iterator[Advice]:
    if card.driver == "amdgpu":
        yield Advice(f"{card.key}: driver", Standing.FINE, "amdgpu")
        return
    yield Advice(
        f"{card.key}: driver",
        Standing.ADVICE,
        card.driver or "none",
        "only amdgpu has the Vulkan driver, and tells temperatures and use",
        "boot with radeon.si_support=0 radeon.cik_support=0 amdgpu.si_support=1 "
        "amdgpu.cik_support=1",
        evidence="without it the card does no work at all",
    )


def _level(card: CardInfo) -> Advice:
    name, level = f"{card.key}: clocks", read_text(card.device / LEVEL)
    if level is None:
        return Advice(name, Standing.UNKNOWN, None, evidence=f"the driver shows no {LEVEL}")
    if level not in SLOW_LEVELS:
        return Advice(name, Standing.FINE, level)
    return Advice(
        name, Standing.ADVICE, level, "the card stays at its lowest clocks",
        f"echo auto | sudo tee /sys/class/drm/{card.card}/device/{LEVEL}",
        evidence="the gain is that of the clocks: perfkit gpu --watch",
    )  # fmt: skip


def _link(card: CardInfo) -> Advice:
    """Whether the slot gives the card as many lanes as it has."""
    name = f"{card.key}: lanes"
    now, most = (read_text(card.device / f"{it}_link_width") for it in ("current", "max"))
    if now is None or most is None or not (now.isdigit() and most.isdigit()):
        return Advice(name, Standing.UNKNOWN, None, evidence="sysfs tells no link width")
    if int(now) >= int(most):
        return Advice(name, Standing.FINE, f"{now} of {most}")
    return Advice(
        name, Standing.ADVICE, f"{now} of {most}",
        "models and large payloads reach the card more slowly",
        "another slot, without a riser; lspci -vv shows LnkCap and LnkSta",
        evidence="a model's loading time scales with the lanes, its runs hardly do",
    )  # fmt: skip


def _permission(root: Path) -> Advice:
    """Whether this user may use the render nodes."""
    nodes = sorted((root / "dev/dri").glob("renderD*"))
    if not nodes:
        return Advice(
            "render nodes", Standing.ADVICE, "none in /dev/dri",
            "Vulkan reaches a card through one", "load amdgpu, or give the container --device "
            "/dev/dri", evidence="without it the card does no work at all",
        )  # fmt: skip
    shut = [node.name for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not shut:
        return Advice("render nodes", Standing.FINE, ", ".join(node.name for node in nodes))
    return Advice(
        "render nodes", Standing.ADVICE, f"no permission for {', '.join(shut)}",
        "Vulkan reaches a card through one", "sudo usermod -aG render $USER, and log in again",
        evidence="without it the card does no work at all",
    )  # fmt: skip


def _vulkan(devices: Callable[[], Sequence[VulkanDevice]]) -> Advice:
    try:
        found = devices()
    except ClusterError as error:
        shown = str(error)
    else:
        ours = [it.name for it in found if it.vendor_id == AMD and not it.is_software]
        if ours:
            return Advice("Vulkan", Standing.FINE, ", ".join(ours))
        shown = f"no AMD card among {', '.join(it.name for it in found) or 'no devices'}"
    return Advice(
        "Vulkan", Standing.ADVICE, shown,
        "models run on old cards over Vulkan, and on the CPU without it",
        "sudo apt install libvulkan1 mesa-vulkan-drivers",
        evidence="perfkit model precision NAME compares the card with the CPU",
    )  # fmt: skip
