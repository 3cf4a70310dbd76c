"""Shares of a profile: how much of the coordinator's work an idea can touch at most.

A profile names functions, an idea changes a part: the codec, the choice of a worker, the work for
each message. The time of a part is the time below the calls that enter it from outside, so that its
built-in functions count and its inner calls don't count twice. The whole is the coordinator's
turns, without waiting, starting and stopping.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perfkit.profile.cpu import CpuProfile, Function
from perfkit.profile.paths import short_path


@dataclass(frozen=True)
class Part:
    """Functions of some files, by default all of them. `name` is for people."""

    name: str
    files: frozenset[str]
    functions: frozenset[str] = frozenset()

    def holds(self, function: Function) -> bool:
        """Whether a function of a profile belongs to the part."""
        file, _, name = function
        return short_path(file) in self.files and (not self.functions or name in self.functions)


def part(name: str, files: str, functions: str = "") -> Part:
    """A part from space-separated files, as their packages see them, and functions."""
    return Part(name, frozenset(files.split()), frozenset(functions.split()))


POLICIES = "cluster/core/policy.py perfkit/optimized/policy.py perfkit/optimized/sizer.py"
TURN = part("all that is done for a message", "cluster/shells/dispatcher.py", "turn")
ELIGIBLE = part("finding eligible workers", "cluster/core/policy.py", "eligible")
CHOICE = part("choosing a worker", POLICIES, "choose")
QUEUE = part("the queue", "cluster/core/queue.py perfkit/optimized/queue.py")
CODEC = part("the codec", "cluster/protocol/codec.py perfkit/optimized/codec.py")
SOCKETS = part("sending and receiving", "cluster/transport/channel.py", "send receive")


def share(profile: CpuProfile, wanted: Part) -> float | None:
    """The part's time over the time of all turns, in 0..1; None without a profiled turn."""
    inside = {function for function in profile.table if wanted.holds(function)}
    whole_s = sum(row[3] for function, row in profile.table.items() if TURN.holds(function))
    if whole_s <= 0:
        return None
    return min(1.0, _entered_s(profile, inside) / whole_s)


def _entered_s(profile: CpuProfile, inside: Iterable[Function]) -> float:
    """Seconds below calls into these functions from any other."""
    within = set(inside)
    return sum(
        edge[3]
        for function in within
        for caller, edge in profile.table[function][4].items()
        if caller not in within
    )
