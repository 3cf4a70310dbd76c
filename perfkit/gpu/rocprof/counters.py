"""How much memory traffic a kernel caused, from the hardware counters that were collected.

The L2 cache counts its requests to memory, and every generation of cards counts differently. The
formulas are those of AMD's own derived metrics FETCH_SIZE and WRITE_SIZE, in bytes instead of KiB:

* gfx8 (Polaris, Fiji), gfx9 (Vega 10, MI100, MI200) and gfx906 (Vega 20, with a second port to
  memory, EA1): ROCm/rocprofiler, test/tool/metrics.xml
* gfx940 (MI300), where TCC_BUBBLE counts the reads of 128 bytes: ROCm/rocprofiler-sdk,
  counter_defs.yaml; as TCC_EA_READBW also in ROCm/rocprofiler,
  src/core/counters/metrics/derived_counters.xml
* gfx10, gfx11 and gfx12, whose L2 cache is GL2C: the same counter_defs.yaml. gfx12 has no reads of
  96 bytes, and no WRITE_SIZE is defined for it

Traffic includes bytes that caches fetched without need; atomics count as writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

Counters: TypeAlias = Mapping[str, int | float | None]
Flow: TypeAlias = Literal["fetched", "written"]

FLOWS: tuple[Flow, ...] = ("fetched", "written")

_CHANNEL = re.compile(r"(.+)\[(\d{1,4})\]", re.ASCII)
#: AMD's metrics divide by 1024 and call it a kilobyte.
_KIB = 1024
_READY_MADE: dict[Flow, tuple[str, ...]] = {
    "fetched": ("FETCH_SIZE", "FetchSize"),
    "written": ("WRITE_SIZE", "WriteSize"),
}


@dataclass(frozen=True, slots=True)
class Formula:
    """Bytes as a sum of counters of requests, each times its bytes."""

    gfx: str
    flow: Flow
    terms: Mapping[str, int]
    caveat: str = ""
    #: A counter of another generation, which counts in another way.
    without: str = ""

    @property
    def text(self) -> str:
        """The sum as people write it: `64·TCC_EA_RDREQ − 32·TCC_EA_RDREQ_32B`."""
        parts = [f"{'−' if w < 0 else '+'} {abs(w)}·{name}" for name, w in self.terms.items()]
        return " ".join(parts).removeprefix("+ ")


_EA = {"TCC_EA_RDREQ": 64, "TCC_EA_RDREQ_32B": -32}
_EA1 = {"TCC_EA1_RDREQ": 64, "TCC_EA1_RDREQ_32B": -32}
_EA_WRITES = {"TCC_EA_WRREQ": 32, "TCC_EA_WRREQ_64B": 32}
_EA1_WRITES = {"TCC_EA1_WRREQ": 32, "TCC_EA1_WRREQ_64B": 32}
_VEGA_20 = "on Vega 20 (gfx906) this is one of two ports, and TCC_EA1 counts the other"

#: A formula comes before those it contains. A read that is not counted as of 32 bytes is of 64:
#: (R − R32)·64 + R32·32 = 64·R − 32·R32; a write that is not counted as of 64 bytes is of 32.
FORMULAS = (
    Formula("gfx8", "fetched", {"TCC_MC_RDREQ": 32}),
    Formula("gfx8", "written", {"TCC_MC_WRREQ": 32}),
    Formula("gfx906", "fetched", _EA | _EA1),
    Formula("gfx906", "written", _EA_WRITES | _EA1_WRITES),
    Formula("gfx9", "fetched", _EA, _VEGA_20),
    Formula("gfx9", "written", _EA_WRITES, _VEGA_20),
    Formula("gfx940", "fetched", {"TCC_EA0_RDREQ": 64, "TCC_EA0_RDREQ_32B": -32, "TCC_BUBBLE": 64}),
    Formula("gfx940", "written", {"TCC_EA0_WRREQ": 32, "TCC_EA0_WRREQ_64B": 32}),
    Formula("gfx10+", "fetched", {f"GL2C_EA_RDREQ_{n}B": n for n in (32, 64, 96, 128)}),
    Formula("gfx10+", "written", {"GL2C_MC_WRREQ": 32, "GL2C_EA_WRREQ_64B": 32}),
    Formula(
        "gfx12", "fetched", {f"GL2C_EA_RDREQ_{n}B": n for n in (32, 64, 128)},
        "on gfx10 and gfx11 the reads of 96 bytes are missing in it",
        without="GL2C_EA_RDREQ_96B",
    ),
)  # fmt: skip


class Traffic(NamedTuple):
    """Bytes of one flow, None if unknown; `how` says how they follow, or why not."""

    size_bytes: int | None
    how: str | None = None


def traffic(flow: Flow, counters: Counters) -> Traffic:
    """The bytes that a kernel fetched from or wrote to video memory.

    The profiler's own metric (in KiB) comes first, then the first formula whose counters are all
    known. A counter is the `…_sum` over the channels, or the sum of `…[0]`, `…[1]` and so on
    without a gap, or the bare name as in rocprofv3.
    """
    for name in _READY_MADE[flow]:
        value = counters.get(name)
        if value is not None:
            return Traffic(round(value * _KIB), f"{flow}_bytes is {name}, given in KiB")
    formulas = _formulas(flow, tuple(counters))
    sums = channel_sums(counters) if formulas else {}
    for formula in formulas:
        values = [_total(name, counters, sums) for name in formula.terms]
        if None not in values:
            return _apply(formula, [value for value in values if value is not None])
    return Traffic(None)


def channel_sums(counters: Counters) -> dict[str, int | float]:
    """The sum over all channels of each counter that is given by channel."""
    channels: dict[str, dict[int, int | float | None]] = {}
    for name, value in counters.items():
        if match := _CHANNEL.fullmatch(name):
            channels.setdefault(match[1], {})[int(match[2])] = value
    sums = {}
    for name, by_channel in channels.items():
        known = [value for value in by_channel.values() if value is not None]
        if len(known) == len(by_channel) == max(by_channel) + 1:
            sums[name] = sum(known)
    return sums


def _total(name: str, counters: Counters, sums: Mapping[str, int | float]) -> int | float | None:
    total = counters.get(f"{name}_sum")
    if total is None:
        total = sums.get(name)
    return counters.get(name) if total is None else total


@lru_cache(maxsize=1024)
def _formulas(flow: Flow, names: tuple[str, ...]) -> tuple[Formula, ...]:
    """The formulas all of whose counters were collected, even if a value is unknown."""
    there = {name.partition("[")[0].removesuffix("_sum") for name in names}
    return tuple(
        formula
        for formula in FORMULAS
        if formula.flow == flow and there >= formula.terms.keys() and formula.without not in there
    )


def _apply(formula: Formula, values: list[int | float]) -> Traffic:
    size = sum(w * value for w, value in zip(formula.terms.values(), values, strict=True))
    column = f"{formula.flow}_bytes"
    if size < 0:
        return Traffic(None, f"{column} is unknown: {formula.text} is below 0")
    how = f"{column} is {formula.text} ({formula.gfx})"
    return Traffic(round(size), f"{how}; {formula.caveat}" if formula.caveat else how)
