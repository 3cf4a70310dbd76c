"""How a process is bound to one card, by the environment it is started with."""

from __future__ import annotations

import re

from cluster.vocabulary.errors import ClusterError

#: Names the card of a process: its PCI address, or `ANY_CARD`. Without it models run on the CPU.
CARD = "PERFKIT_CARD"
#: The one card that there is.
ANY_CARD = "any"

_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def card_environment(card: str) -> dict[str, str]:
    """The environment variables that show a process the AMD card at a PCI address, and no other.

    The loader then reads AMD's drivers alone, so that no software device takes a card's place, and
    Mesa's layer for the choice of a device shows one card:
    https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderDriverInterface.md and
    https://docs.mesa3d.org/envvars.html. **They were not tried on a real card.** What they do is
    checked in the process: see `cluster.models.providers.webgpu`.

    Raises:
        ClusterError: it is not a PCI address such as ``0000:03:00.0``.
    """
    if card == ANY_CARD:
        return {CARD: ANY_CARD}
    pci = card.lower()
    if not _PCI.fullmatch(pci):
        raise ClusterError(
            f"{card!r} is not a card's PCI address, such as 0000:03:00.0; `perfkit gpu` lists them"
        )
    return {
        CARD: pci,
        "DRI_PRIME": "pci-" + re.sub("[:.]", "_", pci),
        "MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE": "1",
        "VK_LOADER_DRIVERS_SELECT": "*radeon*",
    }
