"""What operators ask and order is answered at once, and a lost order is given again."""

from typing import Any

import pytest

from cluster.core import administration
from cluster.core.roster import MAX_WANTED
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.status import Answer, Status, Story, Tasks
from cluster.vocabulary.task import Failure, Priority, Retry, State
from tests.cluster.core.scheduling import Bench, T, delivered, ended, holding


def asked(bench: Bench, event: on.Event) -> Answer:
    """The answer to a question that brings about nothing else."""
    (report,) = bench.tell(event)
    assert isinstance(report, do.Report)
    assert report.answer is not None, report.error
    return report.answer


def refusal(bench: Bench, event: on.Event) -> str:
    (report,) = bench.tell(event)
    assert isinstance(report, do.Report)
    assert report.answer is None
    return report.error


def listed(bench: Bench, state: State | None = None, limit: int = 100) -> list[tuple[Any, ...]]:
    """The run, position, state, worker and attempts of each task."""
    found = asked(bench, on.TasksRequested("op", 1, state, limit))
    assert isinstance(found, Tasks)
    return [(t.run, t.position, t.state, t.worker, t.attempts) for t in found.tasks]


def worker_of(bench: Bench, name: str = "w") -> Any:
    status = asked(bench, on.StatusRequested("op", 1))
    assert isinstance(status, Status)
    (found,) = [worker for worker in status.workers if worker.worker == name]
    return found


# Tasks


def test_tasks_are_listed_from_the_newest_run_with_their_states() -> None:
    bench = Bench()
    bench.join(credit=2)
    bench.submit(*T[:4], retry=Retry(2, base_s=0.1))
    bench.finish("w", 1, 0, b"a", b"", failures=[Failure(1, "E", "no")])
    bench.submit(b"x", submission=1, priority=Priority.URGENT, kind="other")
    assert listed(bench) == [
        (2, 0, "queued", "", 0),
        (1, 0, "done", "w", 1),
        (1, 1, "queued", "w", 1),
        (1, 2, "assigned", "w", 1),
        (1, 3, "assigned", "w", 1),
    ]
    assert listed(bench, State.QUEUED) == [(2, 0, "queued", "", 0), (1, 1, "queued", "w", 1)]
    assert listed(bench, State.QUEUED, limit=1) == [(2, 0, "queued", "", 0)]
    assert listed(bench, State.DEAD_LETTERED) == []
    bench.now = 3.0
    found = asked(bench, on.TasksRequested("op", 1))
    assert isinstance(found, Tasks)
    first = found.tasks[0]
    facts = first.kind, first.priority, first.client, first.age_s
    assert facts == ("other", Priority.URGENT, "c", 3.0)


def test_ended_tasks_are_listed_while_their_runs_are_remembered() -> None:
    bench = Bench(history_runs=1)
    bench.join(credit=3)
    bench.submit(*T[:3])
    bench.cancel(1)
    bench.finish("w", 1, 0, b"a", b"", b"", failures=[Failure(2, "E", "no")])
    before = [(1, 0, "done", "w", 1), (1, 1, "cancelled", "w", 1), (1, 2, "failed", "w", 1)]
    assert listed(bench) == before
    bench.heard(0, partly=[(0, 0, 2)])
    assert listed(bench) == before, "the client has two of the outcomes"
    bench.heard(1)
    assert listed(bench) == before
    bench.submit(b"x", submission=1)
    bench.finish("w", 2, 0, b"y")
    bench.heard(2)
    assert listed(bench) == [(2, 0, "done", "w", 1)]


def test_a_listing_looks_at_a_bounded_number_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "MAX_LOOKED_AT", 5)
    bench = Bench()
    bench.submit(*T[:4])
    bench.submit(*T[:3], submission=1)
    assert len(listed(bench)) == 5
    assert listed(bench, State.DONE) == []


def test_the_story_of_a_task_is_told_in_seconds_ago() -> None:
    bench = holding(b"x")
    bench.now = 2.0
    story = asked(bench, on.StoryRequested("op", 1, 1, 0))
    assert isinstance(story, Story)
    assert [(e.ago_s, e.cause, e.state, e.detail) for e in story.entries] == [
        (2.0, "accepted", State.QUEUED, "from c"),
        (2.0, "assigned", State.ASSIGNED, "w"),
    ]
    for run, position in ((1, 1), (2, 0)):
        error = refusal(bench, on.StoryRequested("op", 1, run, position))
        assert error.startswith(f"no task {run}:{position} is known; ")


