"""The stacks of a living process, sampled from outside with py-spy, for a flame graph.

cProfile sees every call and slows each down. A sampler looks a few hundred times a second and costs
the process next to nothing. Where the two disagree about many cheap calls, believe the sampler.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.vocabulary.printable import count_of
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.profile.tracer import program, trace_to_file

if TYPE_CHECKING:
    import pandas as pd

#: A prime, so that it does not keep step with anything periodic.
RATE_HZ = 499
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(:\d+)?\)$")


@dataclass(frozen=True)
class Frame:
    """One function on a stack, and its file as its package sees it."""

    function: str
    file: str


@dataclass(frozen=True)
class Flame(Showable):
    """How often each stack was seen, outermost function first; `reason` says why none was.

    Samples of a thread that waits for the kernel are left out.
    """

    name: str
    stacks: tuple[tuple[tuple[Frame, ...], int], ...] = field(default=(), repr=False)
    rate_hz: int = RATE_HZ
    reason: str | None = None

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(count for _, count in self.stacks)

    def below(self, function: str) -> Flame:
        """The stacks that go through a function, from it on upwards; all of them if none does."""
        found: Counter[tuple[Frame, ...]] = Counter()
        for stack, count in self.stacks:
            names = [frame.function for frame in stack]
            if function in names:
                found[stack[names.index(function) :]] += count
        return Flame(self.name, tuple(found.items()), reason=self.reason) if found else self

    def to_frame(self) -> pd.DataFrame:
        """A row for each stack, most samples first: its functions with `;` between, and a count."""
        rows = sorted(self.stacks, key=lambda item: -item[1])
        return data_frame(
            [{"stack": ";".join(f.function for f in stack), "samples": n} for stack, n in rows],
            ["stack", "samples"],
        )

    def _sheets(self) -> Iterator[Sheet]:
        notes = [self.reason] if self.reason else []
        rows = [
            (" / ".join(f.function for f in stack[-4:]), str(count))
            for stack, count in sorted(self.stacks, key=lambda item: -item[1])[:10]
        ]
        yield Sheet(
            f"Stacks of {self.name}, {count_of(self.samples, 'sample')}",
            ("stack", "samples"),
            rows,
            notes,
        )


def sample_stacks(pid: int, name: str, work: Callable[[], object]) -> Flame:
    """Sample a process while `work()` gives it something to do.

    Without py-spy, or where the kernel refuses it, the work is not done and `reason` says why.
    """
    sampler = program("py-spy")
    if sampler is None:
        return Flame(name, reason="py-spy is not installed: pip install 'perfkit[profile]'")
    argv = [sampler, "record", "--pid", str(pid), "--rate", str(RATE_HZ)]
    argv += ["--format", "raw", "--function"]
    raw, reason = trace_to_file(argv, "--output", "Sampling process", work)
    return Flame(name, read_stacks(raw), reason=reason)


def read_stacks(text: str) -> tuple[tuple[tuple[Frame, ...], int], ...]:
    """The stacks in py-spy's raw format: frames from outermost on with `;` between, then a count.

    Format: https://github.com/brendangregg/FlameGraph (collapsed stacks). Raises ValueError for
    another line.
    """
    found: Counter[tuple[Frame, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit():
            raise ValueError(f"{line!r} is no stack with a count")
        found[tuple(map(_frame, stack.split(";")))] += int(count)
    return tuple(found.items())


def _frame(text: str) -> Frame:
    match = _FRAME.match(text)
    return Frame(match["function"], match["file"]) if match else Frame(text, "")
