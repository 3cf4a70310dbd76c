"""Who is dead: silence, a broken route and a goodbye are no deaths; the end of a process is one."""

import pytest

from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Retry, State, TaskId
from tests.cluster.core.scheduling import Bench, T, delivered, holding


def deaths(bench: Bench) -> int:
    """How many workers the first open task of run 1 has lost."""
    run = bench.scheduler.ledger.runs[1]
    leased = [lease.deaths for lease in bench.scheduler.ledger.leases.values() if lease.run is run]
    return max([piece.deaths for pieces in run.waiting for piece in pieces] + leased)


def others(bench: Bench, name: str = "b") -> None:
    """Let another worker join and stay."""
    bench.join(name)
    bench.beat(name)


# What supervisors say


def test_a_process_that_has_ended_is_a_death_once() -> None:
    bench = holding(b"x")
    others(bench)
    assert bench.die("w") == [bench.assign("b", 2, 0, b"x")]
    assert bench.die("w") == []
    assert deaths(bench) == 1
    bench.counted(workers_lost=1, worker_deaths=1, lost=1)


def test_a_process_killed_on_order_gives_its_tasks_back_without_a_death() -> None:
    bench = holding(b"x", b"y")
    assert bench.report("w", "killed") == []
    assert bench.finish("w", 1, 0, b"X") == [delivered(b"X")], "it was on its way"
    bench.wait(0.2)
    others(bench)
    assert deaths(bench) == 0
    bench.counted(workers_left=1, returned=1)


def test_the_end_of_a_process_does_not_overtake_the_reports_before_its_goodbye() -> None:
    bench = holding(b"x", b"y")
    assert bench.tell(on.WorkerLeft("w", 1)) == bench.die("w") == []
    assert bench.wait(0.1) == []
    assert bench.finish("w", 1, 0, b"X") == [delivered(b"X")]
    assert bench.wait(0.15) == [], "there may be more"
    bench.wait(0.06)
    assert bench.join("b") == [bench.assign("b", 2, 1, b"y")]
    bench.counted(workers_left=1, returned=1)


# A slow line


def test_a_lease_with_large_payloads_has_a_second_more_to_come_for_each_megabyte() -> None:
    bench = holding(b"x" * 3_000_000, b"y" * 2_000_000)
    for _ in range(28):
        assert bench.wait(0.2) + bench.beat("w") + bench.heard() == []
    bench.now += 0.3
    assert [type(action) for action in bench.beat("w")] == [do.Assign]
    bench.counted(mislaid_leases=1, returned=2)


def test_an_old_process_or_another_host_says_nothing_about_a_worker() -> None:
    bench = Bench()
    bench.join(pid=7)
    bench.report("w", "running", 7, "h")
    assert bench.report("w", "gone", 6, "h") == []
    assert bench.report("w", "gone", 7, "elsewhere") == []
    assert [*bench.scheduler.workers] == ["w"]
    assert bench.tell(on.HostLeft("h")) == []
    bench.report("w", "gone", 7, "elsewhere")
    assert [*bench.scheduler.workers] == []


def test_a_silent_worker_that_its_supervisor_sees_running_keeps_its_lease() -> None:
    bench = holding(b"x")
    for _ in range(15):
        assert bench.report("w", "running") == []
        assert bench.wait(0.5) == []
    assert bench.finish("w", 1, 0, b"y") == [delivered(b"y")]
    bench.counted()


@pytest.mark.parametrize("state", ["stopped", "running"])
def test_a_suspended_worker_is_lost_as_one_is_whose_supervisor_fell_silent(state: str) -> None:
    bench = holding(b"x")
    bench.wait(0.3)
    bench.report("w", "running")
    bench.report("w", state)
    bench.wait(0.61)
    assert not bench.scheduler.workers
    assert deaths(bench) == 0
    bench.counted(workers_lost=1, lost=1)


def test_a_supervisor_is_shown_until_it_leaves_or_is_silent_for_long() -> None:
    bench = Bench(client_liveness_s=5.0, hosts=2)
    bench.tell(on.HostReported("h", [], 3, "w1 is given up"))
    (shown,) = bench.scheduler.status(1.0).hosts
    assert (shown.host, shown.restarts, shown.silent_s) == ("h", 3, 1.0)
    assert (shown.workers, shown.trouble) == (0, "w1 is given up")
    bench.wait(3.0)
    bench.tell(on.HostReported("i", []))
    assert bench.tell(on.HostReported("j", [])) == []
    bench.wait(2.5)
    assert [*bench.scheduler.hosts.by_name] == ["i"]
    bench.tell(on.HostLeft("i"))
    bench.tell(on.HostLeft("i"))
    assert not bench.scheduler.hosts.by_name
    bench.counted(hosts_ignored=1)


