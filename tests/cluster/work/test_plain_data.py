"""Plain data as bytes: what arrives is what was sent, or the error says which part could not be."""

from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import reduce

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.work.plain_data import pack_call, pack_result, read_call, read_result

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
)
PLAIN = st.recursive(
    LEAVES, lambda x: st.lists(x) | st.dictionaries(st.text() | st.integers(0, 99), x)
)
LOOP = []
LOOP.append(LOOP)
DEEP = reduce(lambda inner, _: [inner], range(5_000), 0)


class Shy:
    def __repr__(self):
        raise RuntimeError


@settings(max_examples=25)
@given(st.lists(PLAIN, max_size=3))
def test_any_plain_data_arrive_as_they_were_sent(items):
    assert read_call(pack_call(items, "f")) == items
    assert read_result(pack_result(items)) == items


def test_a_subclass_or_a_tuple_arrives_as_its_plain_type_and_a_time_as_utc():
    at = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    sent = [
        (1, (2,)),
        OrderedDict(a=1),
        np.float64(0.5),
        np.int8(3),
        np.bool_(True),
        bytearray(b"x"),
    ]
    found = read_result(pack_result([*sent, at, pd.Timestamp(at)]))
    assert found == [[1, [2]], {"a": 1}, 0.5, 3, True, b"x", at, at]
    assert type(found[-1]) is datetime


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float64", ">i4"])
def test_an_array_arrives_as_an_array_that_may_be_written_to(dtype):
    sent = np.arange(6).reshape(2, 3).astype(dtype)[:, ::2]
    (found,) = read_call(memoryview(pack_call([{"deep": [sent]}], "f")))
    array = found["deep"][0]
    assert (array.dtype, array.shape) == (sent.dtype.newbyteorder("="), sent.shape)
    assert (array == sent).all()
    array[0] = 0


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            {"a": [1, {2}]},
            r"argument 2\['a'\]\[1\] is not plain data but set \{2\}: make it a list",
        ),
        ([0, 1, 2, iter([])], "not plain data but list_iterator: make it one of"),
        ((x for x in range(3)), "data but generator: make it a list"),
        (2**64, "argument 2 is not plain data but int 18446744073709551616: it has more than 64"),
        (datetime(2026, 1, 1), "a time has a zone"),  # noqa: DTZ001  that is the mistake
        (pd.Timestamp("2026-01-01T00:00:00.000000001Z"), "and whole microseconds"),
        (Decimal(1), "Decimal .*: make it one of None, bool, int, float, str"),
        (np.array([object()]), "numpy's object is no bool, int or float"),
        (np.array([1j]), "complex128"),
        (pd.Series([1.0, 2.0]), "data but Series 0 1.0 1 2.0 dtype: float64: make it"),
        (np.datetime64("2026-01-01T00:00:00.000000001"), r"numpy's datetime64\[ns\] is no bool"),
        (np.longdouble(1), "numpy's float128 is no"),
        (Shy(), "data but Shy: make it one of"),
        (len, "data but builtin_function_or_method <built-in function len>: make"),
        ({frozenset(): 1}, "argument 2 is not plain data but dict"),
        (LOOP, "recursion"),
        (DEEP, r"list \[\[.*recursion"),
        ("\ud800", "surrogates"),
    ],
)
def test_what_is_not_plain_data_is_named_with_its_place_and_the_way_out(item, words):
    with pytest.raises(TypeError, match=f"square: .*{words}"):
        pack_call([1, item], "square")
    assert read_call(pack_call([1], "square")) == [1]  # the packer is as good as before


@pytest.mark.parametrize("payload", [b"", b"3", b"\xc1", b"\x90", b"\x93\x01", pack_result([1])])
def test_bytes_that_are_no_call_are_not_taken_for_one(payload):
    with pytest.raises(TypeError, match="no call of it; use"):
        read_call(payload)
