"""An engine behind the API: columns form while workers are busy, and each task ends for itself."""

import threading
from collections import Counter
from concurrent.futures import CancelledError

import pytest

from cluster.serve.http.process import READY_S
from cluster.vocabulary.errors import ClusterError, TaskFailed, TaskTimedOut
from cluster.vocabulary.task import Priority
from perfkit.engines.backend import AHEAD, COLUMN_TASKS_MAX, EngineBackend, make_backend
from perfkit.engines.base import READY_TIMEOUT_S, ColumnEngine


class Held(ColumnEngine):
    """An engine whose columns end when the test says so; they echo."""

    name = "held"

    def _start(self):
        self.sent = []

    def _stop(self):
        return

    def _send(self, kind, payloads):
        raise AssertionError("columns are sent by submit_column")

    def submit_column(self, kind, payloads, settle):
        self._check(kind)
        self.sent.append((kind, payloads, settle))

    def end(self, number=0):
        _, payloads, settle = self.sent.pop(number)
        settle((payloads, []))
        return payloads


@pytest.fixture
def held():
    with Held(workers=1) as engine:
        yield engine


def numbers(*some):
    return [b"%d" % number for number in some]


def test_what_waits_goes_out_in_columns_when_a_worker_has_room(held):
    backend = EngineBackend(held)
    futures = [future for n in range(10) for future in backend.submit_batch("echo", numbers(n))]
    assert [payloads for _, payloads, _ in held.sent] == [numbers(n) for n in range(AHEAD)]
    held.end()
    assert held.sent[-1][1] == numbers(*range(AHEAD, 10))
    while held.sent:
        held.end()
    assert [future.result(0) for future in futures] == numbers(*range(10))


def test_columns_are_bounded_and_urgent_tasks_go_first(held):
    backend = EngineBackend(held)
    for _ in range(AHEAD):
        backend.submit_batch("echo", [b"first"])
    backend.submit_batch("echo", [b"normal"] * (2 * COLUMN_TASKS_MAX))
    backend.submit_batch("echo", [b"urgent"], priority=Priority.URGENT)
    held.end()
    assert held.sent[-1][1] == [b"urgent"]
    held.end()
    assert held.sent[-1][1] == [b"normal"] * COLUMN_TASKS_MAX


def test_cancelled_and_late_tasks_are_not_sent(held):
    backend = EngineBackend(held)
    for _ in range(AHEAD):
        backend.submit_batch("echo", [b"first"])
    (late,) = backend.submit_batch("echo", [b"late"], timeout_s=0.0)
    gone, kept = backend.submit_batch("echo", [b"gone", b"kept"])
    gone.cancel()
    held.end()
    assert held.sent[-1][1] == [b"kept"]
    held.end()
    held.end()
    assert kept.result(0) == b"kept"
    with pytest.raises(TaskTimedOut):
        late.result(0)
    with pytest.raises(CancelledError):
        gone.result(0)


def test_an_engine_that_takes_no_more_fails_its_tasks_and_keeps_count(held):
    backend = EngineBackend(held)
    held._open = False
    for _ in range(3 * AHEAD):
        (future,) = backend.submit_batch("echo", [b"x"])
        with pytest.raises(ClusterError, match="is not running"):
            future.result(0)
    held._open = True
    (future,) = backend.submit_batch("echo", [b"x"])
    assert held.end() == [b"x"]
    assert future.result(0) == b"x"


def test_real_workers_answer_each_task_and_fail_each_alone():
    backend = make_backend("local", workers=2, models=["digits"])
    try:
        assert (backend.models(), backend.ready(), "echo" in backend.kinds()) == (
            ("digits",), True, True,
        )  # fmt: skip
        threads, found = [], Counter()

        def ask(number):
            for position, future in enumerate(backend.submit_batch("echo", numbers(*range(20)))):
                found[future.result(60) == b"%d" % position] += 1
            (bad,) = backend.submit_batch("digits", [b"no tensor"])
            with pytest.raises(TaskFailed, match="PayloadError"):
                bad.result(60)

        for number in range(5):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        assert found == {True: 100}
    finally:
        backend.close()


def test_perfkit_serve_waits_until_an_engine_without_workers_has_said_what_is_wrong() -> None:
    assert READY_S > READY_TIMEOUT_S + 20.0  # and what the API's own start takes
