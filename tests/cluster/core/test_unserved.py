"""Nobody waits for ever untold: tasks that no worker takes, and tasks that don't end."""

import pytest

from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure, Gpu, GpuLoad, Load, Requirements, State
from tests.cluster.core.scheduling import Bench, T, delivered, ended, holding


def told(actions: list[do.Action]) -> list[str]:
    """The messages of the failures in some actions."""
    found = [f for a in actions if isinstance(a, do.Deliver) for f in a.failures]
    assert {(f.error, f.state) for f in found} <= {("NoWorker", State.FAILED)}
    return [f.message for f in found]


def test_a_task_that_no_worker_offers_fails_with_what_is_missing() -> None:
    bench = Bench(unserved_s=30.0, client_liveness_s=100.0)
    bench.join("w", kinds=["echo", "sleep"])
    bench.submit(b"x", kind="ech")
    for _ in range(58):
        assert bench.beat("w") + bench.wait(0.5) == []
    (why,) = told([a for _ in range(10) for a in bench.beat("w") + bench.wait(0.5)])
    assert why == (
        "not served within 30 s: no worker offers kind 'ech'; "
        "offered: echo, sleep; did you mean 'echo'?"
    )
    assert bench.wait(300.0) == []
    assert bench.scheduler.deadline() is None
    bench.counted(failed=1, workers_lost=1, clients_lost=1)


@pytest.mark.parametrize(
    ("offers", "kind", "requirements", "why"),
    [
        (None, "echo", {}, "no worker is there, so none offers kind 'echo'"),
        ({}, "echo", {"model": "m"}, "no worker offers kind 'echo' with model 'm'; offered: none"),
        (
            {"models": ["minilm", "digits"]},
            "echo",
            {"model": "digit"},
            "no worker offers kind 'echo' with model 'digit'; "
            "offered: digits, minilm; did you mean 'digits'?",
        ),
        (
            {"gpus": [Gpu("vega", 8)], "models": ["m"]},
            "echo",
            {"gpu_family": "polaris", "model": "m"},
            "no worker offers kind 'echo' and model 'm' with "
            "a card of family 'polaris' and 0 bytes; offered: vega with 8 bytes",
        ),
        (
            {"gpus": [Gpu(None, 8), Gpu("vega", None)]},
            "echo",
            {"gpu_family": "polaris"},
            "no worker offers kind 'echo' with a card of family 'polaris' and 0 bytes; "
            "offered: unknown family with 8 bytes, vega with unknown memory",
        ),
        (
            {"kinds": [f"k{n:02}" for n in range(12)]},
            "echo",
            {},
            "no worker offers kind 'echo'; "
            "offered: k00, k01, k02, k03, k04, k05, k06, k07, k08, k09 and 2 more",
        ),
    ],
)
def test_the_error_names_what_is_missing_and_what_is_offered(
    offers: dict[str, list[object]] | None, kind: str, requirements: dict[str, str], why: str
) -> None:
    bench = Bench(unserved_s=0.5)
    if offers is not None:
        bench.join("w", **offers)  # type: ignore[arg-type]
        bench.report("w", "running")
        bench.wait(0.3)
    bench.submit(b"x", kind=kind, requirements=Requirements(**requirements))  # type: ignore[arg-type]
    bench.report("w", "running")
    assert told(bench.wait(0.65)) == [f"not served within 0.5 s: {why}"]


def test_a_task_waits_for_a_worker_that_is_busy_or_that_it_wants_to_wait_for() -> None:
    bench = Bench(unserved_s=0.3)
    bench.join("w")
    bench.submit(*T[:2])
    bench.submit(b"x", submission=1, kind="odd", wait_for_worker=True)
    for _ in range(20):
        assert bench.beat("w", 1) + bench.wait(0.2) == []
    assert bench.join("v", kinds=["odd"]) == [bench.assign("v", 2, 0, b"x", kind="odd")]


def test_the_grace_begins_when_the_last_worker_leaves_and_ends_when_one_comes() -> None:
    bench = Bench(unserved_s=1.0)
    bench.join("w")
    bench.submit(*T[:2], wait_for_worker=False)
    for _ in range(10):
        bench.beat("w", 1)
        bench.wait(0.2)
    bench.finish("w", 1, 0, b"0")
    bench.tell(on.WorkerLeft("w", 1))
    assert bench.wait(0.9) == []
    bench.join("v")
    bench.wait(0.15)
    bench.tell(on.WorkerLeft("v", 2))
    assert bench.wait(0.9) == []
    assert len(told(bench.wait(0.3))) == 1


def test_a_draining_worker_or_one_in_trouble_offers_nothing() -> None:
    bench = Bench(unserved_s=0.2)
    bench.join("w")
    bench.join("v")
    bench.tell(on.WorkerDraining("w", 1))
    bench.beat("v", load=Load(gpu_trouble="lost"))
    bench.submit(b"x")
    assert len(told(bench.wait(0.3))) == 1


def test_a_task_for_a_card_in_trouble_fails_with_the_trouble() -> None:
    bench = Bench(unserved_s=0.2)
    bench.join("w", gpus=[Gpu("vega", 8), Gpu("polaris", 4)])
    bench.beat("w", load=Load(gpus=(GpuLoad(trouble="0000:0a:00.0 is overheated"),)))
    bench.submit(b"x", requirements=Requirements(gpu_family="vega"))
    bench.report("w", "running")
    assert told(bench.wait(0.3)) == [
        "not served within 0.2 s: no worker offers kind 'echo' with a card of family 'vega' and "
        "0 bytes; offered: polaris with 4 bytes; 0000:0a:00.0 is overheated"
    ]


