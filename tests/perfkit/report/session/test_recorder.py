"""A report on a block of work: its counts are those of the work, and its page tells them."""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster import Client, LocalCluster, TaskFailed
from cluster.shells.futures import TaskFuture
from cluster.shells.refusals import WATCHERS
from perfkit import performance_report
from perfkit.evidence.results import load
from perfkit.evidence.verdicts import Verdict
from perfkit.gpu.device.made_up import plant
from perfkit.gpu.sampler import GpuSampler
from perfkit.report import ReportError
from perfkit.report.page.html import PAGE_BYTES_MAX
from perfkit.report.page.selfcontained import find_external
from perfkit.report.session import recorder, timeline
from perfkit.report.session.findings import Findings
from perfkit.report.session.own_tasks import OwnTasks

PAUSE = threading.Event()
SERVICE_S, IN_FLIGHT = 0.02, 20
#: Looks come often, so that one at the end of the work, while a worker has none, decides nothing.
INTERVAL_S, LOOKS = 0.05, 30


@dataclass(frozen=True)
class Block:
    """A finished report, and how many sleeping tasks were in it."""

    session: performance_report
    slept: int


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster(2) as running:
        yield running


@pytest.fixture(scope="module")
def client(local: LocalCluster) -> Client:
    return local.client()