# Silence


def test_silence_alone_never_buries_a_task() -> None:
    bench = Bench()
    bench.submit(b"x")
    for n in range(5):
        assert bench.join(f"w{n}") == [bench.assign(f"w{n}", n + 1, 0, b"x")]
        assert bench.wait(0.7) == []
    assert deaths(bench) == 0
    bench.counted(workers_lost=5, lost=5)


@pytest.mark.parametrize("word", ["report", "restart"])
def test_a_death_told_after_the_silence_is_counted_for_tasks_that_wait(word: str) -> None:
    bench = holding(*T[:2])
    bench.finish("w", 1, 0, b"a")
    bench.wait(0.7)
    if word == "report":
        assert bench.die("w") == bench.die("w") == []
    else:
        bench.join("w", incarnation=2, kinds=["other"], pid=9)
    assert deaths(bench) == 1
    assert bench.join("b", credit=2) == [bench.assign("b", 2, 1, T[1])]
    bench.counted(workers_lost=1, lost=1, worker_deaths=1)


def test_a_death_told_late_takes_the_suspects_from_their_next_worker() -> None:
    bench = Bench()
    bench.join("w", credit=1)
    assert bench.submit(*T[:3]) == [bench.assign("w", 1, 0, T[0])]
    bench.wait(0.7)
    assert bench.join("b", credit=3) == [bench.assign("b", 2, 0, *T[:3])]
    assert bench.die("w") == [do.Cancel("b", 2, 2, [0])]
    bench.join("c")
    assert [e.detail for e in bench.scheduler.story(TaskId(1, 0))[-2:]] == [
        "a suspect since the death of w: its process ended",
        "c",
    ]
    assert deaths(bench) == 1
    assert bench.finish("b", 2, 0, b"late", b"1", b"2") == [delivered(b"1", b"2", start=1)]
    assert bench.finish("c", 3, 0, b"0") == [delivered(b"0")]
    bench.counted(workers_lost=1, lost=1, worker_deaths=1, late_results=1)


def test_deaths_told_late_bury_a_task_wherever_it_is() -> None:
    bench = Bench(deaths=2)
    bench.submit(b"x")
    for name in "ab":
        bench.join(name)
        bench.wait(0.7)
    bench.join("c")
    assert bench.die("a") == [do.Cancel("c", 3, 3, [0])]
    assert bench.beat("c", 3) == []
    (deliver,) = bench.die("b")
    assert isinstance(deliver, do.Deliver)
    assert deliver.failures[0].state is State.DEAD_LETTERED
    assert deliver.failures[0].message.endswith("death 2, the last: b: its process ended")
    bench.counted(workers_lost=2, lost=2, worker_deaths=2, dead_lettered=1)


@pytest.mark.parametrize("end", ["rejoined", "killed", "left", "forgotten", "finished"])
def test_a_lost_worker_is_no_suspicion_once_it_is_known_to_live_or_too_old(end: str) -> None:
    bench = holding(b"x", workers=1)
    bench.wait(0.7)
    if end == "rejoined":
        bench.join("w", kinds=["other"])
        bench.report("w", "killed")
    elif end == "killed":
        bench.report("w", "killed")
    elif end == "left":
        bench.tell(on.WorkerLeft("w", 1))
    elif end == "forgotten":
        bench.join("v", kinds=["other"])
        bench.wait(0.7)
    else:
        bench.cancel()
        bench.heard(1)
    bench.die("w")
    if end != "finished":
        assert deaths(bench) == 0


def test_a_task_that_waits_for_its_retry_learns_of_a_death_too() -> None:
    bench = Bench(deaths=1)
    bench.join("w", credit=2)
    bench.submit(b"x", retry=Retry(2, base_s=10.0))
    bench.wait(0.7)
    bench.join("v")
    bench.fail("v", 2, 0)
    (deliver,) = bench.die("w")
    assert isinstance(deliver, do.Deliver)
    assert bench.wait(20.0) == []


# No route, and goodbyes


def test_a_worker_without_a_route_gives_back_only_what_was_not_sent_and_may_leave() -> None:
    bench = Bench()
    bench.join("w", credit=2)
    bench.submit(b"x")
    bench.submit(b"y", submission=1)
    others(bench)
    assert bench.tell(on.WorkerUnreachable("w", [2, 99])) == [bench.assign("b", 3, 0, b"y")]
    assert bench.finish("w", 1, 0, b"X") == [delivered(b"X")]
    assert bench.tell(on.WorkerLeft("w", 1)) == []
    assert bench.tell(on.WorkerUnreachable("w", [])) == []
    bench.counted(returned=1, workers_left=1)


