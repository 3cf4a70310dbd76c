"""What a worker offers, and how much more it may be given."""

import pytest

from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, Load, Requirements
from tests.cluster.core.scheduling import offer

GIB = 1 << 30
CARDS = [Gpu("polaris", 8 * GIB), Gpu("vega", 16 * GIB)]


@pytest.mark.parametrize(
    ("needs", "offered"),
    [
        (NO_REQUIREMENTS, True),
        (Requirements(), True),
        (Requirements(model="m"), True),
        (Requirements(model="other"), False),
        (Requirements(min_vram_bytes=16 * GIB), True),
        (Requirements(min_vram_bytes=16 * GIB + 1), False),
        (Requirements(gpu_family="polaris"), True),
        (Requirements(gpu_family="polaris", min_vram_bytes=9 * GIB), False),
        (Requirements(gpu_family="vega", min_vram_bytes=9 * GIB, model="m"), True),
        (Requirements(gpu_family="navi"), False),
    ],
)
def test_one_card_must_meet_everything_that_is_asked_of_a_card(
    needs: Requirements, offered: bool
) -> None:
    assert offer(models=["m"], gpus=CARDS).offers("echo", needs) is offered


def test_a_kind_it_has_no_handler_for_is_not_offered() -> None:
    assert not offer().offers("other", NO_REQUIREMENTS)


def test_free_credit_is_what_it_does_not_hold_and_none_while_it_drains() -> None:
    worker = offer(credit=4)
    worker.held = 3
    assert worker.free == 1
    worker.draining = True
    assert worker.free == 0


def test_while_its_cards_are_in_trouble_it_is_given_nothing() -> None:
    worker = offer(credit=4)
    worker.load = Load(gpu_trouble="0000:0a:00.0 is overheated")
    assert worker.free == 0
    worker.load = Load(temperature_c=60.0)
    assert worker.free == 4
