"""A `gpu_metrics` table read member by member, in the table's own units.

A header says size, format and content revision. A table is read only when all three belong
together, because the same bytes mean something else in another revision. The driver fills a table
with ones before it writes what it knows (`smu_cmn_init_soft_gpu_metrics` in the kernel's
drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c), so a member of all ones is not available.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ctypes import LittleEndianStructure, sizeof
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from perfkit.gpu.metrics.layouts import (
    ATTRIBUTE_REVISION,
    ATTRIBUTE_TYPES,
    ATTRIBUTES,
    HEADER_BYTES,
    LAYOUTS,
    UNUSED,
    Revision,
    structure,
)

#: None, alone or in a list, is not available. A list of lists has one for each partition.
Member: TypeAlias = int | tuple["Member", ...] | None


class MetricsError(ValueError):
    """A table that can't be read; the message says what is wrong with it."""


class MetricsTable(NamedTuple):
    """A table's revision and members by name."""

    revision: Revision
    members: Mapping[str, Member]

    @property
    def source(self) -> str:
        """How `GpuSample.source` names the table."""
        return "gpu_metrics:v{}.{}".format(*self.revision)

    def numbers(self, member: str) -> tuple[int, ...]:
        """The available numbers of a member, one by one."""
        value = self.members.get(member)
        return (value,) if isinstance(value, int) else tuple(_flat(value))

    def partitions(self) -> tuple[tuple[int, ...], ...]:
        """How busy each partition's compute dies are, in percent; empty where a table is silent.

        Revision 1.9 tells the dies without their partitions, so that each die stands for itself.
        """
        told = self.members.get("xcp_stats")
        if isinstance(told, tuple):
            # Revisions 1.6 to 1.8 have room for eight and say how many there are.
            count = next(iter(self.numbers("num_partition")), 0)
            each = (tuple(_flat(partition)) for partition in told[:count])
        else:
            each = ((die,) for die in self.numbers("gfx_busy_inst"))
        return tuple(partition for partition in each if partition)


def _flat(member: Member) -> Iterator[int]:
    if isinstance(member, int):
        yield member
    elif member is not None:
        for each in member:
            yield from _flat(each)


@lru_cache(maxsize=16)
def parse_table(data: bytes) -> MetricsTable:
    """Read a table; what follows it in `data` is padding. A sample asks for the same one often.

    Raises MetricsError for one that is too short, of an unknown revision, of another size than its
    revision has, or all zero, and for attributes that do not fit.
    """
    if len(data) < HEADER_BYTES:
        raise MetricsError(f"{len(data)} bytes, less than a header")
    size, revision = int.from_bytes(data[:2], "little"), (data[2], data[3])
    sizes = [known for other, known in LAYOUTS if other == revision]
    if not sizes and revision != ATTRIBUTE_REVISION:
        raise MetricsError("revision {}.{} is not known".format(*revision))
    if sizes and size not in sizes:
        known = " or ".join(map(str, sizes))
        raise MetricsError("{} bytes where v{}.{} has {}".format(size, *revision, known))
    if len(data) < size:
        raise MetricsError(f"cut off after {len(data)} of {size} bytes")
    if not any(data[HEADER_BYTES:size]):
        raise MetricsError("all zero")
    if not sizes:
        return MetricsTable(revision, dict(_attributes(data[:size])))
    raw = structure(revision, size).from_buffer_copy(data[:size])
    return MetricsTable(revision, dict(_fields(raw, skip=3)))  # behind the header


def _fields(raw: LittleEndianStructure, skip: int = 0) -> Iterator[tuple[str, Member]]:
    for name, kind, *_ in raw._fields_[skip:]:
        if not name.startswith(UNUSED):
            yield name, _available(getattr(raw, name), kind)


def _available(value: Any, kind: Any) -> Member:
    if isinstance(value, int):
        return None if value == (1 << 8 * sizeof(kind)) - 1 else value
    if isinstance(value, LittleEndianStructure):
        return tuple(member for _, member in _fields(value))
    return tuple(_available(each, kind._type_) for each in value)


def _attributes(data: bytes) -> Iterator[tuple[str, Member]]:
    """The members of a table that describes itself; those in another unit are left out.

    Bits 0 to 9 of an encoding are the number of values, then come id (10), type (4) and unit (8).
    """
    try:
        (count,) = struct.unpack_from("<i", data, HEADER_BYTES)
        at = HEADER_BYTES + 4
        for _ in range(count):
            (encoding,) = struct.unpack_from("<Q", data, at)
            number, kind = encoding & 0x3FF, encoding >> 20 & 0xF
            if kind >= len(ATTRIBUTE_TYPES):
                raise MetricsError(f"type {kind} of an attribute is not known")
            letter = ATTRIBUTE_TYPES[kind]
            values = struct.unpack_from(f"<{number}{letter}", data, at + 8)
            width = struct.calcsize("<" + letter)
            at += 8 + number * width
            attribute = ATTRIBUTES.get(encoding >> 10 & 0x3FF)
            if attribute is not None and attribute.unit == encoding >> 24 & 0xFF:
                ones = (1 << 8 * width) - 1 if letter.isupper() else -1
                yield attribute.member, tuple(None if each == ones else each for each in values)
    except struct.error:
        raise MetricsError(f"attributes do not fit into {len(data)} bytes") from None
