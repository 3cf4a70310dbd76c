"""A short leak check, and proof that it finds planted leaks of every kind."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cluster.core.policy import LeastLoaded
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.goals.memory import growth_rows
from perfkit.bench.leaks import planted
from perfkit.bench.leaks.check import CheckSizes, Leak, cells, check_leaks, judge, worst
from perfkit.bench.leaks.churn import KINDS
from perfkit.bench.leaks.planted import LEAK_BYTES, LEAKED, plant
from perfkit.bench.leaks.reading import Reading
from perfkit.bench.leaks.world import ClockedCoordinator
from perfkit.bench.workloads.load import ExperimentError
from perfkit.optimized.specs import OPTIMIZED

ROOT = Path(__file__).parents[4]

#: Bounded caches are full after the first fifth of these few events.
SIZES = CheckSizes(tasks=1_600, churn=336, readings=16)
WORSE = "worker restart", "connect"


def short(spec: ClusterSpec) -> ClusterSpec:
    """The spec with a history that a short check fills."""
    limits = msgspec.structs.replace(spec.limits, history_runs=2)
    return msgspec.structs.replace(spec, limits=limits)


@pytest.fixture
def leak() -> Iterator[None]:
    """Free what leaked in a test."""
    yield
    LEAKED.clear()


def reading(**changes: int | None) -> Reading:
    """A usual reading with these changes; a name that is not a field is a container."""
    facts = {"gc_objects": 1_000, "blocks": 50_000, "malloc_bytes": 1 << 23, "rss_bytes": 1 << 25}
    facts |= {"fds": 9, "threads": 3}
    sizes = {name: count for name, count in changes.items() if name not in facts}
    return Reading(**{n: changes.get(n, usual) for n, usual in facts.items()}, containers=sizes)


#: The gate runs in a fresh process, because threads of the test run make objects too.
ALONE = """
import json
from perfkit.bench.leaks.check import Leak, check_leaks
from perfkit.optimized.specs import spec_named
from tests.perfkit.bench.leaks.test_check import SIZES, short

told = []
table = check_leaks(short(spec_named({name!r})), SIZES, progress=told.append)
print(json.dumps({{
    "leaks": {{row.event: row.reason for row in table if row.verdict is not Leak.NONE}},
    "events": [row.event for row in table],
    "verdict": table.verdict,
    "highs": {{row.event: row.gc_objects_per_event.high for row in table}},
    "told": len(told),
}}))
"""


@pytest.mark.parametrize("name", [BASELINE.name, OPTIMIZED.name])
def test_nothing_is_left_of_anything_that_comes_and_goes(name: str) -> None:
    command = [sys.executable, "-c", ALONE.format(name=name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["leaks"] == {}
    assert found["events"] == [*KINDS]
    assert found["verdict"] == Leak.NONE
    assert found["highs"] == dict.fromkeys(KINDS, 0.0), "exact, not just below"
    assert found["told"] == 2 * len(KINDS), "when each begins and when it ends"


@pytest.mark.usefixtures("leak")
@pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def test_a_hundred_bytes_of_each_task_are_found(spec: ClusterSpec) -> None:
    table = check_leaks(plant(short(spec)), SIZES, ["task"])
    row = table.of("task")
    assert row.verdict is table.verdict is Leak.FOUND
    # Bytes are no objects of the collector's, and in no container of the coordinator's.
    assert row.gc_objects_per_event.value == 0.0
    assert row.growing == {}
    assert row.blocks_per_event.value == pytest.approx(1.0, abs=0.02)
    assert "blocks of memory are left of each event" in row.reason
    assert row.reason in table._repr_html_()
    (goal,) = growth_rows(table)
    assert (goal.met, row.reason in goal.note) == (False, True)
    assert len(LEAKED) == SIZES.tasks
    assert LEAKED[0].__sizeof__() == LEAK_BYTES


class HoardsAddresses(ClockedCoordinator):
    def _forget_gone(self) -> None:
        pass


class HoardsMessages(ClockedCoordinator):
    def _meet(self, event: on.Event, sender: bytes) -> None:
        super()._meet(event, sender)
        if isinstance(event, on.WorkerJoined | on.ClientLeft):
            self.__dict__.setdefault("hoard", []).append(event)


class NeverLetsGo(LeastLoaded):
    """A policy with the usual mistake: it forgets to forget."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, WorkerState] = {}

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        worker = super().choose(needs, suspect)
        if worker is not None:
            self._seen[f"{worker.id} {worker.epoch}"] = worker
        return worker


POLICIES = {NeverLetsGo.name: NeverLetsGo}


@pytest.mark.parametrize("event", ["lost client", "worker restart"])
def test_addresses_that_are_never_forgotten_are_found(event: str) -> None:
    row = check_leaks(short(BASELINE), SIZES, [event], make=HoardsAddresses).of(event)
    assert row.verdict is Leak.FOUND
    assert [*row.growing] == [{"lost client": "_clients", "worker restart": "_workers"}[event]]
    assert "grew by" in row.reason


