"""The API's own slots answer as a worker's do: in batches, each task once, cancelled on time."""

import threading
from concurrent.futures import CancelledError, wait

import pytest

from cluster.serve.backends.local import LocalBackend, make_backend
from cluster.vocabulary.errors import ClientClosed, NoWorker, TaskFailed, TaskTimedOut
from cluster.work.handlers import Handlers
from tests.cluster.shells.test_worker import Slow

TIMEOUT_S = 10


@pytest.fixture(params=[1, 2])
def slow(request):
    """A model in an API with one slot or two."""
    model, handlers = Slow(), Handlers()
    handlers.register_model("shout", model)
    handlers.register("fail")(lambda payload: 1 // 0)
    backend = LocalBackend(handlers, request.param)
    backend.model = model
    yield backend
    model.go_on.set()
    backend.close()


def test_tasks_of_many_submissions_run_together_and_each_has_its_result(slow):
    words = [b"word %d" % n for n in range(400)]
    slow.model.go_on.set()
    futures = [slow.submit_batch("shout", words[n : n + 2]) for n in range(0, 400, 2)]
    assert [f.result(TIMEOUT_S) for two in futures for f in two] == [w.upper() for w in words]
    assert max(slow.model.ran) > 2


def test_callers_in_many_threads_get_their_own_results(slow):
    slow.model.go_on.set()
    wrong = []

    def ask(number):
        for n in range(50):
            word = b"%d of %d" % (n, number)
            if slow.submit_batch("shout", [word])[0].result(TIMEOUT_S) != word.upper():
                wrong.append(word)

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(TIMEOUT_S)
    assert not wrong
    assert sum(slow.model.ran) == 400
    (told,) = slow.batches()
    assert sum(size.items for size in told.sizes) == 400


def test_a_cancelled_task_is_not_run_and_the_others_of_its_submission_are(slow, until):
    slots = len(slow._threads) - 1
    running = [slow.submit_batch("shout", [b"first"])[0] for _ in range(slots)]
    assert until(lambda: len(slow.model.runners) == slots)
    whole, part = slow.submit_batch("shout", [b"a"]), slow.submit_batch("shout", [b"b", b"c"])
    whole[0].cancel()
    part[0].cancel()
    slow.model.go_on.set()
    assert part[1].result(TIMEOUT_S) == b"C"
    for future in (whole[0], part[0]):
        with pytest.raises(CancelledError):
            future.result(TIMEOUT_S)
    wait(running, TIMEOUT_S)
    assert sum(slow.model.ran) == slots + 1


def test_a_batch_known_to_be_quick_runs_in_the_callers_thread_and_its_errors_are_the_same(
    slow, until
):
    slow.model.takes_s = 0.0
    slow.model.go_on.set()
    words = [b"a", b"b", b"c"]
    until(lambda: [*slow.submit_batch("shout", words)] == [b"A", b"B", b"C"])
    assert threading.get_ident() in slow.model.runners
    slow.model.run = lambda questions: 1 // 0

    def outcome():
        (one,) = slow.submit_batch("shout", [b"a"])
        return one if isinstance(one, Exception) else None

    error = until(outcome)
    assert isinstance(error, TaskFailed)
    assert "ZeroDivisionError" in str(error)


def test_errors_are_those_of_a_cluster(slow):
    with pytest.raises(NoWorker, match="'shut'"):
        slow.submit_batch("shut", [b""])
    (failed,) = slow.submit_batch("fail", [b""])
    with pytest.raises(TaskFailed, match="ZeroDivisionError"):
        failed.result(TIMEOUT_S)
    slow.model.takes_s = 0.1
    slow.model.go_on.set()
    assert slow.submit_batch("shout", [b"a"])[0].result(TIMEOUT_S) == b"A"
    with pytest.raises(TaskTimedOut, match="not begun"):
        slow.submit_batch("shout", [b"b"], timeout_s=0.01)[0].result(TIMEOUT_S)


def test_what_waits_at_the_end_fails_and_what_runs_ends(slow, until):
    slots = len(slow._threads) - 1
    running = [slow.submit_batch("shout", [b"first"])[0] for _ in range(slots)]
    assert until(lambda: len(slow.model.runners) == slots)
    (waiting,) = slow.submit_batch("shout", [b"second"])
    closing = threading.Thread(target=slow.close)
    closing.start()
    slow.model.go_on.set()
    closing.join(TIMEOUT_S)
    assert [f.result(0) for f in running] == [b"FIRST"] * slots
    with pytest.raises((ClientClosed, CancelledError)):
        waiting.result(0)
    with pytest.raises(ClientClosed):
        slow.submit_batch("shout", [b""])
    assert wait(running, 0).not_done == set()


def test_a_model_is_one_model_whose_versions_are_kinds():
    backend = make_backend(["digits"])
    try:
        assert backend.models() == ["digits"]
        assert sorted(backend.kinds()) == ["digits", "digits/1"]
    finally:
        backend.close()
