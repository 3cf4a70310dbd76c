"""The busiest functions of a coordinator: waiting is left out, intervals are over the runs."""

import asyncio
import queue
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from cluster import BASELINE
from perfkit.bench.experiments.roles import profile_coordinator
from perfkit.profile.cpu import CpuProfile, profile_cpu
from perfkit.report.stories.bottlenecks import bottlenecks


def profile(*rows: tuple[str, str, float]) -> CpuProfile:
    table = {
        (file, 0 if file == "~" else 1, name): (4, 4, own_s, own_s, {})
        for file, name, own_s in rows
    }
    return CpuProfile("coordinator", table)


RUNS = [
    profile(
        ("zmq/sugar/poll.py", "poll", 8.0 * speed),
        ("~", "<method 'poll' of 'select.poll' objects>", 1.0 * speed),
        ("cluster/protocol/codec.py", "_pack", 1.0 * speed),
        ("cluster/core/run.py", "poll", 2.0 * speed),
        ("~", "<built-in method len>", 1.0 * speed),
    )
    for speed in (1.0, 2.0, 3.0)
]


def test_waiting_is_no_bottleneck() -> None:
    hot = bottlenecks(RUNS, tasks=2, limit=2)
    assert next(function.place for function in hot.functions) == "cluster.core.run: poll"
    assert (len(hot.functions), hot.runs) == (2, 3)
    assert (hot.busy_us.value, hot.waiting_us.value) == (4e6, 9e6)
    shown = hot._repr_html_()
    assert "zmq/sugar" not in shown
    assert ">poll</td><td>cluster/core/run.py:1</td><td>2</td>" in shown


def test_a_hot_function_has_intervals_over_the_runs() -> None:
    (first,) = bottlenecks(RUNS, tasks=2, limit=1).functions
    assert first.own_us.value == 2e6
    assert (first.own_us.low, first.own_us.high) == (1e6, 3e6)
    assert first.share.value == 0.5
    (bar,) = bottlenecks(RUNS, tasks=2, limit=1).bars()
    assert (bar.value, bar.low, bar.high) == (2e6, 1e6, 3e6)


def test_a_function_that_one_run_never_called_took_no_time_there() -> None:
    rare = profile(("cluster/rare.py", "f", 3.0))
    found = {f.function: f for f in bottlenecks([*RUNS, rare], tasks=1).functions}
    assert found["f"].own_us.value == 0.0
    assert found["f"].calls_per_task == 1.0


def test_one_profile_gives_no_interval_and_none_is_refused() -> None:
    (first, *_) = bottlenecks(RUNS[:1], tasks=2).functions
    assert (first.own_us.low, first.own_us.high) == (None, None)
    idle = bottlenecks([profile(("cluster/core/run.py", "f", 0.0))], tasks=1)
    assert idle.functions[0].share.value is None
    assert "unknown" in idle._repr_html_()
    with pytest.raises(ValueError, match="at least one profile"):
        bottlenecks([], tasks=1)


WAIT_S = 0.05
#: Under another name, because here sleeping is what is looked at, not a way to wait.
pause = time.sleep


def poll_zmq() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as quiet:
        quiet.bind("tcp://127.0.0.1:*")
        poller = zmq.Poller()
        poller.register(quiet, zmq.POLLIN)
        poller.poll(1e3 * WAIT_S)


def poll_select(make: Callable[[], object]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller: object = make()
        poller.register(ours, select.POLLIN)  # type: ignore[attr-defined]
        poller.poll(1e3 * WAIT_S if make is select.poll else WAIT_S)  # type: ignore[attr-defined]


def receive() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_S)
        with suppress(TimeoutError):
            ours.recv(1)


def accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        with suppress(TimeoutError):
            server.accept()


def take() -> None:
    with suppress(queue.Empty):
        queue.Queue[int]().get(timeout=WAIT_S)


WAITERS: dict[str, Callable[[], object]] = {
    "zmq poll": poll_zmq,
    "select.poll": lambda: poll_select(select.poll),
    "select.epoll": lambda: poll_select(select.epoll),
    "select.select": lambda: select.select([], [], [], WAIT_S),
    "sleep": lambda: pause(WAIT_S),
    "event": lambda: threading.Event().wait(WAIT_S),
    "queue": take,
    "recv": receive,
    "accept": accept,
    "event loop": lambda: asyncio.run(asyncio.sleep(WAIT_S)),
    "child": lambda: subprocess.run(["sleep", str(WAIT_S)], check=True),
}


def work() -> int:
    return sum(number * number for number in range(20_000))


@pytest.mark.parametrize("wait", WAITERS.values(), ids=list(WAITERS))
def test_what_waits_in_a_real_profile_is_no_work(wait: Callable[[], object]) -> None:
    with profile_cpu("waits and works") as profiling:
        wait()
        work()
    assert profiling.result is not None
    hot = bottlenecks([profiling.result], tasks=1, limit=1_000)
    assert hot.waiting_us.value is not None
    assert hot.waiting_us.value > 0.9e6 * WAIT_S
    assert "work" in {function.function for function in hot.functions}


def test_a_real_coordinator_that_waits_for_its_workers_is_not_busy_then(tmp_path: Path) -> None:
    found = profile_coordinator(BASELINE, tmp_path / "coordinator.prof", workers=1, tasks=60)
    hot = bottlenecks([found], tasks=60, limit=1_000)
    names = [function.function for function in hot.functions]
    assert not [name for name in names if "poll" in name and "select" in name]
    assert "_unpack" in names
    whole_us = found.own_s * 1e6 / 60
    assert (hot.busy_us.value or 0.0) + (hot.waiting_us.value or 0.0) == pytest.approx(whole_us)
    assert (hot.waiting_us.value or 0.0) > 0