def test_an_operator_cancels_a_task_of_any_client_and_its_client_hears_by_whom() -> None:
    bench = holding(b"x", b"y")
    bench.submit(b"z", submission=1)
    reason = Failure(0, "Cancelled", "cancelled by the operator op", State.CANCELLED)
    assert bench.tell(on.CancelRequested("op", 1, 2, 0)) == [
        ended(reason, submission=1),
        do.Report("op", 1, True),
    ]
    later = Failure(1, "Cancelled", "cancelled by the operator op", State.CANCELLED)
    assert bench.tell(on.CancelRequested("op", 2, 1, 1)) == [
        do.Cancel("w", 1, 1, [1]),
        ended(later),
        do.Report("op", 2, True),
    ]
    assert bench.tell(on.CancelRequested("op", 3, 1, 1)) == [do.Report("op", 3, True)]
    assert bench.finish("w", 1, 0, b"X", b"Y") == [delivered(b"X")]
    assert asked(bench, on.CancelRequested("op", 4, 1, 0)) is False
    bench.heard(2)
    assert asked(bench, on.CancelRequested("op", 5, 1, 0)) is False
    assert asked(bench, on.CancelRequested("op", 5, 1, 1)) is True, "that run is remembered"
    assert "no task 1:2 is known" in refusal(bench, on.CancelRequested("op", 6, 1, 2))
    assert "no task 9:0 is known" in refusal(bench, on.CancelRequested("op", 6, 9, 0))
    bench.counted(cancelled=2, late_results=1)


# Models


def want(bench: Bench, load: list[str], unload: list[str] | None = None) -> list[do.Action]:
    """The orders that follow when an operator wants other models."""
    *orders, report = bench.tell(on.ModelsRequested("op", 1, load, unload or []))
    assert report == do.Report("op", 1, bench.scheduler.status(bench.now))
    return orders


def offers(
    bench: Bench, kinds: list[str], models: list[str], revision: int, *rest: Any, worker: str = "w"
) -> list[do.Action]:
    """What follows the acknowledgement of a worker's offers."""
    trouble, heard = rest or ("", 0)
    event = on.WorkerOffers(worker, bench.epochs[worker], kinds, models, trouble, revision, heard)
    first, *others = bench.tell(event)
    assert first == do.Acknowledge(worker, bench.epochs[worker], revision)
    return others


def test_workers_are_told_which_models_to_serve_until_they_have_heard_it() -> None:
    bench = Bench()
    bench.join(models=["m"])
    order = do.Serve("w", 1, ["n"], 1)
    assert want(bench, ["n"], ["m"]) == [order]
    assert (worker_of(bench).wanted, worker_of(bench).models) == (["n"], ["m"])
    assert bench.beat() == [order], "it may have got lost"
    assert offers(bench, ["echo"], ["m"], 1, "", 1) == []
    assert bench.beat() == []
    assert offers(bench, ["echo", "n"], ["n"], 2, "", 1) == []
    assert worker_of(bench).models == ["n"]
    assert want(bench, [], ["m"]) == [], "it has not"
    assert want(bench, ["n"]) == [do.Serve("w", 1, ["n"], 2)], "a file of it may have changed"
    assert worker_of(bench).offers == 2


def test_a_second_order_adds_to_one_that_is_not_carried_out_yet() -> None:
    bench = Bench()
    bench.join(models=["m"])
    assert want(bench, ["n"]) == [do.Serve("w", 1, ["m", "n"], 1)]
    assert want(bench, ["o"], ["m"]) == [do.Serve("w", 1, ["n", "o"], 2)]
    assert offers(bench, ["echo"], ["m"], 1, "", 1) == []
    assert bench.beat() == [do.Serve("w", 1, ["n", "o"], 2)], "it has heard only the first"
    assert want(bench, ["m"], ["n", "o"]) == [do.Serve("w", 1, ["m"], 3)], "as at first"


def test_an_order_that_failed_can_be_given_again_and_its_trouble_is_shown() -> None:
    bench = Bench()
    bench.join()
    want(bench, ["n"])
    assert offers(bench, ["echo"], [], 1, "no model 'n' is here", 1) == []
    assert worker_of(bench).trouble == "no model 'n' is here"
    assert want(bench, ["n"]) == [do.Serve("w", 1, ["n"], 2)]
    assert offers(bench, ["echo", "n"], ["n"], 2, "", 2) == []
    assert worker_of(bench).trouble == ""


def test_a_worker_that_joins_later_is_told_too_and_a_draining_one_is_not() -> None:
    bench = Bench()
    bench.join("old")
    bench.tell(on.WorkerDraining("old", 1))
    assert want(bench, ["n"], ["m"]) == []
    assert bench.join("new", models=["m", "x"]) == [do.Serve("new", 2, ["n", "x"], 1)]
    assert bench.join("fit", models=["n"]) == []
    assert bench.join("torn", models=["n"], wanted=["m", "o"]) == [
        do.Serve("torn", 4, ["n", "o"], 1)
    ], "it could not load what it was started with"
    bench.tell(on.WorkerLeft("torn", 4))
    assert want(bench, ["m"], ["n"]) == [
        do.Serve("new", 2, ["m", "x"], 2),
        do.Serve("fit", 3, ["m"], 1),
    ]


