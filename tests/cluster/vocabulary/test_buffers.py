"""Buffers of plain data travel; those of addresses do not, however deep they lie."""

import array
import ctypes

import pytest

from cluster.models.frames.tensor import TensorError, pack_tensor, unpack_tensor
from cluster.shells.mapping import as_payload
from cluster.vocabulary.buffers import check_travels
from cluster.work.handlers import sort_out

np = pytest.importorskip("numpy")


class Fields(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("thing", ctypes.py_object))


class Packed(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("x", ctypes.c_char), ("pointer", ctypes.POINTER(ctypes.c_int) * 2))


class Child(Packed):
    _fields_ = (("y", ctypes.c_int),)


class Either(ctypes.Union):
    _fields_ = (("x", ctypes.c_int64), ("inner", Fields))


class Plain(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("OPz", ctypes.c_char), ("y", ctypes.c_double * 3))


ADDRESSES = [
    np.array([1, None], dtype=object),
    np.array([[None]] * 20_000, dtype=object),
    memoryview(np.array([[], {}], dtype=object))[1:],
    np.zeros(2, [("a", "i4"), ("b", object)]),
    np.zeros(2, [("a", object, (3,))]),
    np.zeros((2, 2), [("a", [("x", "i4"), ("b", "O")])]),
    *[(kind * 2)() for kind in (ctypes.py_object, ctypes.c_char_p, ctypes.c_wchar_p)],
    *[(kind * 2)() for kind in (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))],
    *[(kind * 2)() for kind in (ctypes.CFUNCTYPE(None), Fields, Packed, Child, Either)],
    ctypes.py_object(1),
]
PLAIN = [
    np.zeros(2, [("Object", "f4"), ("P", "i4")]),
    np.zeros(2, [("z", "i1"), ("O", [("Z", "c16")])]),
    np.zeros(2, complex),
    np.zeros(2, np.uint8),
    np.array(["ab"]),
    np.array([b"ab"]),
    np.zeros(2, "V5"),
    array.array("d", [1.0]),
    (ctypes.c_ubyte * 2)(),
    (Plain * 2)(),
    bytearray(b"O"),
]


@pytest.mark.parametrize("buffer", ADDRESSES, ids=lambda it: str(memoryview(it).format))
def test_addresses_are_refused_as_payload_as_result_and_as_tensor(buffer) -> None:
    with pytest.raises(TypeError, match="are only addresses; convert it"):
        as_payload(buffer, 8 << 20)
    with pytest.raises(TensorError, match="are only addresses"):
        unpack_tensor(buffer)
    outcomes, failures = [], []
    sort_out([b"a", memoryview(buffer), b"c"], 0, outcomes, failures)
    assert outcomes == [b"a", b"", b"c"]
    assert [(it.position, it.error) for it in failures] == [(1, "TypeError")]


@pytest.mark.parametrize("buffer", PLAIN, ids=lambda it: str(memoryview(it).format))
def test_plain_data_travels_whatever_its_fields_are_called(buffer) -> None:
    check_travels(memoryview(buffer))
    assert as_payload(buffer, 8 << 20) == memoryview(buffer).tobytes()


def test_an_array_that_exports_no_buffer_is_refused_by_name() -> None:
    for thing in (np.zeros(2, "M8[D]"), np.zeros(2, np.dtypes.StringDType())):
        with pytest.raises(TypeError, match=r"a payload is bytes, not ndarray; .*cannot include"):
            as_payload(thing, 100)


def test_a_masked_array_is_no_tensor_since_its_mask_would_be_lost() -> None:
    with pytest.raises(TensorError, match="its mask would be lost"):
        pack_tensor(np.ma.masked_array([1.0, 2.0], [False, True]))
