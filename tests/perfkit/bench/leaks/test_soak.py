"""A soak: verdicts on readings, and short soaks of real clusters, with and without a leak."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import msgspec
import psutil
import pytest

from cluster.spec import BASELINE
from perfkit.bench.leaks import soak as soaking
from perfkit.bench.leaks.check import Leak
from perfkit.bench.leaks.planted import plant
from perfkit.bench.leaks.probe import ProbedCluster
from perfkit.bench.leaks.reading import Reading
from perfkit.bench.leaks.soak import DAY_S, Round, SoakResult, soak, summarise
from perfkit.bench.leaks.soak_load import Mix, SoakLoad
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from tests.perfkit.machine import HERE

MIB = 1 << 20
#: Events without processes and waiting, so that rounds are short.
QUICK = Mix(
    submits=20, failures=5, cancels=2, timeouts=2, connects=2, cut_clients=0, killed_clients=0,
    bad_frames=4, killed_workers=0, stopped_workers=0,
)  # fmt: skip


def rounds(
    rss_bytes: Any = 40 * MIB, in_use: Any = 8 * MIB, count: int = 40, **changes: Any
) -> list[Round]:
    """Rounds of a minute each; a callable gives a figure by the round's number."""

    def at(figure: Any, number: int) -> Any:
        return figure(number) if callable(figure) else figure

    usual = Round(0.0, 0, 0, Reading(3_000, 90_000, 0, 0, 25, 7, {"kept": 2}), 30, 9)
    return [
        replace(
            usual,
            at_s=60.0 * number,
            tasks=10_000 * number,
            churn=300 * number,
            coordinator=msgspec.structs.replace(
                usual.coordinator, rss_bytes=at(rss_bytes, number), malloc_bytes=at(in_use, number)
            ),
            **{name: at(figure, number) for name, figure in changes.items()},
        )
        for number in range(count)
    ]


def summary(of: list[Round]) -> SoakResult:
    return summarise(
        of, spec="baseline", duration_s=60.0 * len(of), seed=0, interrupted=False,
        events={"task": 400_000}, environment=HERE,
    )  # fmt: skip


def jitter(number: int) -> int:
    return number * 7919 % 13 * MIB // 13


def test_a_process_that_stays_as_it_is_leaks_nothing() -> None:
    steady = rounds(
        lambda n: 40 * MIB + jitter(n), lambda n: 8 * MIB + jitter(n) // 9, client_fds=None
    )
    found = summary(steady)
    assert found.verdict is Leak.NONE
    assert dict(found.lines())["fds"].endswith("client unknown")
    assert "back to what it was; no growth of memory in use seen, at most" in found.reason
    assert "RSS" not in found.reason


#: Memory in use decides if it is known, else RSS.
WHAT = pytest.mark.parametrize("what", ["memory in use", "RSS"])


def grown(what: str, size: Callable[[int], int]) -> SoakResult:
    return summary(rounds(size, size if what != "RSS" else None))


@WHAT
def test_steady_growth_is_a_leak_and_is_projected_to_a_day(what: str) -> None:
    found = grown(what, lambda n: 40 * MIB + n * MIB + jitter(n))
    assert found.verdict is Leak.FOUND
    assert found.rss_bytes_a_day.value == pytest.approx(DAY_S / 60 * MIB, rel=0.02)
    assert found.rss_bytes_a_day.low is not None
    assert f"{what} grows by at least 1" in found.reason
    assert found.rss_bytes_per_task.value == pytest.approx(MIB / 10_000, rel=0.02)


@WHAT
def test_growth_that_settles_is_no_leak_yet(what: str) -> None:
    found = grown(what, lambda n: 40 * MIB + min(n, 24) * MIB + jitter(n))
    assert found.verdict is Leak.UNCLEAR
    assert f"{what} grew, and may have stopped" in found.reason


@WHAT
def test_a_size_that_jumps_may_grow(what: str) -> None:
    found = grown(what, lambda n: 40 * MIB + 90 * jitter(n))
    assert found.verdict is Leak.UNCLEAR
    assert f"no growth of {what} seen, at most" in found.reason
    assert "soak for longer" in found.reason


def test_growth_of_rss_alone_is_no_leak_but_is_reported() -> None:
    found = summary(rounds(lambda n: 40 * MIB + n * MIB))
    assert found.verdict is Leak.NONE
    assert "RSS grew by unused memory that allocators keep" in found.reason
    assert found.rss_bytes_a_day.value == pytest.approx(DAY_S / 60 * MIB)


@pytest.mark.parametrize("name", ["fds", "threads"])
def test_growth_in_the_clients_process_is_a_leak(name: str) -> None:
    found = summary(rounds(**{f"client_{name}": lambda n: 30 + n}))
    assert found.verdict is Leak.FOUND
    assert f"16 {name} are left in the client's process" in found.reason


