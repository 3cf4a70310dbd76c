"""The Open Inference Protocol, driven by NVIDIA's own client, sync and aio."""

import asyncio
import gzip
import json
import zlib
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

import cluster.models
from cluster import Client, LocalCluster
from perfkit.optimized.specs import OPTIMIZED
from tests.cluster.models.repository.test_folders import write_scale

ROWS = np.random.default_rng(7).uniform(0, 16, (5, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def expected():
    """What ONNX Runtime itself makes of ROWS."""
    path = next((Path(cluster.models.__file__).parent / "digits").glob("*.onnx"))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"pixels": ROWS})[0]


@pytest.fixture(scope="module")
def client(api):
    with triton.InferenceServerClient(api.address) as one:
        yield one


def pixels(rows=ROWS, *, binary=True, datatype="FP32"):
    tensor = triton.InferInput("pixels", rows.shape, datatype)
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


def probabilities(**how):
    return triton.InferRequestedOutput("probabilities", **how)


@pytest.fixture
def post(api):
    """POST a body to a path; the status, the headers in lower case, the answer."""

    def send(path, body, **headers):
        connection = HTTPConnection(api.host, api.port, timeout=20)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(
                "POST", path, data, {k.replace("_", "-"): v for k, v in headers.items()}
            )
            answer = connection.getresponse()
            found = answer.read()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, found
        finally:
            connection.close()

    return send


def ask(rows=((0.0,) * 64,), **more):
    data = [list(row) for row in rows]
    shape = [len(data), len(data[0])]
    one = {"name": "pixels", "shape": shape, "datatype": "FP32", "data": data}
    return {"inputs": [one], **more}


# What the server tells of itself


def test_the_server_is_live_and_ready_and_advertises_what_works(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    told = client.get_server_metadata()
    assert told["name"] == "perfkit"
    assert told["extensions"] == [
        "binary_tensor_data", "classification", "model_configuration", "model_repository",
        "schedule_policy", "statistics",
    ]  # fmt: skip


def test_a_model_is_described_with_its_version_or_without(client):
    described = client.get_model_metadata("digits")
    assert described == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    }
    assert client.get_model_metadata("digits", "1") == described
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    config = client.get_model_config("digits")
    assert config["max_batch_size"] > 1
    assert config["version_policy"] == {"specific": {"versions": [1]}}
    assert config["input"] == [{"name": "pixels", "data_type": "TYPE_FP32", "dims": [64]}]
    assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in (
        client.get_model_repository_index()
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_model_metadata("digit"),
        lambda c: c.get_model_metadata("digits", "7"),
        lambda c: c.get_model_config("digit"),
        lambda c: c.get_inference_statistics("digit"),
        lambda c: c.infer("digit", [pixels()]),
        lambda c: c.infer("digits", [pixels()], model_version="7"),
    ],
)
def test_what_is_not_served_is_404_and_names_what_is(client, call):
    with pytest.raises(InferenceServerException) as raised:
        call(client)
    assert raised.value.status() == "404"
    assert "did you mean 'digits'" in str(raised.value) or "there are 1" in str(raised.value)
    assert not client.is_model_ready("digit")


def test_statistics_count_requests_items_failures_and_batches(client, until):
    def counted():
        (found,) = client.get_inference_statistics("digits", "1")["model_stats"]
        return found

    def told():
        found = counted()
        return found if found["execution_count"] > before["execution_count"] else None

    before = counted()
    client.infer("digits", [pixels()])
    with pytest.raises(InferenceServerException):
        client.infer("digits", [pixels(ROWS[:, :60])])
    after = counted()
    assert after["inference_count"] - before["inference_count"] == len(ROWS)
    for how in ("success", "fail"):
        old, new = (one["inference_stats"][how] for one in (before, after))
        assert new["count"] - old["count"] == 1
        assert new["ns"] > old["ns"]
    found = until(told)  # by the worker's heartbeat
    sizes = {one["batch_size"]: one["compute_infer"] for one in found["batch_stats"]}
    assert sum(one["count"] for one in sizes.values()) == found["execution_count"]
    assert all(one["ns"] > 0 for one in sizes.values())
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "digits"


