"""Any graph answers frames of named tensors; what does not fit is refused before the runtime."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.frames.arrays import to_array, to_tensor
from cluster.models.frames.tensors import (
    DESCRIBE,
    Port,
    Tensor,
    decode_tensors,
    encode_tensors,
    join_bytes,
)
from cluster.models.inference import Model, ModelInfo, ModelRepository, PayloadError, Question
from tests.cluster.models.runtime.test_network import TYPES, node, port, same, save

OIP = {
    "BOOL": (TYPES.BOOL, [[True, False]]),
    "FP16": (TYPES.FLOAT16, [[0.5, 65504.0]]),
    "FP32": (TYPES.FLOAT, [[0.1, -1e30]]),
    "FP64": (TYPES.DOUBLE, [[0.1, -1e300]]),
    "INT8": (TYPES.INT8, [[-128, 127]]),
    "INT16": (TYPES.INT16, [[-32768, 32767]]),
    "INT32": (TYPES.INT32, [[-(1 << 31), (1 << 31) - 1]]),
    "INT64": (TYPES.INT64, [[-(1 << 63), (1 << 63) - 1]]),
    "UINT8": (TYPES.UINT8, [[0, 255]]),
    "UINT16": (TYPES.UINT16, [[0, 65535]]),
    "UINT32": (TYPES.UINT32, [[0, (1 << 32) - 1]]),
    "UINT64": (TYPES.UINT64, [[0, (1 << 64) - 1]]),
    "BYTES": (TYPES.STRING, [["", "naïve 漢\x00"]]),
}
NUMPY = {"BOOL": "bool", "BYTES": "object", "FP16": "f2", "FP32": "f4", "FP64": "f8"}


def frame(*wanted: str, **arrays: Any) -> bytes:
    """A frame of arrays, each (datatype, values)."""
    found = [to_tensor(name, kind, as_array(kind, it)) for name, (kind, it) in arrays.items()]
    return encode_tensors(found, wanted)


def as_array(kind: str, values: Any) -> Any:
    return np.array(values, NUMPY.get(kind, kind.lower()))


def answer(result: bytes | Exception) -> dict[str, Any]:
    """The outputs of a result by name, as lists."""
    if isinstance(result, Exception):
        raise result
    return {it.port.name: to_array(it).tolist() for it in decode_tensors(result).tensors}


def load(root: Path, graph: tuple[Any, Any, Any], *constants: Any, **more: Any) -> Model:
    changes = {"kind": "tensors", "labels": [], **more}
    return save(root, *graph, *constants, **changes).load("mine")


@pytest.mark.parametrize("datatype", OIP)
def test_each_type_comes_back_as_it_went(tmp_path: Path, datatype: str) -> None:
    kind, values = OIP[datatype]
    model = load(tmp_path, same("N", 2, kind=kind))
    port = model.describe().inputs[0]
    assert (port.name, port.datatype, port.shape) == ("x", datatype, (-1, 2))
    first, bad, twice = model.handle_batch(
        [
            frame(x=(datatype, values)),
            frame(x=("FP32" if datatype != "FP32" else "FP64", [[1, 2]])),
            frame(x=(datatype, values + values)),
        ]
    )
    assert answer(first) == {"y": as_array(datatype, values).tolist()}
    assert answer(twice) == {"y": as_array(datatype, values + values).tolist()}
    assert isinstance(bad, PayloadError)
    assert f"model 'mine': expected {datatype}[?, 2] 'x', got" in str(bad)


SUMS = (
    [port("a", ["N", 2]), port("b", ["N", 2])],
    [port("sum", ["N", 2]), port("difference", ["N", 2])],
    [node("Add", "a", "b", out="sum"), node("Sub", "a", "b", out="difference")],
)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tmp_path_factory.mktemp("sums"), SUMS, batch_items_max=3)


def test_questions_of_several_inputs_share_a_run_and_get_the_outputs_they_name(sums: Model) -> None:
    one = frame(a=("FP32", [[1, 2]]), b=("FP32", [[10, 20]]))
    named = frame("difference", b=("FP32", [[1, 1], [2, 2]]), a=("FP32", [[5, 5], [5, 6]]))
    both = frame("difference", "sum", "sum", a=("FP32", [[1, 1]]), b=("FP32", [[0, 0]]))
    questions = [it for payload in (one, named, both) if (it := sums.prepare(payload))]
    assert all(isinstance(it, Question) for it in questions)
    assert {it.bucket for it in questions} == {questions[0].bucket}  # type: ignore[union-attr]
    assert [it.items for it in questions] == [1, 2, 1]  # type: ignore[union-attr]
    first, second, third = sums.handle_batch([one, named, both])
    assert answer(first) == {"sum": [[11, 22]], "difference": [[-9, -18]]}
    assert answer(second) == {"difference": [[4, 4], [3, 4]]}
    assert list(answer(third)) == ["difference", "sum"]


def test_questions_that_are_alike_get_what_each_would_get_alone(sums: Model) -> None:
    alike = [frame("sum", a=("FP32", [[i, 1]]), b=("FP32", [[i, 2]])) for i in range(7)]
    longer = frame("sum", a=("FP32", [[1, 1]] * 2), b=("FP32", [[2, 2]] * 2))
    for payloads in (alike, [*alike[:2], longer, *alike[2:]], [longer, longer]):
        assert sums.handle_batch(payloads) == [sums.handle_batch([it])[0] for it in payloads]


def test_a_further_small_question_of_a_batch_takes_few_calls(sums: Model) -> None:
    """Times depend on the machine, calls of functions of Python do not."""
    payload, calls = frame("sum", a=A, b=B), []

    def count(payloads: int) -> int:
        calls.clear()
        sys.setprofile(lambda one, event, _: event == "call" and calls.append(one.f_code))
        found = sums.run([it for _ in range(payloads) if (it := sums.prepare(payload))])  # type: ignore[misc]
        sys.setprofile(None)
        assert [answer(it) for it in found] == [{"sum": [[11, 22]]}] * payloads
        return len(calls)

    count(2)  # fills caches
    assert count(3) - count(2) <= 8


def test_more_rows_than_a_run_takes_are_answered_in_order_and_none_with_none(sums: Model) -> None:
    rows = [[i, i] for i in range(8)]
    many = frame(a=("FP32", rows), b=("FP32", rows))
    none = frame("sum", a=("FP32", np.empty((0, 2))), b=("FP32", np.empty((0, 2))))
    first, second = sums.handle_batch([many, none])
    assert answer(first)["sum"] == [[2 * i, 2 * i] for i in range(8)]
    assert decode_tensors(second).tensors[0].port == Port("sum", "FP32", (0, 2))  # type: ignore[arg-type]


A, B = ("FP32", [[1, 2]]), ("FP32", [[10, 20]])
BAD: Mapping[str, tuple[bytes, str]] = {
    "missing": (frame(a=A), r"input missing: FP32\[\?, 2\] 'b'"),
    "unknown": (frame(a=A, b=B, c=A), "no input 'c'; there are 'a', 'b'"),
    "slip": (frame("sun", a=A, b=B), "no output 'sun'; did you mean 'sum'"),
    "type": (frame(a=("INT64", [[1, 2]]), b=B), r"expected FP32\[\?, 2\] 'a', got INT64\[1, 2\]"),
    "width": (frame(a=A, b=("FP32", [[1]])), r"expected FP32\[\?, 2\] 'b', got FP32\[1, 1\]"),
    "rank": (frame(a=A, b=("FP32", [1, 2])), r"'b', got FP32\[2\]"),
    "rows": (frame(a=A, b=("FP32", [[1, 2]] * 2)), "number of rows: 'a' has 1, 'b' has 2"),
    "twice": (encode_tensors([to_tensor("a", "FP32", np.zeros((1, 2)))] * 2), "'a' is given twice"),
    "torn": (frame(a=A, b=B)[:-9], "ends within tensor 1"),
    "text": (b"a text", "not a frame of tensors: it begins with"),
    "empty": (b"", "not a frame of tensors"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_frame_fails_alone_with_the_reason(sums: Model, what: str) -> None:
    payload, complaint = BAD[what]
    good = frame("sum", a=A, b=B)
    first, bad, last = sums.handle_batch([good, payload, good])
    assert answer(first) == answer(last) == {"sum": [[11, 22]]}
    with pytest.raises(PayloadError, match=f"^model 'mine': .*{complaint}"):
        answer(bad)


@given(at=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 3))
def test_a_damaged_frame_is_answered_or_refused(sums: Model, at: int, byte: int, cut: int) -> None:
    content = bytearray(frame("sum", a=A, b=B))
    content[at % len(content)] = byte
    damaged, good = bytes(content[: len(content) - cut]), frame("sum", a=A, b=B)
    first, second = sums.handle_batch([damaged, good])
    assert isinstance(first, bytes | PayloadError)
    assert answer(second) == {"sum": [[11, 22]]}


def test_a_text_that_is_not_utf_8_and_a_bool_of_2_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    texts = load(tmp_path / "a", same("N", kind=TYPES.STRING))
    truths = load(tmp_path / "b", same("N", kind=TYPES.BOOL))
    bad = encode_tensors([Tensor(Port("x", "BYTES", (2,)), join_bytes([b"a", b"\xff"]))])
    with pytest.raises(PayloadError, match=r"BYTES\[2\] 'x', element 1: .*UTF-8 alone"):
        texts.infer_batch([bad])
    two = encode_tensors([Tensor(Port("x", "BOOL", (2,)), b"\x01\x02")])
    with pytest.raises(PayloadError, match=r"BOOL\[2\] 'x': a byte is neither 0 nor 1"):
        truths.infer_batch([two])


def test_a_graph_without_a_batch_axis_answers_each_question_alone(tmp_path: Path) -> None:
    graph = [port("x", [2, "T"])], [port("y", [2])], [node("ReduceMax", "x", axes=[1], keepdims=0)]
    model = load(tmp_path, graph)
    info = model.describe()
    assert (info.batches, info.batch_items_max) == (False, 1)
    short, long = frame(x=("FP32", [[1, 2], [3, 4]])), frame(x=("FP32", [[1, 2, 9], [3, 4, 0]]))
    answers = model.handle_batch([short, long, short])
    assert [answer(it)["y"] for it in answers] == [[2, 4], [9, 4], [2, 4]]


def test_a_scalar_and_open_axes_are_served(tmp_path: Path) -> None:
    graph = (
        [port("x", ["N", "T"]), port("scale", [])],
        [port("y", ["N", "T"])],
        [node("Mul", "x", "scale")],
    )
    model = load(tmp_path, graph)
    (result,) = model.handle_batch([frame(x=("FP32", [[1, 2, 3]]), scale=("FP32", 2.0))])
    assert answer(result) == {"y": [[2, 4, 6]]}
    assert not model.describe().batches


def test_questions_of_other_shapes_do_not_share_a_run(tmp_path: Path) -> None:
    model = load(tmp_path, same("N", "T"))
    payloads = [frame(x=("FP32", [[0.0] * n])) for n in (2, 3, 2)]
    buckets = [it.bucket for it in map(model.prepare, payloads) if isinstance(it, Question)]
    assert buckets[0] == buckets[2] != buckets[1]
    assert [len(answer(it)["y"][0]) for it in model.handle_batch(payloads)] == [2, 3, 2]


def test_every_model_answers_frames_beside_its_own_payloads() -> None:
    repository = ModelRepository()
    digits, magika = repository.load("digits"), repository.load("magika")
    name = digits.describe().inputs[0].name
    (result,) = digits.handle_batch([frame(**{name: ("FP32", np.zeros((3, 64)))})])
    assert all(len(it) in (3, 10) for it in answer(result).values())
    name = magika.describe().inputs[0].name
    (scores,) = magika.handle_batch([frame(**{name: ("INT32", np.zeros((2, 2048)))})])
    assert np.shape(*answer(scores).values()) == (2, 214)
    (own,) = magika.handle_batch([b"T2\x03\x00\x00\x00 begins like a frame"])
    assert msgspec.msgpack.decode(own)["group"]  # type: ignore[arg-type]


def test_a_model_describes_itself_over_the_wire(sums: Model) -> None:
    found = sums.prepare(DESCRIBE)
    info = msgspec.json.decode(found, type=ModelInfo)  # type: ignore[arg-type]
    assert info == sums.describe()
    assert [it.name for it in info.outputs] == ["sum", "difference"]
    assert (info.kind, info.batches, info.batch_items_max) == ("tensors", True, 3)
