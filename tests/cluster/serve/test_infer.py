"""Long lists are read apart from the JSON around them, and the request means the same."""

import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.frames.metadata import TensorMetadata
from cluster.serve import infer
from cluster.serve.catalogue import Description
from cluster.serve.http.problems import Problem
from cluster.serve.infer import read_request, without_lists

TEXTS = st.sampled_from(['"data": [1, 2, 3]', "data", 'a"data"', "]", "[", "\\", "list 0"])


@st.composite
def bodies(draw):
    """Requests of which some lists are long, some nested, and some texts look like lists."""
    inputs = []
    for number in range(draw(st.integers(1, 4))):
        rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 9))
        numbers = draw(st.lists(st.integers(0, 99), min_size=rows * width, max_size=rows * width))
        nested = [numbers[at : at + width] for at in range(0, len(numbers), width)]
        parameters = {"data": numbers, "note": draw(TEXTS)}
        one = {"parameters": parameters, "name": f"{draw(TEXTS)}{number}", "shape": [rows, width]}
        one["datatype"] = draw(st.sampled_from(["FP32", "INT64", "UINT8"]))
        one["data"] = draw(st.sampled_from([numbers, nested]))
        inputs.append(one)
    request = {"id": draw(TEXTS), "data": draw(TEXTS), "inputs": inputs}
    return json.dumps(request, indent=draw(st.sampled_from([None, 2]))).encode()


@given(bodies(), st.integers(1, 30))
def test_a_request_without_its_lists_is_the_same(body, part_bytes):
    right = read_request(body, None)
    with (
        mock.patch.object(infer, "JSON_BYTES_SMALL", 0),
        mock.patch.object(infer, "PART_BYTES", part_bytes),
    ):
        assert read_request(body, None) == right
        assert read_request(memoryview(body), b"%d" % len(body)) == right
        if part_bytes == 1 and b"[\n" not in body:
            assert without_lists(body, len(body))[1]


def long_request(data, shape=(1, 40_000), **more):
    one = {"name": "x", "datatype": "FP32", "shape": shape, "data": "DATA"}
    text = json.dumps({"inputs": [one], **more}).encode()
    return text.replace(b'"DATA"', data)


NUMBERS = b"[" + b"1," * 39_999 + b"1]"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (long_request(NUMBERS[:-1] + b",]"), 400, "has 40001 elements"),
        (long_request(NUMBERS.replace(b",1]", b",]")), 400, "trailing comma"),
        (long_request(NUMBERS, [40_001]), 400, "has 40000 elements in 'data'; its shape tells 400"),
        (long_request(NUMBERS[:-1]), 400, "no inference request"),
        (long_request(NUMBERS + b"]"), 400, "no inference request"),
        (long_request(b'"list 0"', more=[1] * 40_000), 400, "'data' can't be read"),
        (long_request(NUMBERS, more=[{}] * 40_000), 413, "over 2048 objects"),
        (long_request(NUMBERS, more=" " * (4 << 20)), 413, "over 4 MiB beside flat lists"),
        (b'{"data":[' * 300 + b" " * (5 << 20), 413, "over 4 MiB"),
        (long_request(b"[]", [1 << 20]).replace(b"FP32", b"BYTES"), 413, "over 16384 texts"),
    ],
)
def test_what_is_wrong_with_a_long_request_is_told(body, status, words):
    with pytest.raises(Problem) as problem:
        read_request(body, None)
    assert (problem.value.status, words in problem.value.message) == (status, True), (
        problem.value.message
    )


def test_what_the_model_does_not_take_is_refused_before_it_is_read():
    model = Description("mine", inputs=[TensorMetadata("x", "FP32", (-1, 4))])
    for shape, words in (([1, 4], "element 0 is 'a'"), ([4, 1], r"mine.*FP32\[\?, 4\] 'x'")):
        with pytest.raises(Problem, match=words):
            read_request(long_request(b'["a", 1, 2, 3]', shape), None, model)


def test_a_list_is_read_for_one_input_only():
    """Its name could be repeated for other inputs, each of which would cost memory."""
    again = [{"name": "y", "datatype": "FP32", "shape": [1, 40_000], "data": "list 0"}]
    body = long_request(NUMBERS).replace(
        b'"inputs": [', b'"inputs": [%s, ' % json.dumps(again[0]).encode()
    )
    with pytest.raises(Problem, match="'data'"):
        read_request(body, None)