# Inference


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("outputs", [None, True, False])
@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_numbers_are_those_of_the_runtime_in_every_form(
    client, expected, binary_in, outputs, encoding
):
    wanted = None if outputs is None else [probabilities(binary_data=outputs)]
    result = client.infer(
        "digits",
        [pixels(binary=binary_in)],
        outputs=wanted,
        request_id="order-66",
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-4, atol=1e-6)
    told = result.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("digits", "1", "order-66")
    assert result.get_output("probabilities")["shape"] == [5, 10]


def test_many_requests_at_once_each_get_their_own_answer(api, expected):
    with triton.InferenceServerClient(api.address, concurrency=8) as many:
        pending = [many.async_infer("digits", [pixels(ROWS[n % 5 : n % 5 + 1])]) for n in range(40)]
        for number, one in enumerate(pending):
            found = one.get_result().as_numpy("probabilities")
            np.testing.assert_allclose(found[0], expected[number % 5], rtol=1e-4, atol=1e-6)


def test_the_aio_client_drives_it_too(api, expected):
    async def drive():
        async with triton_aio.InferenceServerClient(api.address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits")
            assert (await client.get_server_metadata())["name"] == "perfkit"
            assert (await client.get_model_metadata("digits"))["versions"] == ["1"]
            assert (await client.get_model_config("digits"))["name"] == "digits"
            assert await client.get_model_repository_index()
            assert (await client.get_inference_statistics())["model_stats"]
            results = await asyncio.gather(
                *(
                    client.infer(
                        "digits", [pixels(binary=bool(n % 2))], priority=n % 5, timeout=9**7
                    )
                    for n in range(30)
                )
            )
            return [result.as_numpy("probabilities") for result in results]

    for found in asyncio.run(drive()):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_classes_are_the_highest_of_each_row_with_their_labels(client, expected):
    result = client.infer("digits", [pixels()], outputs=[probabilities(class_count=3)])
    found = result.as_numpy("probabilities")
    assert found.shape == (5, 3)
    for row, texts in zip(expected, found, strict=True):
        classes = [text.decode().split(":") for text in texts]
        assert [int(index) for _, index, _ in classes] == np.argsort(-row)[:3].tolist()
        assert [label for *_, label in classes] == [index for _, index, _ in classes]
        np.testing.assert_allclose(
            [float(value) for value, *_ in classes], -np.sort(-row)[:3], atol=1e-5
        )


def test_binary_data_output_is_for_the_outputs_that_do_not_say_otherwise(post):
    asked = ask(parameters={"binary_data_output": True})
    status, headers, body = post("/v2/models/digits/infer", asked)
    length = int(headers["inference-header-content-length"])
    (shown,) = json.loads(body[:length])["outputs"]
    assert (status, len(body) - length) == (200, shown["parameters"]["binary_data_size"])
    wanted = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    status, headers, body = post("/v2/models/digits/infer", {**asked, "outputs": wanted})
    assert "inference-header-content-length" not in headers
    assert len(json.loads(body)["outputs"][0]["data"]) == 10


def test_a_deflate_stream_without_its_header_is_read_too(post):
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(json.dumps(ask()).encode()) + deflater.flush()
    assert post("/v2/models/digits/infer", body, Content_Encoding="deflate")[0] == 200


def test_large_answers_are_compressed_if_the_client_accepts_it(post):
    status, headers, body = post(
        "/v2/models/digits/infer", ask([[1.0] * 64] * 300), Accept_Encoding="br, gzip;q=0.5"
    )
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(body))["outputs"][0]["shape"] == [300, 10]
    assert (
        "content-encoding"
        not in post("/v2/models/digits/infer", ask([[1.0] * 64] * 300), Accept_Encoding="gzip;q=0")[
            1
        ]
    )


def test_a_timeout_in_microseconds_that_has_passed_is_504_or_refused(post):
    status, _, body = post("/v2/models/digits/infer", ask(parameters={"timeout": 1}))
    assert status in (503, 504)
    assert json.loads(body)["error"]


