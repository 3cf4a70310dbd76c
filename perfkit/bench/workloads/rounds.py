"""Arms that take turns, so that a machine that drifts drifts for all of them.

One block of every arm is a round; the order of the arms is drawn, and reversed in the next round.
All arms stay alive for all rounds: a process that waits costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_uppercase
from typing import TypeAlias

from perfkit.evidence.stats import abba

#: One block of an arm: what it found, by figure. The first of them is the one that is told.
Arm: TypeAlias = Callable[[], Mapping[str, float]]
#: By figure and arm, one reading for each round.
Readings: TypeAlias = dict[str, dict[str, list[float]]]


def take_turns(
    arms: Mapping[str, Arm],
    rounds: int,
    seed: int,
    unit: str,
    say: Callable[[str], None],
    *,
    warm: bool = True,
) -> Readings:
    """Run a block of every arm in each round, after one of each that does not count if `warm`."""
    for arm in arms.values() if warm else ():
        arm()
    by_letter = dict(zip(ascii_uppercase, arms, strict=False))
    readings: Readings = {}
    for number, order in enumerate(abba(rounds, seed, "".join(by_letter)), 1):
        for name in map(by_letter.__getitem__, order):
            found = arms[name]()
            for figure, value in found.items():
                readings.setdefault(figure, {}).setdefault(name, []).append(value)
            first = next(iter(found.values()))
            shown = f"{first:,.0f}" if first >= 1_000 else f"{first:.3g}"
            say(f"round {number} of {rounds}, {name} {shown} {unit}")
    return readings