def test_messages_that_are_kept_are_found_by_count_and_by_place() -> None:
    table = check_leaks(short(OPTIMIZED), SIZES, WORSE, make=HoardsMessages)
    assert [row.verdict for row in table] == [Leak.FOUND] * 2
    assert all("hoard" in row.growing for row in table)
    # A message that a worker joins by has three lists in it; a goodbye holds nothing to track.
    restart, connect = (table.of(event).gc_objects_per_event.value for event in WORSE)
    assert restart >= 4.0 > 1.0 > connect
    assert table.of("connect").growing["hoard"] >= SIZES.churn // 3


def test_a_policy_that_forgets_to_forget_is_found_where_it_is() -> None:
    spec = msgspec.structs.replace(short(BASELINE), policies=f"{__name__}:POLICIES")
    row = check_leaks(spec, SIZES, ["worker restart"]).of("worker restart")
    assert row.verdict is Leak.FOUND
    assert "scheduler.roster.policy._seen" in row.growing
    assert row.gc_objects_per_event.low > 0.5


def test_a_leak_can_be_planted_only_in_the_plain_queue() -> None:
    sorted_queue = msgspec.structs.replace(BASELINE, queue="perfkit.optimized.queue:SortedQueue")
    with pytest.raises(ClusterError, match="has a queue of its own"):
        plant(sorted_queue)
    assert plant(BASELINE).name == "baseline+leak"
    assert planted.LEAKED == []


@pytest.mark.parametrize(
    ("name", "reason"), [("fds", "10 fds are left"), ("threads", "10 threads are left")]
)
def test_descriptors_and_threads_that_stay_are_a_leak(name: str, reason: str) -> None:
    row = judge("x", range(1_000, 26_000, 1_000), [reading(**{name: at}) for at in range(25)])
    assert row.verdict is Leak.FOUND
    assert reason in row.reason


@pytest.mark.parametrize(
    ("readings", "verdict"),
    [
        ([msgspec.structs.replace(reading(), fds=None) for _ in range(25)], Leak.NONE),
        ([reading(blocks=None) for _ in range(25)], Leak.NONE),
        ([reading(blocks=None, gc_objects=1_000 + 10_000 * at) for at in range(25)], Leak.FOUND),
        ([reading(gc_objects=1_000 + 900 * (at * 7 % 5)) for at in range(25)], Leak.UNCLEAR),
        # Caches fill up during warm-up.
        ([reading(blocks=50_000 + 100 * min(at, 4), cache=min(at, 4)) for at in range(25)],
         Leak.NONE),
        ([reading()] * 5, Leak.UNCLEAR),
        ([], Leak.UNCLEAR),
    ],
    ids=["unknown fds", "unknown blocks", "growth", "jumps", "warm-up", "few", "none"],
)  # fmt: skip
def test_a_verdict_follows_from_known_readings(readings: Sequence[Reading], verdict: Leak) -> None:
    row = judge("x", [100 * (at + 1) for at in range(len(readings))], readings)
    assert row.verdict is verdict
    if verdict is Leak.UNCLEAR:
        assert "too few readings, or they move too much" in row.reason
    if readings and readings[0].fds is None:
        assert (row.fds_more, cells(row)[5]) == (None, "unknown")


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([Leak.NONE, Leak.NONE], Leak.NONE),
        ([Leak.NONE, Leak.UNCLEAR], Leak.UNCLEAR),
        ([Leak.UNCLEAR, Leak.FOUND], Leak.FOUND),
        ([], Leak.UNCLEAR),
    ],
)
def test_one_verdict_for_several(verdicts: Sequence[Leak], together: Leak) -> None:
    assert worst(verdicts) is together


def test_a_table_is_a_frame_a_page_a_file_and_rows_of_goals() -> None:
    pytest.importorskip("pandas")
    table = check_leaks(short(BASELINE), SIZES, ["bad frame"])
    frame = table.to_frame()
    assert list(frame["event"]) == ["bad frame"]
    assert frame["gc_objects_per_event_high"][0] == 0.0
    (saved,) = json.loads(table.encode())
    assert (saved["spec"], saved["verdict"]) == ("baseline", "no leak found")
    assert len(saved["readings"]) == SIZES.readings
    (goal,) = growth_rows(table)
    assert (goal.name, goal.value, goal.goal, goal.met) == ("growth_bad_frame", 0.0, 0.001, True)
    assert (goal.high, len(goal.samples["baseline"])) == (0.0, SIZES.readings)


@pytest.mark.parametrize("sizes", [{"readings": 3}, {"churn": 5}, {"tasks": 5}])
def test_unknown_events_and_sizes_that_show_nothing_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ExperimentError, match="no event 'tasks'; there are task, connect"):
        check_leaks(BASELINE, SIZES, ["tasks"])
    with pytest.raises(ExperimentError, match="at least 16 readings"):
        CheckSizes(**sizes)