def test_a_worker_without_a_route_gets_nothing_more_and_is_lost_when_silent() -> None:
    bench = holding(b"x")
    bench.tell(on.WorkerUnreachable("w", []))
    bench.finish("w", 1, 0, b"X")
    assert bench.submit(b"y", submission=1) == []
    bench.wait(0.5)
    bench.report("w", "running")
    bench.wait(0.2)
    assert not bench.scheduler.workers, "its supervisor can't vouch for its way to work"
    bench.counted(workers_lost=1)


def test_a_worker_that_lives_without_a_route_joins_again() -> None:
    bench = holding(b"x")
    bench.tell(on.WorkerUnreachable("w", []))
    assert bench.beat("w", 1) == [], "this may have been under way"
    bench.wait(0.3)
    away = do.Disconnect("w", 1, "there is no route to you; join again")
    assert bench.beat("w", 1) == [away]
    assert bench.join("w") == [bench.assign("w", 2, 0, b"x")]
    assert deaths(bench) == 0
    bench.counted(returned=1)


def test_a_coordinator_that_was_started_again_gives_no_worker_the_epoch_that_it_had() -> None:
    bench = Bench()
    for name, before in (("a", 1), ("b", 2), ("c", 0)):
        (welcome,) = bench.tell(on.WorkerJoined(name, 1, 1, 1, ["echo"], epoch=before))
        assert isinstance(welcome, do.Welcome)
        assert welcome.epoch > before
    assert len({worker.epoch for worker in bench.scheduler.workers.values()}) == 3


# Names


@pytest.mark.parametrize("incarnation", [1, 3])
def test_a_second_worker_of_one_name_is_refused_while_the_first_lives(incarnation: int) -> None:
    bench = Bench()
    bench.join("w", incarnation=2, pid=7, host="here")
    second = on.WorkerJoined("w", incarnation, 1, 1, ["echo"], pid=8, host="here")
    (refused,) = bench.tell(second)
    assert isinstance(refused, do.Disconnect)
    assert refused.epoch == 0
    assert refused.reason.startswith("another worker of this name is alive: process 7 on here")
    bench.wait(0.4)
    bench.report("w", "running", 7)
    bench.wait(0.4)
    assert bench.tell(second) == [refused]
    bench.counted(stale_joins=2)


def test_the_name_of_a_silent_worker_is_free_and_the_newer_process_tells_its_death() -> None:
    bench = Bench()
    bench.join("w", incarnation=2, pid=7)
    bench.submit(b"x")
    bench.wait(0.7)
    assert bench.join("w", incarnation=3, pid=8) == [bench.assign("w", 2, 0, b"x")]
    assert deaths(bench) == 1


# Pauses


def test_a_pause_of_the_coordinator_is_nobody_s_silence() -> None:
    bench = Bench(client_liveness_s=2.0)
    for n in range(100):
        bench.join(f"w{n}", pid=n)
    bench.tell(on.HostReported("h", []))
    bench.submit(b"x", kind="odd")
    bench.now += 3.0
    assert bench.checked_timer() == []
    bench.wait(0.35)
    assert len(bench.scheduler.workers) == 100
    assert [*bench.scheduler.clients.by_name] == ["c"]
    for n in range(50):
        bench.beat(f"w{n}")
    bench.wait(0.3)
    assert len(bench.scheduler.workers) == 50, "the silent are lost after the pause"
    bench.wait(2.0)
    assert not bench.scheduler.clients.by_name
    bench.counted(pauses=1, workers_lost=100, clients_lost=1, cancelled=1)


def test_a_pause_does_not_mislay_a_lease() -> None:
    bench = holding(b"x")
    bench.beat("w")
    bench.now += 3.0
    assert bench.beat("w") == []
    bench.counted(pauses=1)


def test_nobody_is_judged_while_messages_wait_unread_but_not_for_ever() -> None:
    bench = Bench()
    bench.join("w")
    bench.submit(b"x", timeout_s=0.65)
    bench.now = 0.6
    while bench.scheduler.workers:
        actions = bench.checked_timer(behind=True)
        bench.now += 0.05
        if actions:
            assert bench.now == pytest.approx(0.7), "other timers go on"
    assert 1.2 < bench.now < 1.5
    bench.join("v")
    bench.wait(0.5)
    bench.beat("v")
    bench.wait(0.55)
    bench.now += 0.1
    bench.checked_timer(behind=True)
    assert bench.scheduler.workers, "it was not behind in between"
