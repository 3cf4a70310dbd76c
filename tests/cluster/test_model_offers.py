"""Operators load and unload models in workers that work; what can't be loaded is told."""

import pytest
from msgspec.structs import replace

from cluster import ClusterError, LocalCluster, NoWorker
from cluster.model_offers import short_place
from cluster.models.frames.tensor import pack_tensor
from cluster.models.providers.vulkan import AMD, VulkanDevice
from cluster.models.providers.webgpu import WEBGPU
from cluster.models.samples import held_out_digits
from cluster.serve.admission import Admission
from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.catalogue import Catalogue
from cluster.serve.dispatch import Dispatcher
from cluster.serve.http.problems import Problem
from perfkit import OPTIMIZED
from tests.cluster.models.kinds.test_named_tensors import frame
from tests.cluster.models.repository.test_folders import write_scale

LIMITS = replace(OPTIMIZED.limits, unserved_s=0.5)
SPEC = replace(OPTIMIZED, limits=LIMITS)


@pytest.fixture(scope="module")
def cluster():
    """Two workers without models."""
    with LocalCluster(2, SPEC) as local:
        yield local


@pytest.fixture
def client(cluster):
    with cluster.client() as one:
        yield one


def served(client):
    return [set(worker.models) for worker in client.status().workers]


def test_a_model_is_loaded_used_and_unloaded_while_other_work_goes_on(client, until):
    rows, labels = held_out_digits()
    echoes = client.map("echo", [b"x"] * 20_000)
    assert client.serve_models(load=["digits"]).workers
    assert until(lambda: served(client) == [{"digits"}] * 2)
    until(lambda: [it.load.runs_on for it in client.status().workers] == [("CPU",)] * 2)
    kinds = {"digits", "digits/1", "echo"}
    assert all(kinds <= set(worker.kinds) for worker in client.status().workers)
    results = list(client.map("digits", [pack_tensor(row) for row in rows[:50]]))
    assert len(results) == 50
    client.serve_models(unload=["digits"])
    assert until(lambda: served(client) == [set()] * 2)
    with pytest.raises(NoWorker, match="digits"):
        client.submit("digits").result(20)
    assert list(echoes) == [b"x"] * 20_000
    assert len(labels) == len(rows)


def test_the_card_of_a_model_is_named_in_short():
    card = VulkanDevice("AMD Radeon RX 580", AMD, 0x67DF, "discrete GPU", "0000:03:00.0", "", True)
    assert short_place(WEBGPU, str(card)) == "WebGPU · AMD Radeon RX 580"
    assert short_place("MIGraphXExecutionProvider", "") == "MIGraphX"


def test_what_cannot_be_loaded_is_trouble_in_the_status_and_the_rest_is_served(client, until):
    client.serve_models(load=["digits", "digitz"])
    assert until(lambda: served(client) == [{"digits"}] * 2)
    trouble = until(lambda: client.status().workers[0].trouble)
    assert "digitz" in trouble
    assert "did you mean 'digits'" in trouble
    client.serve_models(unload=["digitz"])
    assert until(lambda: not any(worker.trouble for worker in client.status().workers))


def test_a_worker_that_is_started_again_serves_what_is_wanted(cluster, client, until):
    client.serve_models(load=["digits"])
    assert until(lambda: served(client) == [{"digits"}] * 2)
    before = {worker.pid for worker in client.status().workers}
    cluster.workers[0].kill()
    assert until(lambda: len({worker.pid for worker in client.status().workers} - before) == 1)
    assert until(lambda: served(client) == [{"digits"}] * 2)


def test_a_worker_started_again_serves_the_models_that_still_load(tmp_path, until):
    """It says why it lacks the other, which is wanted all the time: it comes with its file."""
    broken = write_scale(tmp_path / "broken.onnx", 2)
    whole = write_scale(tmp_path / "whole.onnx", 3)
    with LocalCluster(1, SPEC, models=[str(broken), str(whole)]) as local, local.client() as client:
        kept = broken.read_bytes()
        broken.write_bytes(b"torn")
        pid = local.workers[0].pid
        local.workers[0].kill()
        until(lambda: [it for it in client.status().workers if it.pid != pid])
        assert client.submit("whole", frame(x=("FP32", [[1, 2]]))).result(20)
        (worker,) = client.status().workers
        assert (worker.wanted, worker.models) == (["broken", "whole"], ["whole"])
        assert "model 'broken': " in worker.trouble
        with pytest.raises(NoWorker, match=r"no worker offers kind 'broken'; .*; model 'broken': "):
            client.submit("broken").result(20)
        backend = ClusterBackend(client)
        with pytest.raises(Problem, match="'broken' can't be loaded at present") as refused:
            Catalogue(backend, Dispatcher(backend, Admission())).kind("broken")
        assert refused.value.status == 503
        with pytest.raises(ClusterError, match="'worker-0' is back, but in trouble: model 'broken"):
            client.restart("worker-0")
        broken.write_bytes(kept)
        until(lambda: served(client) == [{"broken", "whole"}])
        assert until(lambda: not client.status().workers[0].trouble)
        assert client.restart("worker-0").workers[0].models == ["broken", "whole"]


def test_a_model_that_can_not_be_loaded_at_the_first_start_ends_it(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"torn")
    with pytest.raises(ClusterError, match="model 'broken'"):
        LocalCluster(1, SPEC, models=["digits", str(tmp_path / "broken.onnx")]).start()
