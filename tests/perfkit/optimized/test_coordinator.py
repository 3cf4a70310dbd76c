"""The optimised coordinator serves workers and clients of its spec, and reports figures."""

import threading

import pytest

from cluster import Client, Handlers, Worker
from perfkit import OPTIMIZED, OptimizedCoordinator

TIMEOUT_S = 20


@pytest.fixture
def coordinator():
    """An optimised coordinator in this process with one worker that echoes."""
    handlers = Handlers()
    handlers.register("echo")(lambda payload: payload)
    with OptimizedCoordinator() as running:
        worker = Worker(running.endpoint, handlers, name="w", spec=OPTIMIZED)
        welcome = threading.Event()
        worker.on_welcome = welcome.set
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert welcome.wait(TIMEOUT_S)
        yield running
        worker.stop()
        thread.join(TIMEOUT_S)


def test_figures_are_unknown_before_anything_has_happened():
    stats = OptimizedCoordinator().get_performance_stats()
    assert (stats.accepted_tasks, stats.done_tasks, stats.workers) == (0, 0, 0)
    assert stats.tasks_per_s is stats.tasks_per_lease is stats.messages_per_task is None
    assert stats.service_s_by_kind == {}


def test_figures_follow_what_was_done(coordinator):
    tasks = [coordinator.submit_task(b"%d" % n) for n in range(50)]
    assert [coordinator.get_result(task, TIMEOUT_S) for task in tasks] == [
        b"%d" % n for n in range(50)
    ]
    stats = coordinator.get_performance_stats()
    assert (stats.accepted_tasks, stats.done_tasks, stats.queued_tasks) == (50, 50, 0)
    assert stats.assigned_tasks == stats.recalls == 0
    assert stats.workers == 1
    assert stats.tasks_per_s == pytest.approx(50 / stats.uptime_s)
    assert 1 <= stats.tasks_per_lease <= 50
    assert 0 < stats.messages_per_task < 50
    assert stats.service_s_by_kind["echo"] > 0


def test_a_client_of_the_same_spec_maps_over_it(coordinator):
    payloads = [b"%d" % n for n in range(1_000)]
    with Client(coordinator.endpoint, spec=OPTIMIZED) as client:
        assert list(client.map("echo", payloads)) == payloads
    assert coordinator.get_performance_stats().tasks_per_lease > 1, "tasks travel in leases"
