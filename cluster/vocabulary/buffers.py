"""Which buffers may travel: those whose bytes mean the same in another process.

An array of Python objects or of pointers gives its addresses as bytes. Sent elsewhere they are
numbers without meaning, or another process's memory.
"""

from __future__ import annotations

import re
from typing import Any

#: PEP 3118's names of fields, which may hold any letter.
_NAMES = re.compile(r":[^:]*:")
#: Objects, pointers, functions, and C's strings; ``Zd`` and its like are complex numbers.
_ADDRESSES = re.compile(r"[OPXz&]|Z(?![fdg])")


def check_travels(view: memoryview) -> None:
    """Raise TypeError if the buffer holds addresses, at any depth of its format."""
    if view.format == "B":
        kind = type(view.obj)
        found = kind not in (bytes, bytearray) and _ctypes_address(kind)
    else:
        found = _ADDRESSES.search(_NAMES.sub("", view.format)) is not None
    if found:
        raise TypeError(
            f"an array of Python objects or pointers (format {view.format!r}) can't be sent: its "
            "bytes are only addresses; convert it to numbers or bytes first"
        )


def _ctypes_address(kind: Any) -> bool:
    """Whether a type of ctypes is, or has at any depth, an object or a pointer: the format of
    unions and packed structures hides their fields.
    """
    inner = getattr(kind, "_type_", None)
    if isinstance(inner, str):
        return inner in "OPXzZ"
    fields = [field[1] for base in kind.__mro__ for field in vars(base).get("_fields_", ())]
    if not fields and inner is None:
        return hasattr(kind, "_flags_")  # a function
    is_array = hasattr(kind, "_length_")
    return not (fields or is_array) or any(map(_ctypes_address, fields or [inner]))