ONE = ask()["inputs"][0]


@pytest.mark.parametrize(
    ("request_json", "words"),
    [
        ({}, "missing required field `inputs`"),
        ({"inputs": []}, "has no inputs"),
        ({"inputs": [{**ONE, "datatype": "FP33"}]}, "datatype 'FP33'; there are BOOL"),
        ({"inputs": [{**ONE, "datatype": "BF16"}]}, "datatype 'BF16'"),
        ({"inputs": [{**ONE, "shape": [1, -64]}]}, "inputs[0].shape of 'pixels'"),
        ({"inputs": [{**ONE, "shape": [1] * 9}]}, "inputs[0].shape of 'pixels'"),
        ({"inputs": [{**ONE, "shape": [1 << 30, 1 << 30]}]}, "got FP32[1073741824, 1073741824]"),
        ({"inputs": [{**ONE, "shape": [2, 64]}]}, "takes lists of 2, not a list of 1"),
        ({"inputs": [ONE, ONE]}, "two inputs 'pixels'"),
        ({"inputs": [{**ONE, "name": "pixel"}]}, "no input 'pixel'"),
        ({"inputs": [{**ONE, "datatype": "INT64", "data": [0] * 64}]}, "INT64"),
        ({"inputs": [{k: v for k, v in ONE.items() if k != "data"}]}, "neither 'data' nor"),
        ({"inputs": [{**ONE, "parameters": {"binary_data_size": 256}}]}, "both 'data' and"),
        ({"inputs": [ONE], "outputs": [{"name": "logits"}]}, "no output 'logits'"),
        ({"inputs": [ONE], "outputs": [{"name": "probabilities"}] * 2}, "wanted twice"),
        ({"inputs": [ONE], "parameters": {"sequence_id": 5}}, "sequence_id"),
        ({"inputs": [ONE], "parameters": {"priority": -1}}, "$.parameters.priority"),
        ({"inputs": [ONE], "parameters": {"timeout": 2**63 - 1}}, "$.parameters.timeout"),
        ({"inputs": [ONE], "parameters": {"timeout": 10**400}}, "$.parameters.timeout"),
        ({"inputs": [ONE], "id": 5}, "$.id"),
        (
            {"inputs": [{**ONE, "parameters": {"shared_memory_region": "a"}}]},
            "shared memory regions are not supported",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_where(post, request_json, words):
    status, headers, body = post("/v2/models/digits/infer", request_json)
    assert (status, headers["content-type"]) in (
        (400, "application/json"), (413, "application/json"),
    )  # fmt: skip
    assert words in json.loads(body)["error"]


def binary(size, tensor=None, **parameters):
    one = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", **(tensor or {})}
    one["parameters"] = {"binary_data_size": size, **parameters}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (binary(256) + bytes(255), None, "binary_data_size is 256, the body has 255 left"),
        (binary(256) + bytes(257), None, "has 257 bytes after its JSON"),
        (binary(255) + bytes(255), None, "takes 256 bytes, not 255"),
        (binary(256) + bytes(256), 99_999, "Inference-Header-Content-Length is '99999'"),
        (binary(256) + bytes(256), "ten", "Inference-Header-Content-Length is 'ten'"),
        (binary(256) + bytes(256), -1, "Inference-Header-Content-Length is '-1'"),
        (binary(256) + bytes(256), 10, "truncated; is the header Inference-Header-Content-L"),
        (binary(256) + bytes(256), 200, "Inference-Header-Content-Length right?"),
        (
            binary(8, {"shape": [1], "datatype": "BYTES"}) + (5).to_bytes(4, "little") + b"abcd",
            None,
            "got BYTES[1]",
        ),
    ],
)
def test_binary_data_that_do_not_fit_are_refused(post, body, length, words):
    if length is None:
        length = body.index(b"}]}") + 3
    status, _, answer = post(
        "/v2/models/digits/infer", body, Inference_Header_Content_Length=str(length)
    )
    assert status == 400
    assert words in json.loads(answer)["error"]


def test_tensors_that_no_message_of_the_cluster_carries_are_413_and_named(client):
    rows = np.zeros((140_000, 64), np.float32)
    with pytest.raises(InferenceServerException, match=r"limits\.message_bytes") as told:
        client.infer("digits", [pixels(rows)])
    assert told.value.status() == "413"
    assert client.infer("digits", [pixels()]).as_numpy("probabilities").shape == (5, 10)


def test_a_model_is_loaded_asked_and_unloaded(client):
    client.load_model("magika")
    assert client.is_model_ready("magika")
    assert {"name": "magika", "version": "1", "state": "READY", "reason": ""} in (
        client.get_model_repository_index()
    )
    tensor = triton.InferInput("bytes", [1, 2048], "INT32")
    tensor.set_data_from_numpy(np.full((1, 2048), 256, np.int32))
    assert client.infer("magika", [tensor]).as_numpy("target_label").shape == (1, 214)
    client.unload_model("magika")
    assert not client.is_model_ready("magika")
    with pytest.raises(InferenceServerException, match="there is no model 'magika'"):
        client.infer("magika", [tensor])
    assert client.is_model_ready("digits")


def test_a_model_that_cannot_be_loaded_is_refused_with_the_workers_reason_each_time(client):
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="there is no model 'nonsense'") as told:
            client.load_model("nonsense")
        assert told.value.status() == "400"
    client.unload_model("nonsense")