@pytest.fixture(scope="module")
def recorded(
    local: LocalCluster, client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Block:
    """A block of sleeping tasks with three errors among echoes, and another client's tasks.

    Workers have more to do until enough looks were taken, however slow the machine is.
    """
    path, slept = tmp_path_factory.mktemp("report") / "run.html", 0
    with Client(local.endpoint, spec=local.spec) as other, performance_report(path) as session:
        session._timeline.interval_s = INTERVAL_S
        pending: list[TaskFuture] = []
        while len(session._timeline.looks) < LOOKS:
            more = client.submit_batch("sleep", [b"%f" % SERVICE_S] * IN_FLIGHT)
            assert {future.result(10) for future in pending} <= {b"%f" % SERVICE_S}
            pending, slept = more, slept + IN_FLIGHT
        assert [len(future.result(10)) for future in pending] == [8] * IN_FLIGHT
        echoes = [client.submit("echo", b"%d" % n) for n in range(20)]
        assert [future.result(10) for future in echoes] == [b"%d" % n for n in range(20)]
        for _ in range(3):
            assert isinstance(client.submit("fail", b"a <b>planned</b> one").exception(10),
                              TaskFailed)  # fmt: skip
        other.submit("echo").result(10)
    return Block(session, slept)


def test_counts_are_exactly_those_of_the_work(recorded: Block) -> None:
    counters = recorded.session.result.counters
    assert {name: counters[name] for name in ("accepted", "done", "failed", "own_tasks")} == {
        "accepted": recorded.slept + 24,
        "done": recorded.slept + 21,
        "failed": 3,
        "own_tasks": recorded.slept + 24,
    }
    assert recorded.session.result.tasks == recorded.slept + 21
    assert sum(recorded.session.result.series["done"]) == recorded.slept + 21  # type: ignore[arg-type]
    assert not WATCHERS


def test_times_are_in_the_order_that_the_work_gives_them(recorded: Block) -> None:
    found = recorded.session._ended
    p50, p99 = (found.latency_ms[q].value for q in (50, 99))
    assert p50
    assert p99
    assert p99 / 2 < 1e3 * SERVICE_S * recorded.slept / 2
    assert p99 >= p50 > 1e3 * SERVICE_S
    least_s = SERVICE_S * recorded.slept / 2
    assert found.busy_s > least_s
    assert 0 < (found.throughput.value or 0) < (recorded.slept + 21) / least_s
    service = max(stages[3] for stages in found.trace.intervals_ns)
    assert found.trace.traces > 1
    assert service > 0.9e9 * SERVICE_S


def test_workers_that_always_held_work_are_what_limited_it(recorded: Block) -> None:
    limits = {limit.name: limit for limit in recorded.session._ended.limits}
    assert limits["the workers"].verdict is Verdict.MET
    assert limits["the coordinator"].verdict is not Verdict.MET
    assert [worker.finished > 0 for worker in recorded.session._ended.workers] == [True, True]
    share = round(100 * (limits["the workers"].used.value or 0.0))
    words = f"Limited by the workers: {share} % in use, while tasks waited."
    assert words in repr(recorded.session)


def test_page_opens_offline_and_says_the_verdict_first(recorded: Block) -> None:
    page = recorded.session.path.read_text()
    assert not find_external(page)
    assert "<script" not in page
    assert len(page.encode()) < PAGE_BYTES_MAX
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", page, re.DOTALL)
    assert heading is not None
    assert f"{recorded.slept + 21} tasks done, 3 failed" in heading[1]
    titles = re.findall(r"<h2 id=\"[^\"]*\">(.*?)</h2>", page)
    assert titles == [
        "Figures", "Over time", "Bottlenecks", "Latency", "Stages of a task", "Errors", "Workers",
        "Processes", "GPU", "Counters", "Code", "Machine",
    ]  # fmt: skip
    assert "a &lt;b&gt;planned&lt;/b&gt; one" in page
    assert "performance_report(path) as session" in page


def test_result_is_shown_saved_and_drawn_as_others_are(
    recorded: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded.session.path.parent)
    shown = recorded.session._repr_html_()
    assert '<a href="run.html">' in shown
    assert "<script" not in shown
    recorded.session.save(tmp_path / "run.json")
    assert load(tmp_path / "run.json") == recorded.session.result
    frame = recorded.session.to_frame()
    assert len(frame) == len(recorded.session.result.series["at_s"])
    assert frame["done"].sum() == recorded.slept + 21
    assert "throughput" in recorded.session.plot().alt


@pytest.mark.parametrize("error", [ValueError("a <planned> error"), KeyboardInterrupt()])
def test_block_that_ends_early_has_its_page_and_its_exception(
    local: LocalCluster, client: Client, tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "run.html"
    session = performance_report(path, local)

    def work() -> None:
        with session:
            client.submit("echo").result(10)
            raise error

    with pytest.raises(type(error)):
        work()
    page = path.read_text()
    assert f"Stopped by {type(error).__name__}. 1 task done" in page
    assert page.index("The block stopped") < page.index("Figures")
    assert "a &lt;planned&gt; error" in page or not error.args
    assert session.result.counters["done"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_reports_within_each_other_count_the_same_and_an_empty_one_says_so(
    local: LocalCluster, client: Client, tmp_path: Path
) -> None:
    with performance_report(tmp_path / "outer.html", client) as outer:
        with pytest.raises(ReportError, match="being recorded by another"):
            performance_report(tmp_path / "outer.html", local).__enter__()
        with performance_report(tmp_path / "inner.html", local, cprofile=True) as inner:
            client.submit("echo").result(10)
        with (
            performance_report(tmp_path / "empty.html", local.endpoint) as empty,
            pytest.raises(ReportError, match="has not ended"),
        ):
            _ = empty.result
    assert [it.result.counters["own_tasks"] for it in (outer, inner, empty)] == [1, 1, 0]
    assert "CPU profile of the block" in (tmp_path / "inner.html").read_text()
    assert "No task ran in" in (tmp_path / "empty.html").read_text()


def test_cards_that_are_there_are_watched_and_drawn(
    local: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "cards")
    monkeypatch.setattr(recorder, "GpuSampler", partial(GpuSampler, tmp_path / "cards"))
    with performance_report(tmp_path / "run.html", local) as session:
        (card,) = session._gpu.tracks
        while len(session._gpu.rows(card, "activity")) < 2:
            PAUSE.wait(0.01)
    page = (tmp_path / "run.html").read_text()
    assert "No task ran in" in page
    assert f"busy. {card}: 37 to 37 %." in page
    assert f"power. {card}: 83.02 to 83.02 W." in page


def test_killed_worker_is_shown_with_the_one_that_replaced_it(
    local: LocalCluster, client: Client, tmp_path: Path
) -> None:
    with performance_report(tmp_path / "run.html", local) as session:
        work = client.map("sleep", [b"0.02"] * 40, idempotent=True)
        victim = local.workers[0]
        os.kill(victim.pid, signal.SIGKILL)
        assert len(list(work)) == 40
        local.restart_worker(victim)
        end_s = time.monotonic() + 20
        while len(client.status().workers) < 2:
            assert not PAUSE.wait(0.01)
            assert time.monotonic() < end_s
    assert session.result.counters["done"] == 40
    seen = [worker for worker in session._ended.workers if worker.worker == victim.role]
    assert {worker.pid for worker in seen} >= {victim.pid, local.workers[0].pid}
    assert ">gone<" in (tmp_path / "run.html").read_text()


def test_what_would_lose_the_page_is_said_before_the_work(
    local: LocalCluster, tmp_path: Path
) -> None:
    bad: list[tuple[Any, Any, str]] = [
        (tmp_path / "nowhere" / "run.html", local, "there is no folder .*nowhere; make it first"),
        (tmp_path, local, "is a folder; name a file in it"),
        (tmp_path / ("n" * 300), local, "can't be written: File name too long"),
        (tmp_path / "run.pdf", local, "run.pdf has to end in .html"),
        (local, None, "goes to a file"),
        (tmp_path / "run.html", 5, "is about a LocalCluster, a Client or an endpoint"),
        (tmp_path / "run.html", LocalCluster(), "the cluster is not running"),
    ]
    for path, cluster, words in bad:
        with pytest.raises(ReportError, match=words), performance_report(path, cluster):
            pytest.fail("the block began")
    with (
        Client("tcp://127.0.0.1:1", spec=local.spec),
        pytest.raises(ReportError, match=r"2 clusters are open .*tcp://127\.0\.0\.1:1"),
    ):
        performance_report(tmp_path / "run.html").__enter__()
    assert not list(tmp_path.iterdir())


def test_looks_are_bounded_and_keep_the_counts(
    local: LocalCluster, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "LOOKS_MAX", 4)
    monkeypatch.setattr(timeline, "REST", 0.0)
    with performance_report(tmp_path / "run.html", local) as session:
        session._timeline.interval_s = 0.001
        while session._timeline.interval_s < 0.005:
            client.submit("echo").result(10)
    looks = session._timeline.looks
    assert len(looks) <= 5
    assert looks == sorted(looks, key=lambda look: look.at_s)
    assert session.result.counters["done"] == sum(session.result.series["done"])  # type: ignore[arg-type]


def test_tasks_that_are_handed_in_as_the_block_ends_are_this_process_s_own(
    local: LocalCluster, client: Client, tmp_path: Path
) -> None:
    with performance_report(tmp_path / "run.html", local) as session:
        futures = [client.submit("sleep", b"0.1") for _ in range(10)]
    counters = session.result.counters
    assert 10 >= counters["own_tasks"] >= counters["accepted"] > 0
    assert {future.result(10) for future in futures} == {b"0.1"}


def test_processor_time_of_a_few_ticks_is_unknown_and_not_0(
    local: LocalCluster, client: Client, tmp_path: Path
) -> None:
    with performance_report(tmp_path / "run.html", local) as session:
        assert client.submit("echo", b"x").result(10) == b"x"
    assert re.search(r"processor time per task, coordinator +unknown", str(session))


def test_work_that_no_look_saw_has_no_time_in_its_sentence() -> None:
    own = OwnTasks("tcp://127.0.0.1:1", Counter(f=100), Counter(f=100))
    step = timeline.Step(timeline.Look(0.0, {}, 0.0, None), timeline.Look(1.0, {}, 0.0, None))
    found = Findings(1.0, (step,), own, (), 2.0)
    assert found.sentence.startswith("100 tasks done. What limited it is inconclusive")
