"""Frames of named tensors: what comes back, and what is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import (
    DATATYPES,
    ITEM_BYTES,
    Port,
    Tensor,
    decode_tensors,
    encode_tensors,
    join_bytes,
    split_bytes,
)

PAIR = Tensor(Port("x", "FP32", (1, 2)), struct.pack("<2f", 1.0, 2.0))
NAMES = Tensor(Port("names", "BYTES", (3,)), join_bytes([b"", b"a", "ü".encode()]))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=4).map(tuple))
    count = 1
    for extent in shape:
        count *= extent
    if datatype == "BYTES":
        data = join_bytes(draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count)))
    else:
        size = count * ITEM_BYTES[datatype]
        data = draw(st.binary(min_size=size, max_size=size))
    return Tensor(Port(draw(st.text(min_size=1, max_size=8)), datatype, shape), data)


@given(st.lists(tensors(), max_size=4), st.lists(st.text(min_size=1), max_size=3))
def test_what_was_packed_comes_back(some: list[Tensor], outputs: list[str]) -> None:
    found = decode_tensors(encode_tensors(some, outputs))
    assert [(port, bytes(data)) for port, data in found.tensors] == [(p, d) for p, d in some]
    assert list(found.header.outputs) == outputs


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_torn_frame_is_an_error_and_nothing_else(noise: bytes, cut: int) -> None:
    frame = encode_tensors([PAIR, NAMES])
    for torn in (noise, frame[:cut], frame[:cut] + noise, frame + b"\0"):
        if torn != frame:
            with pytest.raises(TensorError):
                decode_tensors(torn)


def test_data_start_on_a_multiple_of_sixteen() -> None:
    frame = encode_tensors([NAMES, PAIR])
    assert frame.index(PAIR.data) % 16 == 0


def test_elements_of_bytes_are_split() -> None:
    assert [bytes(one) for one in split_bytes(*NAMES)] == [b"", b"a", "ü".encode()]


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(Port("x", "FP32", (2,)), b"1234"),
        Tensor(Port("x", "BYTES", (2,)), join_bytes([b"one"])),
        Tensor(Port("x", "BYTES", (1,)), struct.pack("<I", 5) + b"1234"),
        Tensor(Port("x", "BYTES", (1,)), join_bytes([b"one", b"two"])),
        Tensor(Port("x", "INT8", (1 << 29, 0, 1 << 29)), b""),
    ],
)
def test_data_that_do_not_fit_are_refused(tensor: Tensor) -> None:
    with pytest.raises(TensorError):
        encode_tensors([tensor])