@pytest.mark.parametrize("count", [0, 4])
def test_a_soak_too_short_to_tell_says_so(count: int) -> None:
    found = summary(rounds(count=count))
    assert found.verdict is Leak.UNCLEAR
    assert "soak for longer" in found.reason
    assert dict(found.lines())["verdict"].startswith("inconclusive")
    assert json.loads(found.encode())["verdict"] == "inconclusive"


def test_a_result_is_a_frame_a_page_and_a_file() -> None:
    pytest.importorskip("pandas")
    found = summary(rounds(lambda n: 40 * MIB + jitter(n)))
    frame = found.to_frame()
    assert len(frame) == 40
    assert {"at_s", "tasks", "churn", "rss_bytes", "fds", "kept", "client_fds"} <= set(frame)
    saved = json.loads(found.encode())
    assert saved["growth"]["verdict"] == "no leak found"
    assert len(saved["rounds"]) == 40
    assert saved["rss_bytes_a_day"]["high"] == found.rss_bytes_a_day.high


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"minutes": 0.0}, "more than 0 minutes"),
        ({"minutes": float("nan")}, "more than 0 minutes"),
        ({"minutes": 1e9}, "up to a week"),
        ({"workers": 0}, "needs a worker, not 0"),
    ],
)
def test_a_soak_that_makes_no_sense_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ExperimentError, match=complaint):
        soak(BASELINE, **changes)


@pytest.fixture
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soaking, "ROUND_S", 0.01)
    monkeypatch.setattr("perfkit.bench.leaks.soak_load.MAP_TASKS", 200)


@pytest.mark.usefixtures("quick_rounds")
def test_a_soak_finds_a_hundred_bytes_a_task_in_a_process_of_its_own() -> None:
    before = {child.pid for child in psutil.Process().children()}
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 11:
            raise KeyboardInterrupt

    found = soak(plant(BASELINE), 0.5, mix=QUICK, progress=tell)
    assert found.verdict is Leak.FOUND
    assert found.interrupted
    assert len(found.rounds) == 11, "what was measured until then is there"
    # Each round has some 230 tasks for its 15 events of churn.
    per_event = found.growth.blocks_per_event.value
    tasks = found.rounds[-1].tasks - found.rounds[0].tasks
    churn = found.rounds[-1].churn - found.rounds[0].churn
    assert per_event == pytest.approx((tasks + churn) / churn, rel=0.2)
    assert "blocks of memory" in found.reason
    assert "soak: 0." in told[0]
    assert {child.pid for child in psutil.Process().children()} == before


@pytest.mark.usefixtures("quick_rounds")
def test_a_round_has_everything_and_ends_at_rest() -> None:
    limits = msgspec.structs.replace(BASELINE.limits, client_liveness_s=0.5)
    spec = msgspec.structs.replace(BASELINE, limits=limits)
    with ProbedCluster(2, spec) as local:
        load = SoakLoad(local, Mix(cut_clients=2, killed_clients=1), seed=0)
        pids = {worker.pid for worker in local.workers}
        load.round(0.1)
        seen = local.status()
        reading = local.read_coordinator()
    events = load.events
    assert {"task", "failure", "cancel", "timeout", "connect"} <= set(events)
    assert (events["lost client"], events["bad frame"], events["worker restart"]) == (3, 20, 2)
    assert seen.counters["clients_lost"] == 3
    assert seen.counters["malformed"] == 20
    assert pids.isdisjoint(worker.pid for worker in seen.workers)
    assert reading.containers["scheduler.workers"] == 2
    assert reading.containers["scheduler.ledger.runs"] == 0
    assert reading.gc_objects > 0


@pytest.mark.usefixtures("quick_rounds")
def test_a_cluster_that_does_not_come_to_rest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.bench.leaks.soak_load.REST_TIMEOUT_S", 0.2)
    with ProbedCluster(1, BASELINE) as local, local.client() as other:
        other.submit("echo", os.urandom(8)).result(5)
        load = SoakLoad(local, QUICK, seed=0)
        with pytest.raises(ExperimentError, match=r"did not come to rest.*1 clients too many"):
            load.round(0.01)


@pytest.mark.usefixtures("quick_rounds")
def test_a_wrong_map_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Mock(side_effect=WrongResult("task 3 came back as task 4"))
    with ProbedCluster(1, BASELINE) as local:
        load = SoakLoad(local, QUICK, seed=0)
        monkeypatch.setattr("perfkit.bench.leaks.soak_load.map_s", wrong)
        with pytest.raises(WrongResult, match="task 3"):
            load.round(0.01)
