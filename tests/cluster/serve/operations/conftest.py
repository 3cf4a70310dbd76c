"""A real cluster with an API in front of it, which the tests of a module share."""

import pytest

from cluster import LocalCluster
from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.state import State
from perfkit.optimized.specs import OPTIMIZED
from tests.cluster.serve.operations.served import DEADLINE_S, served


@pytest.fixture(scope="module")
def fleet(until):
    """A coordinator and two workers with the cards of cards.py, which only report."""
    probe = "tests.cluster.serve.operations.cards:Cards"
    with LocalCluster(2, OPTIMIZED, models=["digits"], probe=probe) as running:
        until(lambda: all(worker.load.gpus for worker in running.status().workers))
        yield running


@pytest.fixture
def impatient(monkeypatch):
    """An API that takes a silent coordinator for lost after a second."""
    monkeypatch.setattr("cluster.serve.backends.cluster.ANSWER_S", 1.0)


@pytest.fixture(scope="module")
def site(fleet):
    client = fleet.client()
    backend = ClusterBackend(client)
    with served(State(backend, client)) as running:
        yield running
    backend.close()


@pytest.fixture(scope="module")
def busy(site, until):
    """The site after 500 tasks of which 20 failed, 9 requests for digits, and 2 that are wrong."""
    client = site.state.client
    for future in client.submit_batch("echo", [b"x"] * 480):
        future.result(DEADLINE_S)
    for future in client.submit_batch("fail", [b"on purpose"] * 20):
        assert future.exception(DEADLINE_S)
    for _ in range(9):
        assert site.infer().status == 200
    assert site.infer(model="nonsuch").status == 404
    assert site.infer(columns=7).status == 400
    backend = site.state.backend

    def told():
        backend.refresh()
        runs = [size.runs for one in backend.batches() for size in one.sizes]
        return sum(runs) == 9

    until(told)  # by heartbeats
    return site
