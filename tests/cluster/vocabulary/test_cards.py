"""A process is bound to a card by the variables it is started with."""

import pytest

from cluster.vocabulary.cards import ANY_CARD, CARD, card_environment
from cluster.vocabulary.errors import ClusterError


def test_the_environment_of_a_card_shows_it_alone() -> None:
    assert card_environment("0000:0A:00.0") == {
        CARD: "0000:0a:00.0",
        "DRI_PRIME": "pci-0000_0a_00_0",
        "MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE": "1",
        "VK_LOADER_DRIVERS_SELECT": "*radeon*",
    }


def test_any_card_binds_to_none_in_particular() -> None:
    assert card_environment(ANY_CARD) == {CARD: ANY_CARD}


@pytest.mark.parametrize("card", ["", "card0", "03:00.0", "0000:03:00", "0000:03:00.0\n", "*"])
def test_what_is_not_an_address_is_refused(card: str) -> None:
    with pytest.raises(ClusterError, match="is not a card's PCI address"):
        card_environment(card)
