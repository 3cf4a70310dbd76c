"""Lines of characters that show a series over the last minutes, for terminals and plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TypeAlias

#: (seconds, value) in order; unknown values are None.
Series: TypeAlias = Sequence[tuple[float, float | None]]

SPAN_S = 60.0
#: The heights of a sparkline, without and with an encoding that has them.
RAMPS = PLAIN_RAMP, RAMP = "_.-=+*#@", "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(
    series: Series,
    now_s: float,
    cells: int,
    low: float,
    high: float | None,
    ramp: str = RAMP,
    span_s: float = SPAN_S,
) -> str:
    """The last `span_s` in `cells` characters, the newest at the right; each is a mean.

    A stretch without a known value is a gap. Without `high` the top is a round figure above
    all values.
    """
    bins: list[list[float]] = [[] for _ in range(cells)]
    for at_s, value in series:
        age = int(max(0.0, now_s - at_s) / span_s * cells)
        if value is not None and age < cells:
            bins[cells - 1 - age].append(value)
    means = [fmean(values) if values else None for values in bins]
    top = high or round_up(max((mean for mean in means if mean is not None), default=0.0))
    steps = len(ramp) - 1
    return "".join(
        GAP
        if mean is None
        else ramp[round(steps * min(1.0, max(0.0, (mean - low) / max(top - low, 1e-9))))]
        for mean in means
    )


def round_up(value: float) -> float:
    """The next of …, 1, 2, 5, 10, 20, 50, …"""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)