def test_models_that_cannot_be_wanted_are_refused() -> None:
    bench = Bench()
    both = on.ModelsRequested("op", 1, ["a", "b"], ["b"])
    assert refusal(bench, both) == "'b' can't be both loaded and unloaded"
    assert want(bench, [f"m{n}" for n in range(MAX_WANTED)]) == []
    assert str(MAX_WANTED) in refusal(bench, on.ModelsRequested("op", 1, ["one too many"]))
    assert want(bench, ["m1"], [f"m{n}" for n in range(2, MAX_WANTED)]) == []


# Offers


def test_new_offers_serve_tasks_that_wait_and_those_withdrawn_get_none() -> None:
    bench = Bench()
    bench.join(credit=2)
    assert bench.submit(b"x", kind="n") == []
    assert offers(bench, ["n"], ["n"], 1) == [bench.assign("w", 1, 0, b"x", kind="n")]
    assert bench.submit(b"y", submission=1) == [], "it offers no echo any more"
    assert offers(bench, ["echo"], [], 0) == [], "an older message came late"
    assert offers(bench, ["n"], ["n"], 1) == []
    bench.join("v")
    bench.counted()


def test_leases_of_a_kind_that_was_withdrawn_end_as_the_worker_reports() -> None:
    bench = Bench()
    bench.join(credit=4)
    bench.submit(*T[:4])
    assert offers(bench, ["other"], [], 1) == []
    assert bench.release("w", 1, 2) == [], "nobody else offers it"
    assert bench.join("v") == [bench.assign("v", 2, 2, T[2])]
    assert bench.finish("w", 1, 0, b"a", b"b") == [delivered(b"a", b"b")]
    assert bench.finish("v", 2, 2, b"c") == [
        delivered(b"c", start=2),
        bench.assign("v", 3, 3, T[3]),
    ]


def test_the_offers_of_a_past_epoch_are_sent_away() -> None:
    bench = Bench()
    bench.join()
    stale = on.WorkerOffers("w", 7, ["n"], [], "", 1)
    assert bench.tell(stale) == [do.Disconnect("w", 7, "epoch 7 is over; join again")]
    assert worker_of(bench).kinds == ["echo"]


# Workers that leave


def test_a_worker_is_told_to_drain_until_it_says_so() -> None:
    bench = Bench()
    bench.join(credit=2, pid=7)
    bench.join("v", pid=8)
    bench.submit(b"x")
    order = do.Drain("w", 1)
    assert bench.tell(on.LeaveRequested("op", 1, "w", 7))[0] == order
    assert worker_of(bench).draining
    assert bench.submit(b"y", submission=1) == [bench.assign("v", 2, 0, b"y")]
    assert bench.beat("w", 1) == [order]
    assert bench.tell(on.WorkerDraining("w", 1)) == []
    assert bench.beat("w", 1) == []
    assert bench.finish("w", 1, 0, b"a") == [delivered(b"a")]
    assert bench.tell(on.WorkerLeft("w", 1, "stopped")) == []
    bench.counted(workers_left=1)
    assert isinstance(asked(bench, on.LeaveRequested("op", 1, "w", 7)), Status), "it has left"
    assert isinstance(asked(bench, on.LeaveRequested("op", 1, "v", 7)), Status), "another process"


def test_a_restart_is_ordered_from_the_supervisor_that_sees_the_process() -> None:
    bench = Bench()
    bench.join(pid=7)
    restart = on.LeaveRequested("op", 1, "w", 7, True)
    assert "'w' has no supervisor" in refusal(bench, restart)
    assert not worker_of(bench).draining
    bench.report("w", "running", 7)
    order = do.Restart("h", "w", 7)
    assert bench.tell(restart)[0] == order
    assert bench.beat() == [order]
    bench.tell(on.WorkerDraining("w", 1))
    assert bench.beat() == []
    bench.report("w", "killed", 7)
    bench.join(incarnation=2, pid=9)
    assert not worker_of(bench).draining
    bench.counted(workers_left=1)


# Service times


def test_the_percentiles_of_a_workers_service_times_forget_old_ones() -> None:
    bench = Bench()
    bench.join(credit=9)
    assert worker_of(bench).service_s_p50 is None
    for tasks, busy_s in [(98, 0.98), (2, 2.0)]:
        bench.scheduler.workers["w"].service.add(tasks, busy_s)
    shown = worker_of(bench)
    assert shown.service_s_p50 == pytest.approx(0.01, rel=0.1)
    assert shown.service_s_p99 == pytest.approx(1.0, rel=0.1)
    for _ in range(20):
        bench.scheduler.workers["w"].service.add(4_000, 4e-9)
    shown = worker_of(bench)
    assert shown.service_s_p50 == shown.service_s_p99 == pytest.approx(1e-6, rel=0.1)