def test_a_task_that_killed_the_last_worker_is_buried_with_its_story() -> None:
    bench = holding(b"x", unserved_s=1.0)
    bench.die("w")
    ((failure,),) = [a.failures for a in bench.wait(1.2) if isinstance(a, do.Deliver)]
    assert failure.state is State.DEAD_LETTERED
    assert "w: its process ended" in failure.message
    assert failure.message.endswith("no worker is there, so none offers kind 'echo'")


def test_a_story_that_is_too_long_for_a_message_loses_its_middle() -> None:
    bench = Bench(client_liveness_s=60.0, deaths=1)
    bench.submit(b"x")
    name = "w" * 128
    for _ in range(100):
        bench.join(name)
        assert bench.tell(on.WorkerLeft(name, bench.epochs[name], "r" * 200)) == []
        bench.wait(0.2)
    bench.join(name)
    ((failure,),) = [a.failures for a in bench.die(name) if isinstance(a, do.Deliver)]
    assert 15_000 < len(failure.message) <= 16_384
    assert "\n…\n" in failure.message


def test_many_unserved_tasks_end_in_short_steps() -> None:
    bench = Bench(unserved_s=1.0, submissions_per_client=300)
    for n in range(300):
        bench.submit(b"%d" % n, submission=n, kind="odd", wait_for_worker=n % 2 == 0)
    scheduler, steps = bench.scheduler, []
    while (due := scheduler.deadline()) is not None and due < 1.3:
        bench.now = due
        steps.append(len(told(scheduler.handle_timer(due))))
    assert sum(steps) == 150
    assert max(steps) <= 128
    bench.scheduler.validate()


# Tasks that don't end


LATE = Failure(0, "TimedOut", "no result within 1.000 s")


def overrun(bench: Bench) -> list[do.Action]:
    """The worker ``w`` runs on for 1.5 s; its supervisor vouches for it."""
    actions = []
    for _ in range(15):
        actions += bench.report("w", "running", 7) + bench.wait(0.1)
    return actions


def test_a_worker_that_goes_on_with_a_task_after_its_time_is_killed_without_a_death() -> None:
    bench = Bench()
    bench.join("w", credit=2, pid=7)
    bench.submit(b"x", timeout_s=1.0)
    bench.submit(b"y", submission=1)
    kill = do.Kill("h", "w", 7, "task 0 of run 1 did not end in time")
    assert overrun(bench) == [do.Cancel("w", 1, 1, [0]), ended(LATE), kill]
    assert overrun(bench)[:1] == [kill], "the first may have got lost"
    bench.submit(b"z", submission=2)
    bench.join("b", credit=2)
    assert bench.report("w", "gone", 7) == [bench.assign("b", 4, 0, b"y")]
    assert bench.scheduler.ledger.leases[4].deaths == 0
    bench.counted(failed=1, kills=4, workers_left=1, returned=2)


def test_a_task_may_run_on_for_as_long_as_it_is_allowed_to() -> None:
    bench = Bench(overrun_s=2.0)
    bench.join("w", credit=2, pid=7)
    bench.submit(b"x", timeout_s=1.0)
    assert overrun(bench) == [do.Cancel("w", 1, 1, [0]), ended(LATE)]
    kill = do.Kill("h", "w", 7, "task 0 of run 1 did not end in time")
    assert overrun(bench)[:1] == [kill]


def test_a_worker_that_has_left_before_it_would_be_killed_is_not_killed() -> None:
    bench = Bench()
    bench.join("w", credit=2, pid=7)
    bench.submit(b"x", timeout_s=1.0)
    for _ in range(11):
        bench.report("w", "running", 7)
        bench.wait(0.1)
    assert bench.tell(on.WorkerLeft("w", 1)) == bench.wait(0.3) == []
    bench.counted(failed=1, workers_left=1, returned=1)


def test_a_worker_that_waits_behind_another_task_is_not_killed() -> None:
    bench = Bench()
    bench.join("w", credit=2, pid=7)
    bench.submit(b"x")
    bench.submit(b"y", submission=1, timeout_s=1.0)
    late = ended(LATE, submission=1)
    assert overrun(bench) == [do.Cancel("w", 1, 2, [0]), late]
    assert overrun(bench) == []
    assert bench.finish("w", 1, 0, b"X") == [delivered(b"X")]
    assert [type(action) for action in overrun(bench)] == [do.Kill] * 3


def test_a_worker_without_a_supervisor_or_that_drops_the_task_is_not_killed() -> None:
    bench = Bench()
    bench.join("w")
    bench.submit(b"x", timeout_s=1.0)
    for _ in range(20):
        kept = bench.beat("w", 1) + bench.wait(0.1)
        assert not any(isinstance(action, do.Kill) for action in kept)
    bench.finish("w", 1, 0, b"")
    bench.report("w", "running")
    assert bench.wait(0.5) == []


def test_a_doomed_worker_that_falls_silent_or_restarts_has_not_died() -> None:
    for end in ("silent", "restarted"):
        bench = Bench()
        bench.join("w", credit=2, pid=7)
        bench.submit(b"x", timeout_s=1.0)
        bench.submit(b"y", submission=1)
        overrun(bench)
        bench.wait(1.0 if end == "silent" else 0.0)
        bench.join("w", incarnation=2, credit=2, pid=7)
        (worker,) = bench.scheduler.workers.values()
        assert [lease.deaths for lease in worker.leases.values()] == [0], end


def test_a_cancelled_task_that_runs_on_after_its_time_ends_its_worker_too() -> None:
    bench = Bench()
    bench.join("w", pid=7)
    bench.submit(b"x", timeout_s=1.0)
    bench.cancel()
    assert overrun(bench) == [do.Kill("h", "w", 7, "task 0 of run 1 did not end in time")]
