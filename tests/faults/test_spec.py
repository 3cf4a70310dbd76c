"""The coordinator announces its spec: peers adopt it, or say in one sentence why not."""

import threading

import pytest

from cluster import Client, ClusterCoordinator, Handlers, Worker
from cluster.transport.questions import learn_spec
from cluster.vocabulary.errors import ClusterError, ProtocolError, Unreachable
from cluster.work.workloads import HANDLERS
from perfkit.optimized.specs import BASELINE, OPTIMIZED

TIMEOUT_S = 10


def other(spec):
    return OPTIMIZED if spec.name == "baseline" else BASELINE


def test_clients_and_workers_adopt_the_coordinators_spec(limited, until):
    spec = limited(tasks=10, heartbeat_s=0.3)
    with ClusterCoordinator(spec) as coordinator, Client(coordinator.endpoint) as client:
        assert client.spec == spec
        worker = Worker(coordinator.endpoint, HANDLERS)
        assert worker.spec == spec
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        worker.stop()
        thread.join(TIMEOUT_S)


def test_a_worker_without_a_spec_waits_for_its_coordinator(spec):
    with ClusterCoordinator(spec) as gone:
        endpoint = gone.endpoint
    made = []
    thread = threading.Thread(target=lambda: made.append(Worker(endpoint, HANDLERS)))
    thread.start()
    with ClusterCoordinator(spec, endpoint):
        thread.join(TIMEOUT_S)
    assert made[0].spec == spec


def test_a_client_without_a_spec_needs_a_coordinator():
    with pytest.raises(Unreachable, match=r"no coordinator answers at tcp://127\.0\.0\.1:9"):
        learn_spec("tcp://127.0.0.1:9", 0.2)


def test_a_client_of_another_spec_hears_which(spec, until):
    words = rf"runs spec '{spec.name}', and spec '{other(spec).name}' was given here: codec"
    with (
        ClusterCoordinator(spec) as coordinator,
        Client(coordinator.endpoint, spec=other(spec)) as client,
    ):
        with pytest.raises(ProtocolError, match=words):
            client.status()
        until(lambda: client._loop.exchange.refusal)
        with pytest.raises(ProtocolError, match=words):
            client.submit("echo", b"x")


def test_a_submission_to_a_coordinator_of_another_spec_fails(spec):
    with (
        ClusterCoordinator(spec) as coordinator,
        Client(coordinator.endpoint, spec=other(spec)) as client,
        pytest.raises(ProtocolError, match="was given here"),
    ):
        client.submit("echo", b"x").result(TIMEOUT_S)


def test_other_limits_are_named(spec, limited):
    with (
        ClusterCoordinator(spec) as coordinator,
        Client(coordinator.endpoint, spec=limited(tasks=7)) as client,
        pytest.raises(ProtocolError, match=r"limits\.tasks is 1000000 there, 7 here"),
    ):
        client.status()


def test_a_worker_of_another_spec_ends_with_the_reason(spec):
    with ClusterCoordinator(spec) as coordinator:
        worker = Worker(coordinator.endpoint, HANDLERS, spec=other(spec))
        with pytest.raises(ProtocolError, match="was given here"):
            worker.run()


def test_a_codec_of_strangers_is_not_imported(spec, monkeypatch):
    with ClusterCoordinator(spec) as coordinator:
        monkeypatch.setattr("cluster.transport.questions.OWN_PACKAGES", ("elsewhere.",))
        with pytest.raises(ClusterError, match="is not loaded unasked"):
            Client(coordinator.endpoint)


def test_a_status_waits_behind_no_data(serve, limited):
    release = threading.Event()
    handlers = Handlers()
    handlers.register("hold")(lambda payload: (release.wait(TIMEOUT_S) and b"") or b"")
    # The worker is a thread here, and may be silent while the others compute.
    served = serve(handlers, limited(liveness_s=60.0))
    try:
        for _ in range(8):
            served.client.submit("hold", bytes(16 << 20))
        assert served.client.status().workers
        served.client.submit_batch("hold", [b""] * 50_000)
        assert served.client.status().workers
    finally:
        release.set()
