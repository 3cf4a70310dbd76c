"""What a process holds at one moment: objects, memory, descriptors, threads, and its containers.

A leak shows in one of these, whatever it is made of. Objects that the collector tracks are counted
after it has run, so the figure follows from the program alone; what it does not track (bytes,
numbers) shows in Python's blocks if it is small and in the bytes of malloc if it is large or not
Python's. RSS holds all of it, and what allocators keep free besides, which rises and falls by
itself: growth that shows in RSS alone is no leak. A container that grows says where to look.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import psutil

#: Other people's packages: what their objects hold is theirs, and hardly Python.
FOREIGN = frozenset({*sys.stdlib_module_names, "msgpack", "msgspec", "zmq"})
CONTAINERS = (dict, list, deque, set, frozenset, bytearray)


class Reading(msgspec.Struct, frozen=True):
    """One look at a process; `containers` are the lengths of all that an object holds, by path.

    `gc_objects` are those not frozen, after a full collection; `blocks` are those of Python's own
    allocator, for what is up to 512 bytes, None where it is not used; `malloc_bytes` are in use of
    what malloc gave out, to whomever, None without glibc 2.33. `fds` is None where the system does
    not tell.
    """

    gc_objects: int
    blocks: int | None
    malloc_bytes: int | None
    rss_bytes: int
    fds: int | None
    threads: int
    containers: dict[str, int] = {}


class Log:
    """Readings as text: kept as objects they would be what grows."""

    def __init__(self) -> None:
        self._lines = bytearray()

    def add(self, reading: Reading) -> None:
        """Keep one."""
        self._lines += msgspec.json.encode(reading) + b"\n"

    def readings(self) -> list[Reading]:
        """All of them, in order."""
        return msgspec.json.Decoder(Reading).decode_lines(bytes(self._lines))

    def __bool__(self) -> bool:
        return bool(self._lines)


@contextmanager
def only_what_is_new() -> Iterator[None]:
    """Leave out of `gc_objects` what there is already: it stays, and counting it takes long."""
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def take_reading(root: object = None) -> Reading:
    """Read this process, and the containers below an object."""
    gc.collect()
    fds, threads = fds_and_threads()
    return Reading(
        gc_objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks() or None,
        malloc_bytes=malloc_bytes(),
        rss_bytes=psutil.Process().memory_info().rss,
        fds=fds,
        threads=threads,
        containers=container_sizes(root),
    )


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of glibc, see mallinfo(3); only two of its fields are needed."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _find_mallinfo() -> Callable[[], _Mallinfo] | None:
    """The function of this process's C library, looked up once: a look leaves something behind."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = _Mallinfo
    return cast(Callable[[], _Mallinfo], found)


_mallinfo = _find_mallinfo()


def malloc_bytes() -> int | None:
    """Bytes in use of what malloc has given out in this process; None where it does not say."""
    if _mallinfo is None:
        return None
    found = _mallinfo()
    return int(found.uordblks + found.hblkhd)


def fds_and_threads() -> tuple[int | None, int]:
    """How many descriptors and threads this process has; the former None where nobody counts."""
    process = psutil.Process()
    return process.num_fds() if hasattr(process, "num_fds") else None, process.num_threads()


def container_sizes(root: object) -> dict[str, int]:
    """The length of each container below an object: `scheduler.workers`, `…workers[].leases`.

    Objects of the project's and its users' classes are followed; those in a container share one
    path, and their lengths are added up. What has several paths is under the shortest.
    """
    sizes: Counter[str] = Counter()
    seen = {id(root)}
    todo: deque[tuple[str, object]] = deque([("", root)])
    while todo:
        path, owner = todo.popleft()
        if isinstance(owner, CONTAINERS):
            sizes[path] += len(owner)
            found = [(f"{path}[]", item) for item in _items(owner)]
        else:
            prefix = f"{path}." if path else ""
            found = [(prefix + name, value) for name, value in _attributes(owner)]
        for place, value in found:
            if id(value) not in seen and (isinstance(value, CONTAINERS) or _is_ours(value)):
                seen.add(id(value))
                todo.append((place, value))
    return dict(sizes)


def growing(readings: Sequence[Mapping[str, int]], allowance: int = 0) -> dict[str, int]:
    """By how much each container is larger at its smallest of the later half than of the earlier.

    What is forgotten lazily rises and falls, so only its lowest points can be compared. At most
    `allowance` items more do not count.
    """
    half = len(readings) // 2
    names = {name for sizes in readings for name in sizes}
    grown = {
        name: min(sizes.get(name, 0) for sizes in readings[half:])
        - min(sizes.get(name, 0) for sizes in readings[:half])
        for name in sorted(names)
        if half
    }
    return {name: items for name, items in grown.items() if items > allowance}


def _is_ours(value: object) -> bool:
    return type(value).__module__.partition(".")[0] not in FOREIGN


def _items(container: Any) -> Iterator[object]:
    if isinstance(container, bytearray):
        return
    yield from container
    if isinstance(container, Mapping):
        yield from container.values()


def _attributes(owner: object) -> Iterator[tuple[str, object]]:
    yield from getattr(owner, "__dict__", {}).items()
    for cls in type(owner).__mro__:
        slots: str | AbstractSet[str] = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(owner, name):
                yield name, getattr(owner, name)
