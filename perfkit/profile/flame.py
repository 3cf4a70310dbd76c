"""Where a living process is, sampled from outside with py-spy: the stacks of a flame graph.

cProfile sees every call and makes each of them dearer; a sampler sees only where the process is, a
few hundred times a second, and costs it next to nothing. Where the two disagree about many cheap
calls, the sampler is the one to believe.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from perfkit.evidence.tables import html_table
from perfkit.profile.attach import program, watch

#: Off the beat of anything that happens every so many milliseconds.
RATE_HZ = 499
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(:\d+)?\)$")


@dataclass(frozen=True)
class Frame:
    """One function on a stack: its name and the file it is in, as its package sees it."""

    function: str
    file: str


@dataclass(frozen=True)
class Flame:
    """How often each stack was seen, outermost function first; or `reason`, why nothing was seen.

    Samples in which a thread waited for the kernel are not among them.
    """

    name: str
    stacks: tuple[tuple[tuple[Frame, ...], int], ...] = field(default=(), repr=False)
    rate_hz: int = RATE_HZ
    reason: str | None = None

    @property
    def samples(self) -> int:
        """How many samples all stacks have."""
        return sum(count for _, count in self.stacks)

    def below(self, function: str) -> Flame:
        """The stacks that go through a function, from it on upwards; all of them if none does."""
        found: Counter[tuple[Frame, ...]] = Counter()
        for stack, count in self.stacks:
            names = [frame.function for frame in stack]
            if function in names:
                found[stack[names.index(function) :]] += count
        return Flame(self.name, tuple(found.items()), self.rate_hz, self.reason) if found else self

    def share(self, function: str) -> float | None:
        """The part of the samples, in 0..1, that have a function on their stack; None without."""
        seen = sum(n for stack, n in self.stacks if any(f.function == function for f in stack))
        return seen / self.samples if self.samples else None

    def _repr_html_(self) -> str:
        notes = [self.reason] if self.reason else []
        rows = [
            (" / ".join(f.function for f in stack[-4:]), str(count))
            for stack, count in sorted(self.stacks, key=lambda item: -item[1])[:10]
        ]
        return html_table(
            f"Stacks of {self.name}, {self.samples:,} samples", ("stack", "samples"), rows, notes
        )


def sample_stacks(pid: int, name: str, work: Callable[[], object], rate_hz: int = RATE_HZ) -> Flame:
    """Sample a process while `work()` runs, which gives it something to do.

    Without py-spy, or where the kernel refuses it, the flame is empty and its `reason` says why.
    """
    sampler = program("py-spy")
    if sampler is None:
        return Flame(name, reason="py-spy is not installed: pip install 'perfkit[profile]'")
    with tempfile.TemporaryDirectory(prefix="perfkit-flame-") as folder:
        raw = Path(folder) / "stacks.txt"
        argv = [sampler, "record", "--pid", str(pid), "--rate", str(rate_hz)]
        argv += ["--format", "raw", "--function", "--output", str(raw)]
        reason = watch(argv, "Sampling process", work)
        if reason is None and not raw.is_file():
            reason = "py-spy wrote no samples"
        stacks = () if reason else read_stacks(raw.read_text())
    return Flame(name, stacks, rate_hz, reason)


def read_stacks(text: str) -> tuple[tuple[tuple[Frame, ...], int], ...]:
    """The stacks in py-spy's raw format: frames from outermost on with `;` between, then a count.

    Format: https://github.com/brendangregg/FlameGraph (collapsed stacks). Raises ValueError for a
    line that is none.
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
