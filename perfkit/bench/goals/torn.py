"""Inputs that no card and no profiler writes: what is read of them must be in them.

A file of the made-up card, or a small profile, is torn and read. Wrong is an exception that
escapes, a value outside its range, and a value with digits that are not in the torn file.
"""

from __future__ import annotations

import math
import random
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.scratch import ScratchFolder
from perfkit.gpu.card import Cards
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import PLAUSIBLE_RANGES
from perfkit.gpu.rocprof import RocprofError, read

#: Files that say which card it is, or whether it sleeps; the others are torn.
_KEPT = ("vendor", "device", "uevent", "power/runtime_status", "hwmon/hwmon2/name")
_SPLICES = (
    b"", b"\r\n", b"\n", b"\0", b"\xff", b",", b'"', b"-1", b"nan", b"1e999", b"0x10", b"1_000",
    b"9" * 40, b"N/A", b" *", b"4294967295", b"{", b"[", b"x" * 200_000,
)  # fmt: skip
_TRACE = (
    b'"Kind","Agent_Id","Queue_Id","Kernel_Name","Correlation_Id","Start_Timestamp","End_Timestamp"'
    b'\r\n"KERNEL_DISPATCH","Agent 4",1,"saxpy(int, float*)",1,5000,9000\r\n'
    b'"KERNEL_DISPATCH","Agent 4",1,"scale(float*)",2,10000,10500\r\n'
)
_V1 = (
    b"Index,KernelName,gpu-id,queue-id,pid,tid,grd,wgr,FETCH_SIZE,BeginNs,EndNs\n"
    b'0,"saxpy(int, float*)",0,0,7,7,65536,256,512.5,5000,9000\n'
)
#: Scales between a value and its file's digits.
_SCALES = (1.0, 1e3, 1e6, 1e-6)


def torn_inputs(inputs: int, seed: int = 0) -> list[str]:
    """Read this many torn inputs; returns what was wrong with each that was read wrongly."""
    rng = random.Random(seed)
    with ScratchFolder("torn-inputs-") as folder:
        root = Path(folder)
        profiles = [_TRACE, _V1, _database(root / "seed.db")]
        readers = (_TornCard(root / "drm").read, lambda rng: _torn_profile(root, profiles, rng))
        return [
            f"input {number} of seed {seed}: {wrong}"
            for number in range(inputs)
            for wrong in readers[number % 2](rng)
        ]


def _torn(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(content) + 1)
        stop = start + rng.choice((0, 0, 1, 5, 40))
        content = content[:start] + rng.choice(_SPLICES) + content[stop:]
    return content


class _TornCard:
    """The made-up card, of which one file is torn at a time."""

    def __init__(self, root: Path) -> None:
        self.device = plant(root)
        self.cards = Cards(root)
        self.names = [name for name in POLARIS if name not in _KEPT]
        self.whole = self.cards.sample()[0].to_dict()
        #: A field whose file was torn may have its value from another one.
        self.elsewhere = _figures(b" ".join(text.encode() for text in POLARIS.values()))

    def read(self, rng: random.Random) -> Iterator[str]:
        """What is wrong with a sample after one file was torn."""
        name = rng.choice(self.names)
        content = _torn(POLARIS[name].encode(), rng)
        (self.device / name).write_bytes(content)
        try:
            sample = self.cards.sample()[0]
            told = {field: getattr(sample, field) for field in PLAUSIBLE_RANGES}
        except Exception as error:
            yield f"{name}: {type(error).__name__} escaped: {error}"
            return
        finally:
            (self.device / name).write_text(POLARIS[name])
        figures = self.elsewhere + _figures(content)
        for field, value in told.items():
            if value is None or value == self.whole[field]:
                continue
            low, high = PLAUSIBLE_RANGES[field]
            if not low <= value <= high or not _is_in(value, figures):
                yield f"{name} with {content[:80]!r} gave {field} {value}"


def _figures(content: bytes) -> list[float]:
    """The whole numbers and decimals in a text; those of absurd length are no value's."""
    found = re.findall(rb"-?\d{1,40}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?", content)
    return [float(figure) for figure in found]


def _is_in(value: float, figures: Sequence[float]) -> bool:
    scaled = [value * scale for scale in _SCALES]
    return any(math.isclose(s, figure, rel_tol=1e-9) for s in scaled for figure in figures)


def _torn_profile(root: Path, profiles: Sequence[bytes], rng: random.Random) -> Iterator[str]:
    seed = rng.choice(profiles)
    content = _torn(seed, rng)
    path = root / "torn"
    path.write_bytes(content)
    try:
        kernels = read(path).kernels
    except RocprofError:
        return
    except Exception as error:
        yield f"a profile of {content[:80]!r}: {type(error).__name__} escaped: {error}"
        return
    figures = None if seed.startswith(b"SQLite") else _figures(content)
    for kernel in kernels:
        start_ns, duration_ns = kernel.start_ns, kernel.duration_ns
        if duration_ns is not None and duration_ns < 0:
            yield f"a profile of {content[:80]!r} gave {duration_ns} ns"
        if start_ns and figures is not None and not any(abs(start_ns - f) < 1 for f in figures):
            yield f"a profile of {content[:80]!r} gave a start at {start_ns} ns"


def _database(path: Path) -> bytes:
    """A database with the view that a rocpd file has, and two dispatches."""
    with sqlite3.connect(path) as database:
        database.execute(
            "create table kernels (guid text, name text, start integer, end integer, "
            "duration integer, grid_x integer, agent_abs_index integer)"
        )
        rows = [("a", "saxpy", 5_000, 9_000, 4_000, 64, 1), ("a", "scale", 9_500, 9_900, 400, 8, 1)]
        database.executemany("insert into kernels values (?, ?, ?, ?, ?, ?, ?)", rows)
    database.close()
    return path.read_bytes()
