"""Times sessions that take turns, in blocks of runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.models.runtime.golden import run_all

#: A block lasts this long at least, and all blocks together about as long as this.
BLOCK_S = 0.02
TIMING_S = 1.0
ROUNDS_MIN, ROUNDS_MAX = 5, 30
#: One that takes so much longer than the fastest, and is slow, is timed by a single run.
HOPELESS = 20.0


def run_s(session: Any, inputs: Mapping[str, Any]) -> float:
    """Seconds of a run, the best of a few short ones."""
    best_s, tries = float("inf"), 0
    while tries < 3 and (tries == 0 or best_s < BLOCK_S):
        started_s = time.perf_counter()
        run_all(session, inputs)
        best_s, tries = min(best_s, time.perf_counter() - started_s), tries + 1
    return best_s


def block_times(
    sessions: Mapping[int, Any], inputs: Mapping[str, Any], tell: Callable[[int], None]
) -> dict[int, list[float]]:
    """Seconds of a run for each session, a figure for each block."""
    import random

    once_s: dict[int, float] = {}
    for at, session in sessions.items():
        tell(at)
        once_s[at] = run_s(session, inputs)
    limit_s = max(HOPELESS * min(once_s.values(), default=0.0), TIMING_S / ROUNDS_MIN)
    racing = [at for at in sessions if once_s[at] <= limit_s]
    found = {at: [] if at in racing else [once_s[at]] for at in sessions}
    runs = {at: max(1, round(BLOCK_S / max(once_s[at], 1e-6))) for at in racing}
    round_s = sum(runs[at] * once_s[at] for at in racing)
    most = ROUNDS_MAX if len(racing) > 1 else ROUNDS_MIN
    chance = random.Random(0)
    for _ in range(max(ROUNDS_MIN, min(most, round(TIMING_S / max(round_s, 1e-6))))):
        chance.shuffle(racing)
        for at in racing:
            tell(at)
            started_s = time.perf_counter()
            for _ in range(runs[at]):
                run_all(sessions[at], inputs)
            found[at].append((time.perf_counter() - started_s) / runs[at])
    return found
