"""Cards that got no work, or the wrong work, and what is right: shared/gpu/cases/CASES.md."""

from collections.abc import Sequence

import pytest

from cluster.core.policy import POLICIES
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.vocabulary.task import Gpu, GpuLoad, Load, Requirements
from perfkit.gpu.probe import GpuProbe
from tests.cluster.core.scheduling import offer
from tests.perfkit.gpu.trees import RECORDINGS

GIB, HOST = 1 << 30, Load()
#: By folder, what is announced of each card and what a heartbeat tells of it.
CASES: dict[str, tuple[Sequence[Gpu], Sequence[GpuLoad]]] = {
    "suspended": (
        [Gpu("navi2", 8 * GIB)],
        [GpuLoad(free_bytes=7 * GIB, asleep=True)],
    ),
    "strix_halo": (
        [Gpu("navi3", 536870912 + 115964116992, is_apu=True)],
        [GpuLoad(536870912 + 115964116992 - 155189248 - 41943040, 37.0, 51.0, 61.234)],
    ),
    "igpu_dgpu": (
        [Gpu("navi3", 25769803776), Gpu("navi2", 2 * GIB + 8_000_000_000, is_apu=True)],
        [
            GpuLoad(1 * GIB, 100.0, 51.0, 61.234),
            GpuLoad(2 * GIB + 8_000_000_000 - 16777216, 0.0, 51.0, 61.234),
        ],
    ),
    "two_idle": (
        [Gpu("polaris", 8 * GIB)] * 2,
        [GpuLoad(8 * GIB, 0.0, 51.0, 61.234)] * 2,
    ),
    "apu_hot": (
        [Gpu("navi3", 8 * GIB + 8_000_000_000, is_apu=True)],
        [GpuLoad(7 * GIB + 8_000_000_000 - 16777216, 37.0, 96.0, 61.234)],
    ),
}


def worker_of(case: str) -> WorkerState:
    """A worker with the cards of a case, after its first heartbeat."""
    tree = RECORDINGS / "cases" / case / "drm"
    if not tree.is_dir():
        pytest.skip(f"no recorded cases in {RECORDINGS}")
    probe = GpuProbe(tree, host=lambda: HOST)
    worker = offer(gpus=probe.gpus())
    worker.load = probe()
    return worker


@pytest.mark.parametrize("case", CASES)
def test_each_card_is_announced_and_told_and_gets_work(case: str) -> None:
    worker = worker_of(case)
    gpus, loads = CASES[case]
    assert worker.gpus == gpus
    assert worker.load == Load(gpus=tuple(loads))
    assert worker.free > 0


def wants(family: str | None, gib: float) -> Needs:
    return "echo", Requirements(min_vram_bytes=int(gib * GIB), gpu_family=family)


@pytest.mark.parametrize(
    ("case", "family", "gib", "free_bytes"),
    [
        ("suspended", "navi2", 8, 7 * GIB),
        ("suspended", "navi2", 9, None),
        ("strix_halo", "navi3", 100, 536870912 + 115964116992 - 155189248 - 41943040),
        ("igpu_dgpu", "navi3", 20, 1 * GIB),
        ("igpu_dgpu", None, 20, 1 * GIB),
        ("igpu_dgpu", "navi2", 9, 2 * GIB + 8_000_000_000 - 16777216),
        ("igpu_dgpu", "navi2", 12, None),
        ("igpu_dgpu", None, 30, None),
        ("two_idle", "polaris", 8, 8 * GIB),
        ("two_idle", "polaris", 16, None),
        ("apu_hot", "navi3", 12, 7 * GIB + 8_000_000_000 - 16777216),
    ],
)
def test_a_task_goes_where_one_card_fits_and_is_placed_by_that_cards_memory(
    case: str, family: str | None, gib: float, free_bytes: int | None
) -> None:
    worker, needs = worker_of(case), wants(family, gib)
    assert worker.offers(*needs) == (free_bytes is not None)
    policy = POLICIES["memory-aware"]()
    policy.join(worker)
    assert policy.choose(needs, False) is (None if free_bytes is None else worker)
    if free_bytes is not None:
        assert policy.score(worker, needs) == -free_bytes  # type: ignore[attr-defined]


def test_idle_cards_are_empty_and_a_busy_one_is_not_half_idle() -> None:
    least = POLICIES["least-loaded"]()
    scores = {
        case: least.score(worker_of(case), wants(family, gib))  # type: ignore[attr-defined]
        for case, family, gib in (("two_idle", None, 8), ("igpu_dgpu", None, 20))
    }
    assert scores["two_idle"] == 0.0
    assert scores["igpu_dgpu"] == pytest.approx(0.2 + 0.1 * (1 - 1 / 24))
