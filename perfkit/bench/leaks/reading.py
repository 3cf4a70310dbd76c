"""What a process holds at one moment: objects, memory, descriptors, threads, and containers.

Every leak shows in one of these. Objects that the garbage collector tracks are counted after it has
run, so their number follows from the program alone. Untracked ones (bytes, numbers) show in
Python's blocks if they are small, and in malloc's bytes if they are large or not Python's. RSS also
holds the allocators' free memory, which rises and falls by itself: growth in RSS alone is no leak.
A growing container says where to look.
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

#: Packages of others: their objects are not followed.
FOREIGN = frozenset({*sys.stdlib_module_names, "msgpack", "msgspec", "zmq"})
CONTAINERS = (dict, list, deque, set, frozenset, bytearray)


class Reading(msgspec.Struct, frozen=True):
    """One reading of a process; `containers` holds lengths by path below an object.

    `gc_objects` are those not frozen, after a full collection; `blocks` are those of Python's own
    allocator, for up to 512 bytes each, None if it is not used; `malloc_bytes` are allocated by
    malloc and in use, None without glibc 2.33. `fds` is None where the system does not tell.
    """

    gc_objects: int
    blocks: int | None
    malloc_bytes: int | None
    rss_bytes: int
    fds: int | None
    threads: int
    containers: dict[str, int] = {}


@contextmanager
def only_what_is_new() -> Iterator[None]:
    """Leave existing objects out of `gc_objects`: they stay, and counting them takes long."""
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
    """`struct mallinfo2` of glibc, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _find_mallinfo() -> Callable[[], _Mallinfo] | None:
    """The C library's function; looked up once, because each look-up allocates."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    found.restype = _Mallinfo
    return cast(Callable[[], _Mallinfo], found)


_mallinfo = _find_mallinfo()


def malloc_bytes() -> int | None:
    """Bytes that malloc has allocated in this process and that are in use; None if unknown."""
    if _mallinfo is None:
        return None
    found = _mallinfo()
    return int(found.uordblks + found.hblkhd)


def fds_and_threads() -> tuple[int | None, int]:
    """The number of descriptors (None if unknown) and of threads of this process."""
    process = psutil.Process()
    return process.num_fds() if hasattr(process, "num_fds") else None, process.num_threads()


def container_sizes(root: object) -> dict[str, int]:
    """The length of each container below an object: `scheduler.workers`, `…workers[].leases`.

    Objects of the project's and its users' classes are followed; those in one container share a
    path, and their lengths are added up. A container with several paths is listed under the
    shortest.
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
    """Growth of each container's smallest size from the earlier half to the later, if any.

    Containers that are emptied lazily rise and fall, so only their smallest sizes are comparable.
    Growth up to `allowance` items is ignored.
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