def test_a_served_model_is_loaded_anew_and_a_broken_file_leaves_it(
    start_api, tmp_path, monkeypatch
):
    def answered():
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.float32([[1, 2]]))
        result = client.infer("scale", [tensor])
        return result.as_numpy("y").tolist(), result.get_response()["model_version"]

    monkeypatch.setenv("PERFKIT_REPOSITORY", str(tmp_path))
    first, second, third = (tmp_path / "scale" / str(n) / "model.onnx" for n in (1, 2, 3))
    write_scale(first, 2)
    with (
        LocalCluster(1, OPTIMIZED, models=["scale"]) as local,
        start_api("--endpoint", local.endpoint) as api,
        triton.InferenceServerClient(api.address) as client,
    ):
        assert answered() == ([[2, 4]], "1")
        write_scale(first, 3)
        client.load_model("scale")
        assert answered() == ([[3, 6]], "1")
        write_scale(second, 5)
        client.load_model("scale")
        assert answered() == ([[5, 10]], "2")
        third.parent.mkdir()
        third.write_bytes(b"torn")
        with pytest.raises(InferenceServerException, match="no ONNX file, or a torn one"):
            client.load_model("scale")
        assert answered() == ([[5, 10]], "2")


def test_the_trouble_with_one_model_is_not_taken_for_that_of_those_it_names(client, served, until):
    with Client(served.endpoint) as operator:
        operator.serve_models(["nonsense"])
        until(lambda: "digits" in operator.status().workers[0].trouble)
        client.load_model("digits")
        assert client.is_model_ready("digits")
        operator.serve_models(unload=["nonsense"])
        until(lambda: not operator.status().workers[0].trouble)


@pytest.mark.parametrize("name", ["%00", "%27", "%2Edigits", "digits.onnx", "a" * 101])
def test_what_can_be_no_models_name_is_refused_before_a_worker_tries_it(post, name):
    status, _, body = post(f"/v2/repository/models/{name}/load", {})
    assert status == 400
    assert "can't be the name of a model" in json.loads(body)["error"]


def test_only_known_parameters_are_taken_for_loading(post):
    status, _, body = post("/v2/repository/models/digits/load", {"parameters": {"config": "{}"}})
    assert status == 400
    assert "perfkit model add" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/digits/infer", 405),
        ("DELETE", "/v2/models/digits", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/models/digits/inferr", 404),
        ("GET", "/v3", 404),
    ],
)
def test_other_methods_and_paths_are_told_so(api, method, path, status):
    connection = HTTPConnection(api.host, api.port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert path in json.loads(answer.read())["error"]
    assert status == 404 or answer.getheader("allow")
    connection.close()
