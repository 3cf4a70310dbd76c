"""Arms that take turns, so that a drifting machine drifts for all of them.

A round is one block of every arm, in an order that is drawn and then reversed for the next round.
All arms stay alive throughout: a waiting process costs nothing. What must not inherit this
process's past runs in a fresh one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from string import ascii_letters
from typing import TypeAlias

from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.progress import tell
from perfkit.evidence.stats import abba
from perfkit.evidence.text import quantity

#: Takes one line of progress at a time.
Say: TypeAlias = Callable[[str], None]
#: Runs one block of an arm and returns its figures by name; progress lines show the first.
Arm: TypeAlias = Callable[[], Mapping[str, float]]
#: By figure and arm, one sample for each round.
ArmSamples: TypeAlias = dict[str, dict[str, list[float]]]


def prefixed(progress: Say | None, prefix: str) -> Say:
    """Progress lines that start with a prefix; without a listener the process's own hear them."""
    return lambda line: (progress or tell)(f"{prefix}: {line}")


def take_turns(
    arms: Mapping[str, Arm], rounds: int, seed: int, unit: str, say: Say, *, warm: bool = True
) -> ArmSamples:
    """Run a block of every arm in each round; if `warm`, first one of each that does not count."""
    for arm in arms.values() if warm else ():
        arm()
    by_letter = dict(zip(ascii_letters, arms, strict=False))
    samples: ArmSamples = {}
    for number, order in enumerate(abba(rounds, seed, "".join(by_letter)), 1):
        for name in map(by_letter.__getitem__, order):
            found = arms[name]()
            for figure, value in found.items():
                samples.setdefault(figure, {}).setdefault(name, []).append(value)
            first = next(iter(found.values()), None)
            say(f"round {number} of {rounds}, {name} {quantity(first, unit)}")
    return samples


def run_module(
    module: str,
    *arguments: str,
    what: str,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The standard output of ``python -m module arguments``.

    Raises ExperimentError, which calls the run `what` and quotes the last line of its errors, if it
    fails or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=None if environment is None else {**environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"{what} took longer than {timeout_s:.0f} s") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ExperimentError(f"{what} failed: {reason}")
    return done.stdout
