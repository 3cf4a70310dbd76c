"""Strategies for every message of the protocol, drawn from the types themselves.

Each codec is tested with these, so a field that is added to a message is tested with all of them.
"""

from functools import reduce
from operator import or_
from typing import get_args

from hypothesis import strategies as st
from msgspec import inspect

from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on

EVENTS = [cls for cls in get_args(on.Event) if cls is not on.WorkerUnreachable]
ACTIONS = list(get_args(do.Action))
MAX_INT = 2**64 - 1


def values(kind):
    """A strategy for what a type of msgspec.inspect admits, its bounds included."""
    match kind:
        case inspect.StrType():
            most = min(kind.max_length or 20, 20)
            return st.text(min_size=kind.min_length or 0, max_size=most)
        case inspect.IntType():
            low = -(2**63) if kind.ge is None else kind.ge
            return st.integers(low, MAX_INT if kind.le is None else kind.le)
        case inspect.FloatType():
            return st.floats(kind.ge, kind.le, allow_nan=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.BytesType():
            return st.binary(max_size=50)
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.UnionType():
            return reduce(or_, map(values, kind.types))
        case inspect.ListType():
            most = min(kind.max_length or 4, 4)
            return st.lists(values(kind.item_type), min_size=kind.min_length or 0, max_size=most)
        case inspect.VarTupleType():
            most = min(kind.max_length or 4, 4)
            return st.lists(values(kind.item_type), max_size=most).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(values, kind.item_types))
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=4)
        case inspect.NamedTupleType():
            return st.tuples(*(values(field.type) for field in kind.fields))
        case inspect.StructType():
            return st.builds(kind.cls, **{f.name: values(f.type) for f in kind.fields})
    raise AssertionError(f"no strategy for {kind}")


def messages(classes):
    return st.sampled_from(classes).flatmap(lambda cls: values(inspect.type_info(cls)))


#: any value that MessagePack can encode
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), MAX_INT) | st.floats() | st.binary()
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip
