"""What a worker offers, and how much more it may be given."""

import pytest

from cluster.core.worker import BatchTotals, Lease
from cluster.vocabulary import actions as do
from cluster.vocabulary.task import (
    NO_REQUIREMENTS,
    BatchSize,
    Gpu,
    GpuLoad,
    KindBatches,
    Load,
    Requirements,
)
from tests.cluster.core.scheduling import Bench, offer, run

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


@pytest.mark.parametrize(
    ("needs", "offered"),
    [
        (NO_REQUIREMENTS, True),
        (Requirements(min_vram_bytes=8 * GIB), True),
        (Requirements(min_vram_bytes=9 * GIB), False),
        (Requirements(gpu_family="polaris"), False),
        (Requirements(gpu_family="vega"), True),
        (Requirements(gpu_family="vega", min_vram_bytes=1), False),
    ],
)
def test_what_is_unknown_of_a_card_is_not_offered(needs: Requirements, offered: bool) -> None:
    unknown = [Gpu(None, 8 * GIB), Gpu("vega", None)]
    assert offer(gpus=unknown).offers("echo", needs) is offered


def test_a_card_that_is_not_fit_is_not_offered_until_it_is() -> None:
    worker, large = offer(gpus=CARDS), Requirements(min_vram_bytes=9 * GIB)
    worker.load = Load(gpus=(GpuLoad(), GpuLoad(trouble="hot"), GpuLoad()))
    assert [card.gpu for card in worker.cards] == CARDS[:1]
    assert worker.offers("echo", Requirements(min_vram_bytes=8 * GIB))
    assert not worker.offers("echo", large)
    assert worker.free == 4, "the other card works"
    worker.load = Load()
    assert worker.offers("echo", large)


def test_a_kind_it_has_no_handler_for_is_not_offered() -> None:
    assert not offer().offers("other", NO_REQUIREMENTS)


def test_free_credit_excludes_tasks_held_and_is_zero_while_draining() -> None:
    worker = offer(credit=4)
    worker.held = 3
    assert worker.free == 1
    worker.draining = True
    assert worker.free == 0
    assert offer(credit=1, capacity=3).free == 3, "credit is at least the capacity"


@pytest.mark.parametrize(("batches", "running"), [({}, 2), ({"echo": 3}, 6)])
def test_a_model_may_run_a_batch_of_leases_in_each_slot(
    batches: dict[str, int], running: int
) -> None:
    worker = offer(capacity=2, credit=100, batches=batches)
    leases = [Lease(id, run(id), worker, 0.0, 0, 1) for id in range(10)]
    worker.leases = {lease.id: lease for lease in leases}
    assert [worker.runs(lease) for lease in leases] == [True] * running + [False] * (10 - running)


def batches(*sizes: tuple[int, int, float], kind: str = "m") -> list[KindBatches]:
    return [KindBatches(kind, [BatchSize(*size) for size in sizes])]


def test_batches_are_added_up_over_workers_that_go_and_that_count_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    told = [
        ("a", batches((2, 2, 0.5))),
        ("b", batches((1, 1, 0.25), (3, 6, 1.5))),
        ("a", batches((3, 3, 0.75), (1, 2, 0.5))),
        ("a", batches((3, 3, 0.75), (1, 2, 0.5))),  # nothing new
        ("b", batches((2, 2, 0.5))),  # its model was loaded again
    ]
    for worker in "ab":
        bench.join(worker)
    for worker, counts in told:
        bench.beat(worker, batches=counts)
    total = batches((6, 6, 1.5), (4, 8, 2.0))
    assert bench.scheduler.status(bench.now).batches == total
    bench.die("a")
    bench.join("a", incarnation=2)
    bench.beat("a", batches=batches((1, 1, 0.5)))
    monkeypatch.setattr(BatchTotals, "KINDS_MAX", 1)
    for runs in (5, 7):
        bench.beat("b", batches=batches((runs, 9, 1.0), kind="one too many"))
    assert bench.scheduler.status(bench.now).batches == batches((7, 7, 2.0), (4, 8, 2.0))
    assert bench.scheduler.ledger.counters["batches_left_out"] == 7


def test_a_worker_is_given_no_more_than_it_has_room_for_now_that_it_knows_its_tasks() -> None:
    """Another client's task waits behind all that it has in hand, so large tasks make fewer."""
    bench = Bench()
    bench.join(credit=8)
    bench.beat(wants={"echo": 1}, credit=2)
    assigned = [action for action in bench.submit(*[b"x"] * 6) if isinstance(action, do.Assign)]
    ids = [action.lease for action in assigned]
    assert sum(len(action.payloads) for action in assigned) == 2
    more = bench.beat("w", *ids, wants={"echo": 2}, credit=99)
    assert sum(len(it.payloads) for it in more if isinstance(it, do.Assign)) == 4
