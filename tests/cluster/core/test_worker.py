"""What a worker offers, and how much more it may be given."""

import pytest

from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, Requirements
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


def test_free_credit_excludes_tasks_held_and_is_zero_while_draining() -> None:
    worker = offer(credit=4)
    worker.held = 3
    assert worker.free == 1
    worker.draining = True
    assert worker.free == 0
    assert offer(credit=1, capacity=3).free == 3, "credit is at least the capacity"
