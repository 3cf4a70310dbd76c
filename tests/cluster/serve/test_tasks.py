"""What becomes of tasks whose client leaves, whose worker fails, or that take too long."""

import json
import os
import re
import signal
import time
from http.client import HTTPConnection

import pytest

from cluster import LocalCluster
from cluster.spec import encode_spec
from cluster.supervision.children import Process
from perfkit.optimized.specs import OPTIMIZED

HANDLERS = """
    import json, os, threading
    from cluster import Handlers
    from cluster.models.frames.tensors import DESCRIBE, decode_tensors

    HANDLERS = Handlers()
    GATE = os.environ["GATE"]

    def model(name):
        return json.dumps({
            "name": name, "version": "1", "versions": ["1"],
            "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1]}],
            "outputs": [{"name": "x", "datatype": "INT32", "shape": [-1]}],
        }).encode()

    @HANDLERS.register("waits")
    def waits(payload):
        if payload == DESCRIBE:
            return model("waits")
        with open(GATE + ".seen", "ab") as seen:
            seen.write(bytes(decode_tensors(payload).tensors[0].data[:1]))
        while not os.path.exists(GATE):
            threading.Event().wait(0.005)
        return payload

    @HANDLERS.register("fails")
    def fails(payload):
        if payload == DESCRIBE:
            return model("fails")
        raise ValueError("a fault of its own")

    @HANDLERS.register("babbles")
    def babbles(payload):
        return model("babbles") if payload == DESCRIBE else b"T2 nonsense"

    @HANDLERS.register("mute")
    def mute(payload):
        return b"{"
"""
BACKEND = """
    from cluster.serve.backends.cluster import ClusterBackend
    from cluster.shells.client import Client

    class Backend(ClusterBackend):
        def models(self):
            return {"waits", "fails", "babbles", "mute"} & self.kinds()

    def make(endpoint):
        return Backend(Client(endpoint))
"""


@pytest.fixture
def gated(module, tmp_path, monkeypatch, start_api):
    """A worker whose model "waits" answers only once a file is there, behind an API."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("GATE", str(gate))
    handlers, backend = module(HANDLERS), module(BACKEND, "backend_of_this_test")
    with LocalCluster(1, OPTIMIZED, handlers=f"{handlers}:HANDLERS") as local:
        options = json.dumps({"endpoint": local.endpoint})
        with start_api("--engine", f"{backend}:make", "--engine-options", options) as api:
            api.gate, api.local = gate, local
            yield api


def begin(api, model, number=1, **parameters):
    """Send a request, and leave it open."""
    connection = HTTPConnection(api.host, api.port, timeout=20)
    one = {"name": "x", "shape": [1], "datatype": "INT32", "data": [number]}
    body = json.dumps({"inputs": [one], "parameters": parameters})
    connection.request("POST", f"/v2/models/{model}/infer", body)
    return connection


def end(connection):
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def open_tasks(local):
    status = local.status()
    return sum(status.queued.values()) + status.assigned


def test_the_tasks_of_a_client_that_leaves_are_cancelled(gated, until):
    first = begin(gated, "waits", 1)
    seen = gated.gate.with_suffix(".seen")
    until(lambda: seen.exists() and seen.read_bytes() == b"\1")
    leaving = [begin(gated, "waits", 2) for _ in range(20)]
    until(lambda: open_tasks(gated.local) == 21)
    for one in leaving:
        one.close()
    until(lambda: gated.local.status().workers[0].held == 1)
    assert gated.local.status().counters["cancelled"] == 20
    gated.gate.touch()
    assert end(first)[1]["outputs"][0]["data"] == [1]
    assert end(begin(gated, "waits", 3))[1]["outputs"][0]["data"] == [3]


def test_a_task_that_is_not_done_in_time_is_504_and_cancelled(gated, until):
    status, body = end(begin(gated, "waits", timeout=100_000))
    assert status == 504
    assert re.search(r"no result within 0\.(1|09)", body["error"]), "the rest is rounded down"
    gated.gate.touch()
    until(lambda: open_tasks(gated.local) == 0)
    assert end(begin(gated, "waits"))[0] == 200


def test_a_workers_error_is_500_in_its_own_words(gated):
    status, body = end(begin(gated, "fails"))
    assert status == 500
    assert body["error"] == "ValueError: a fault of its own"


@pytest.mark.parametrize(
    ("model", "words"), [("babbles", "answered with a frame"), ("mute", "does not describe itself")]
)
def test_a_model_that_answers_nonsense_is_500(gated, model, words):
    status, body = end(begin(gated, model))
    assert status == 500
    assert words in body["error"]


def test_an_engine_that_cannot_load_models_says_so_and_does_not_advertise_it(gated):
    connection = HTTPConnection(gated.host, gated.port, timeout=20)
    connection.request("POST", "/v2/repository/models/waits/load", "{}")
    status, body = end(connection)
    assert (status, "another engine" in body["error"]) == (400, True)
    connection.request("GET", "/v2")
    assert "model_repository" not in end(connection)[1]["extensions"]


def test_without_a_coordinator_it_is_not_ready_and_requests_end_in_time(gated, until):
    gated.local.coordinator.kill()

    def ready():
        connection = HTTPConnection(gated.host, gated.port, timeout=20)
        connection.request("GET", "/v2/health/ready")
        return end(connection)[0]

    until(lambda: ready() == 503)
    status, body = end(begin(gated, "fails", timeout=200_000))
    assert status in (503, 504)
    assert body["error"]


def test_what_a_coordinator_took_along_is_asked_again_of_the_next(gated, tmp_path, until):
    """The worker holds the task of a coordinator that dies; the client gets its answer."""
    first = begin(gated, "waits", 5)
    seen = gated.gate.with_suffix(".seen")
    until(lambda: seen.exists() and seen.read_bytes() == b"\5")
    gated.local.coordinator.kill()
    options = ["coordinator", "--bind", gated.local.endpoint, "--spec", encode_spec(OPTIMIZED)]
    another = Process("another", "cluster.process", options, tmp_path, guarded=True)
    try:
        assert another.announcement(time.monotonic() + 20)["endpoint"] == gated.local.endpoint
        gated.gate.touch()
        status, body = end(first)
        assert (status, body["outputs"][0]["data"]) == (200, [5])
    finally:
        another.stop(time.monotonic() + 5)


def test_while_the_only_worker_is_started_again_its_model_is_asked_and_answers(start_api, until):
    with (
        LocalCluster(1, OPTIMIZED, models=["digits"]) as local,
        start_api("--endpoint", local.endpoint) as api,
    ):
        first = local.workers[0].pid
        os.kill(first, signal.SIGKILL)
        one = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
        until(lambda: not local.status().workers)
        statuses = set()
        while True:
            connection = HTTPConnection(api.host, api.port, timeout=60)
            connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [one]}))
            statuses.add(end(connection)[0])
            if local.workers[0].pid != first:
                break
        assert statuses == {200}
