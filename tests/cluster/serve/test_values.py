"""Numbers between JSON and bytes: what numpy would make of them, and each mistake is named."""

import json
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cluster.models.frames.tensors import Port, join_bytes
from cluster.serve import values
from cluster.serve.http.problems import Problem
from cluster.serve.values import read_values, write_values

NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from(sorted(NUMPY)))
    finite = {"allow_nan": False, "allow_infinity": False} if datatype[0] == "F" else {}
    dtype = np.dtype(NUMPY[datatype])
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    elements = st.booleans() if datatype == "BOOL" else None
    if datatype[0] == "F":
        elements = st.floats(width=8 * dtype.itemsize, **finite)
    array = draw(arrays(dtype, shape, elements=elements))
    return Port("x", datatype, shape), array


def raw(values):
    return msgspec.Raw(json.dumps(values).encode())


@given(tensors(), st.booleans())
def test_json_flat_or_nested_gives_the_bytes_that_numpy_has(tensor, is_nested):
    port, array = tensor
    numbers = array.tolist() if is_nested else array.reshape(-1).tolist()
    assert read_values(port, raw(numbers)) == array.tobytes()


@given(tensors())
def test_bytes_give_the_numbers_that_numpy_has(tensor):
    port, array = tensor
    written = msgspec.json.encode(write_values(port, memoryview(array.tobytes())))
    assert msgspec.json.decode(written) == array.reshape(-1).tolist()


@given(st.lists(st.text(), max_size=5))
def test_texts_come_back(texts):
    port = Port("x", "BYTES", (len(texts),))
    data = read_values(port, raw(texts))
    assert data == join_bytes([text.encode() for text in texts])
    assert write_values(port, memoryview(data)) == texts


@given(tensors(), st.integers(1, 40))
def test_a_long_list_in_parts_is_the_same_as_at_once(tensor, part_bytes):
    port, array = tensor
    flat, part_bytes = raw(array.reshape(-1).tolist()), 8 * part_bytes
    with mock.patch.object(values, "PART_BYTES", part_bytes):
        assert read_values(port, flat) == array.tobytes()
        written = msgspec.json.encode(write_values(port, memoryview(array.tobytes())))
        assert json.loads(written) == array.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("numbers", "count", "words"),
    [
        ([1.0] * 90_000 + ["a"] + [1.0] * 9, 90_010, "element 90000 is 'a', not a number"),
        ([1.0] * 90_000 + [1e39], 90_001, "element 90000 is 1e+39, out of the range"),
        ([1.0] * 90_000, 89_999, "90000 elements in 'data'; its shape tells 89999"),
        ([1.0] * 90_000, 90_001, "90000 elements in 'data'; its shape tells 90001"),
    ],
)
def test_a_mistake_in_a_long_list_is_named_with_its_place(numbers, count, words):
    with pytest.raises(Problem) as problem:
        read_values(Port("x", "FP32", (count,)), raw(numbers))
    assert words in problem.value.message


@pytest.mark.parametrize(
    ("datatype", "shape", "asked", "words"),
    [
        ("FP32", (2,), [1.0, "a"], "element 1 is 'a', not a number"),
        ("FP32", (2,), [1.0, None], "element 1 is None, not a number"),
        ("FP32", (2,), [1.0, 1e39], "element 1 is 1e+39, out of the range of FP32"),
        ("FP16", (2,), [7e4, 1.0], "element 0 is 70000.0, out of the range of FP16"),
        ("INT8", (2,), [1, 128], "element 1 is 128, out of the range of INT8"),
        ("UINT8", (1,), [-1], "element 0 is -1, out of the range of UINT8"),
        ("INT64", (1,), [1 << 70], "element 0 is"),
        ("INT32", (1,), [1.5], "element 0 is 1.5, not a whole number"),
        ("BOOL", (1,), ["true"], "element 0 is 'true', not true or false"),
        ("BYTES", (1,), [1], "element 0 is 1, not a text"),
        ("FP32", (3,), [1.0], "has 1 elements in 'data'; its shape tells 3"),
        ("FP32", (), [1.0, 2.0], "has 2 elements in 'data'; its shape tells 1"),
        ("FP32", (2, 2), [[1.0], [2.0, 3.0]], "axis 1 of 'data' takes lists of 2, not a list of 1"),
        ("FP32", (2, 2), [[1.0, 2.0], 3.0], "axis 1 of 'data' takes lists of 2, not 3.0"),
        ("FP32", (1,), [[[[1.0]]]], "element 0 is [[[1.0]]], not a number"),
        ("FP32", (1,), {"a": 1}, "'data' can't be read"),
    ],
)
def test_a_mistake_is_named_with_its_place(datatype, shape, asked, words):
    with pytest.raises(Problem) as problem:
        read_values(Port("x", datatype, shape), raw(asked))
    assert problem.value.status == 400
    assert words in problem.value.message


def test_more_elements_than_the_shape_tells_are_not_all_read():
    with pytest.raises(Problem, match="8388609 elements"):
        read_values(Port("x", "FP32", (1,)), msgspec.Raw(b"[" + b"0," * (1 << 23) + b"0]"))


def test_many_nested_lists_are_refused_before_they_are_read():
    lists = b"[" + b"[0]," * (1 << 20) + b"[0],[0]]"
    with pytest.raises(Problem, match="send it flat or as binary data"):
        read_values(Port("x", "FP32", ((1 << 20) + 2, 1)), msgspec.Raw(lists))


def test_json_that_is_nested_too_deep_is_refused():
    with pytest.raises(Problem, match="'data' can't be read"):
        read_values(Port("x", "FP32", (1,)), msgspec.Raw(b"[" * 2_000 + b"]" * 2_000))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_output_that_json_has_no_word_for_asks_for_binary(number):
    data = np.array([1.0, number], np.float32).tobytes()
    with pytest.raises(Problem, match=r"NaN or infinity.* ask for binary .*\.binary_data_output"):
        write_values(Port("y", "FP32", (2,)), memoryview(data))


def test_an_output_of_bytes_that_are_no_text_asks_for_binary():
    with pytest.raises(Problem, match=r"not UTF-8.* ask for binary .*\.binary_data_output"):
        write_values(Port("y", "BYTES", (1,)), memoryview(join_bytes([b"\xff"])))
