"""An array comes back from the wire equal and uncopied; other bytes are refused."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.models.frames.tensor import (
    DIMENSIONS_MAX,
    TENSOR_BYTES_MAX,
    TensorError,
    pack_tensor,
    unpack_tensor,
)

DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()

shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@st.composite
def arrays(draw):
    """Arrays of every type the wire knows, of any bytes, every kind of NaN among them."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(shapes)
    size_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size_bytes, max_size=size_bytes))
    return np.frombuffer(raw, dtype).reshape(shape)


def frame(header, numbers=b"", magic=b"T1", padding=b"\0"):
    encoded = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    before = magic + len(encoded).to_bytes(2, "little") + encoded
    return before + padding * (-len(before) % 16) + numbers


@given(arrays())
@example(np.array(1.5))
@example(np.zeros((3, 0, 2), np.float16))
def test_an_array_comes_back_as_it_went(array):
    back = unpack_tensor(pack_tensor(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(arrays())
def test_equal_arrays_give_equal_bytes_in_any_memory_layout(array):
    expected = pack_tensor(array)
    assert pack_tensor(np.asfortranarray(array).reshape(array.shape)) == expected
    big_endian = array.byteswap().view(array.dtype.newbyteorder(">"))
    assert pack_tensor(big_endian) == expected
    assert pack_tensor(unpack_tensor(expected)) == expected


def test_slices_and_lists_are_sent_as_their_elements():
    whole = np.arange(24, dtype=np.int32).reshape(4, 6)
    assert unpack_tensor(pack_tensor(whole[::2, 1::2])).tolist() == [[1, 3, 5], [13, 15, 17]]
    assert unpack_tensor(pack_tensor([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_unpacked_array_is_an_aligned_read_only_view(kind):
    buffer = kind(pack_tensor(np.arange(1000.0)))
    array = unpack_tensor(buffer)
    assert np.shares_memory(array, np.frombuffer(buffer, np.uint8))
    start = np.frombuffer(buffer, np.uint8).ctypes.data
    assert (array.ctypes.data - start) % array.itemsize == 0
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.array([object()]), "object"),
        (np.array(["text"]), "str"),
        (np.array([1j]), "complex128"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.zeros((1,) * (DIMENSIONS_MAX + 1)), f"length <= {DIMENSIONS_MAX}"),
        (np.broadcast_to(np.float64(0), (TENSOR_BYTES_MAX // 8 + 1,)), "over the bound"),
        ([[1, 2], [3]], "inhomogeneous"),
    ],
)
def test_an_array_that_cannot_be_sent_is_refused(array, complaint):
    with pytest.raises(TensorError, match=complaint):
        pack_tensor(array)


@pytest.mark.parametrize(
    ("buffer", "complaint"),
    [
        (b"", "not a tensor"),
        (b"T1", "not a tensor"),
        ([1, 2], "not a tensor"),
        (memoryview(b"abcd" * 9)[::2], "not a tensor"),
        (frame(["uint8", [1]], b"x", magic=b"T2"), "begins with"),
        (frame(b""), "bad header"),
        (frame(b"\x92\xa1\xff\x90"), "bad header"),
        (frame(["object", [1]], b"x"), "bad header.*object"),
        (frame(["float128", [1]], bytes(16)), "bad header.*float128"),
        (frame(["uint8", [-1]]), "bad header.*>= 0"),
        (frame(["uint8", [2**31]]), "bad header"),
        (frame(["uint8", [2**63]]), "bad header"),
        (frame(["uint8", [1.0]], b"x"), "bad header"),
        (frame(["uint8", [1] * 9], b"x"), "bad header"),
        (frame(["uint8", [1], "more"], b"x"), "bad header"),
        (frame({"dtype": "uint8", "shape": [1]}, b"x"), "bad header"),
        (frame(msgspec.msgpack.encode(["uint8", [1]]) + b"\0", b"x"), "bad header"),
        (frame(["uint8", [0, 2**30, 2**30]]), "over the bound"),
        (frame(["float64", [2**29]]), "over the bound"),
        (frame(["uint8", [1]], b"x", padding=b"\1"), "other than zeros"),
        (frame(["float32", [2]], bytes(7)), "has 8 bytes of numbers, this one 7"),
        (frame(["float32", [2]], bytes(9)), "has 8 bytes of numbers, this one 9"),
        (frame(["float32", [2]], padding=b""), "has 8 bytes of numbers, this one 0"),
    ],
)
def test_a_frame_that_is_not_exactly_a_tensor_is_refused(buffer, complaint):
    with pytest.raises(TensorError, match=complaint):
        unpack_tensor(buffer)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"T1\x09\0" + rest))
def test_any_bytes_are_a_tensor_or_a_tensor_error(data):
    try:
        array = unpack_tensor(data)
    except TensorError:
        return
    assert data.endswith(array.tobytes())


@given(arrays(), st.data())
def test_a_frame_that_lost_a_byte_is_noticed(array, data):
    whole = pack_tensor(array)
    place = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TensorError):
        unpack_tensor(whole[:place] + whole[place + 1 :])


def test_numpy_is_imported_by_the_first_array_and_its_absence_told_in_a_sentence():
    program = """
import sys
import cluster.models.frames.tensor
assert "numpy" not in sys.modules
sys.modules["numpy"] = None
try:
    cluster.models.frames.tensor.unpack_tensor(b"")
except cluster.models.frames.tensor.TensorError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "tensors need the extra [infer]: pip install 'perfkit[infer]'\n", (
        done.stderr
    )
