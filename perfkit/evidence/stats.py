"""Whether B is faster than A, on a machine that drifts.

Identical code differs by a few per mille within a minute and by a quarter between two jobs. A
difference of two means, or a test that takes the samples of one run to be independent, would raise
false alarms. So

* variants are compared by the ratio of *neighbouring* blocks, so that slow drift cancels;
* the unit of evidence is the pair of blocks, however many samples a block holds;
* an A/A control runs beside every comparison, and a verdict may be "inconclusive".

Statistics of one set of samples are in `samples`.
"""

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from statistics import fmean, median
from typing import NamedTuple

import msgspec

from perfkit.evidence.samples import (
    Interval,
    check_confidence,
    sorted_finite,
    stdev,
    student_t,
)
from perfkit.evidence.showing import Figures, Sheet, Showable, facts
from perfkit.evidence.text import measured, quantity
from perfkit.evidence.verdicts import Direction, Verdict

Block = float | Sequence[float]

#: Fewer pairs of blocks than this give no verdict.
MIN_BLOCKS = 4
#: From this many pairs on, outlying pairs are trimmed and the interval is bootstrapped.
MIN_BLOCKS_TO_BOOTSTRAP = 8
#: Share of the log ratios trimmed at each end.
TRIM = 0.2


class Comparison(Showable, msgspec.Struct, frozen=True, kw_only=True):
    """B against A: `ratio` is B over A, with its interval, the A/A control's, and the verdict."""

    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    aa_ratio: float | None
    aa_low: float | None
    aa_high: float | None
    reason: str
    blocks: int
    confidence: float
    direction: Direction
    method: str

    @property
    def factor(self) -> Interval:
        """B over A with its interval."""
        return Interval(self.ratio, self.low, self.high, self.confidence, self.method)

    @property
    def ratio_text(self) -> str:
        """The factor as people write it."""
        return self.factor.text()

    @property
    def control_text(self) -> str:
        """The A/A control's ratio with its interval."""
        return measured(self.aa_ratio, "", self.aa_low, self.aa_high)

    def describe(self) -> str:
        """The whole comparison in one line, for a terminal."""
        control = "no A/A control" if self.aa_ratio is None else f"A/A control {self.control_text}"
        return f"{self.verdict}: B/A {self.ratio_text}, {control}; {self.reason}"

    def _sheets(self) -> Iterator[Sheet]:
        yield from self.sheets()

    def _figures(self) -> Figures:
        control = Interval(self.aa_ratio, self.aa_low, self.aa_high, self.confidence, self.method)
        return "×", [("B/A", self.factor), ("A/A", control)]

    def sheets(self, caption: str = "") -> Iterator[Sheet]:
        """Its table, under a caption that says what was compared."""
        yield facts(
            {
                "verdict": self.verdict,
                f"B/A ({self.confidence:.0%} interval)": self.ratio_text,
                "A/A control": self.control_text,
                "pairs of blocks": self.blocks,
                "why": self.reason,
            },
            caption,
        )


class _Estimate(NamedTuple):
    """A log ratio and its bounds; an unknown bound is infinite."""

    value: float
    low: float
    high: float
    method: str


def abba(n_blocks: int, seed: int, arms: str = "AB") -> list[str]:
    """The order in which to run n_blocks groups of arms: `["BA", "AB", "AB", "BA", …]`.

    The second group of each two is the reverse of the first, so that a steady drift cancels. The
    first is drawn at random, so that no periodic disturbance can favour one arm. `arms="ABC"` adds
    a third arm, such as the A/A control. Raises ValueError for a negative count and for arms that
    repeat.
    """
    if n_blocks < 0:
        raise ValueError(f"The number of blocks must not be negative, and is {n_blocks}.")
    if len(set(arms)) != len(arms) or not arms:
        raise ValueError(f"Arms must be different letters, and are {arms!r}.")
    rng = random.Random(seed)
    groups: list[str] = []
    while len(groups) < n_blocks:
        group = "".join(rng.sample(arms, len(arms)))
        groups += [group, group[::-1]]
    return groups[:n_blocks]


def compare_blocks(
    a_blocks: Sequence[Block],
    b_blocks: Sequence[Block],
    aa_blocks: Sequence[Block] | None = None,
    *,
    direction: Direction,
    same_band: float = 0.02,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Comparison:
    """B against A from blocks that ran side by side: block i of each arm is one pair.

    A block is one figure, or raw samples whose median counts. `direction` says whether "higher"
    (tasks/s) or "lower" (seconds) figures are better. `aa_blocks` is a second run of A beside each
    pair. The verdict is

    * inconclusive with fewer than four pairs, or when the A/A control finds A different from
      itself (its interval excludes 1 and is not within the band);
    * same when the whole interval lies within 1 ± `same_band` (a ratio, both ways);
    * faster or slower when the interval is further from 1 than the A/A ratio (without a control:
      than the band), and the ratio itself is outside the band;
    * inconclusive otherwise. `reason` says why, in each case.

    Raises ValueError for arms of different length, figures that are not finite and above 0, and
    options out of range. `_mean_log_ratio` describes the interval and why it was chosen.
    """
    check_confidence(confidence)
    if direction not in ("higher", "lower"):
        raise ValueError(f'direction must be "higher" or "lower", not {direction!r}.')
    if not 0 <= same_band <= 1:
        raise ValueError(f"same_band must be in 0..1, not {same_band:g}.")
    rng = random.Random(seed)
    logs = _log_ratios(a_blocks, b_blocks, "b_blocks")
    ratio = _mean_log_ratio(logs, confidence, resamples, rng)
    control = None
    if aa_blocks is not None:
        logs = _log_ratios(a_blocks, aa_blocks, "aa_blocks")
        control = _mean_log_ratio(logs, confidence, resamples, rng)
    verdict, reason = _judge(ratio, control, len(a_blocks), math.log1p(same_band), direction)
    return Comparison(
        ratio=_exp(ratio.value),
        low=_exp(ratio.low),
        high=_exp(ratio.high),
        verdict=verdict,
        aa_ratio=_exp(control.value) if control else None,
        aa_low=_exp(control.low) if control else None,
        aa_high=_exp(control.high) if control else None,
        reason=reason,
        blocks=len(a_blocks),
        confidence=confidence,
        direction=direction,
        method=ratio.method,
    )


def _judge(
    ratio: _Estimate, control: _Estimate | None, blocks: int, band: float, direction: Direction
) -> tuple[Verdict, str]:
    """The rules in `compare_blocks`, on log ratios; `band` is a log ratio too."""
    if blocks < MIN_BLOCKS:
        return Verdict.INCONCLUSIVE, f"{blocks} pairs of blocks are fewer than {MIN_BLOCKS}"
    margin = band
    if control is not None:
        within_band = -band <= control.low and control.high <= band
        if (control.low > 0 or control.high < 0) and not within_band:
            return Verdict.INCONCLUSIVE, (
                "the A/A control finds A different from itself, so the machine or the order "
                "of the runs favours one arm"
            )
        margin = abs(control.value)
    factor = f"a factor of {quantity(math.exp(band))}"
    if -band <= ratio.low and ratio.high <= band:
        return Verdict.SAME, f"the whole interval lies within {factor}"
    if ratio.low <= margin and ratio.high >= -margin:
        if ratio.low <= 0 <= ratio.high:
            return Verdict.INCONCLUSIVE, f"the interval includes 1 and reaches beyond {factor}"
        near = "the A/A control's ratio is" if control else "the band reaches, without a control"
        return Verdict.INCONCLUSIVE, f"the interval comes as close to 1 as {near}"
    if abs(ratio.value) <= band:
        return Verdict.INCONCLUSIVE, "there is a difference, but perhaps too small to matter"
    better = (ratio.value > 0) == (direction == "higher")
    return (
        Verdict.FASTER if better else Verdict.SLOWER,
        "the whole interval lies on one side of 1",
    )


def _mean_log_ratio(
    logs: list[float], confidence: float, resamples: int, rng: random.Random
) -> _Estimate:
    """The trimmed mean log ratio of pairs, and a symmetric studentised interval of it.

    From eight pairs on, a 20 % trimmed mean with the error of K. Yuen (Biometrika 61, 1974) and a
    critical value bootstrapped over the pairs: each resample gives every pair's deviation a random
    sign (the wild bootstrap of R. Liu, Annals of Statistics 16, 1988), which is what drawing the
    order of a pair at random does to drift. The critical value is at least Student's, and is
    Student's below eight pairs, where there is nothing to trim and too little to resample.

    Chosen by simulation: at least 1,500 comparisons each of 4 to 24 pairs, under a trend, a
    sinusoid and none, two or four jumps of 26 %, at 95 %. Differences claimed where there was none:
    percentile bootstrap over pairs 8 to 22 %, its equal-tailed studentised form up to 10 %,
    Student's t 2 to 6 %, this 3 to 6 %. A 10 % shift seen with 12 pairs and four jumps: Student's
    t 77 %, drawing pairs with replacement 94 % (with no bound once a few pairs are equal), this
    97 %.
    """
    if len(logs) < 2:
        return _Estimate(logs[0] if logs else math.nan, -math.inf, math.inf, "too few blocks")
    trimmed = len(logs) >= MIN_BLOCKS_TO_BOOTSTRAP
    cut = int(TRIM * len(logs)) if trimmed else 0
    mean, error = _trimmed_mean(logs, cut)
    critical = student_t(confidence, len(logs) - 2 * cut - 1)
    if trimmed:
        deviations = [log - mean for log in logs]
        critical = max(critical, _wild_critical_value(deviations, cut, confidence, resamples, rng))
    half = critical * error
    method = "wild bootstrap over pairs, 20 % trimmed" if trimmed else "student t over pairs"
    return _Estimate(mean, mean - half, mean + half, method)


def _wild_critical_value(
    deviations: list[float], cut: int, confidence: float, resamples: int, rng: random.Random
) -> float:
    """The |mean / error| that a share `confidence` of the sign-flipped deviations stays below."""

    @cache
    def score(signs: int) -> float | None:
        flipped = [x if signs >> i & 1 else -x for i, x in enumerate(deviations)]
        mean, error = _trimmed_mean(flipped, cut)
        # Equal deviations on one side have no spread to judge their mean by.
        return abs(mean) / error if error > abs(mean) * 1e-9 else None

    # Few pairs have few ways to flip, and with all signs turned the score is the same.
    every = (1 << len(deviations)) - 1
    drawn = (rng.getrandbits(len(deviations)) for _ in range(resamples))
    found = (score(min(signs, signs ^ every)) for signs in drawn)
    scores = sorted(one for one in found if one is not None)
    return scores[math.ceil(confidence * len(scores)) - 1] if scores else 0.0


def _trimmed_mean(logs: list[float], cut: int) -> tuple[float, float]:
    """The mean without the `cut` smallest and largest, and its standard error."""
    ordered = sorted(logs)
    count = len(ordered)
    kept = ordered[cut : count - cut]
    clipped = [kept[0]] * cut + kept + [kept[-1]] * cut
    share = len(kept) * (len(kept) - 1)
    return fmean(kept), stdev(clipped) * math.sqrt((count - 1) / share)


def _log_ratios(below: Sequence[Block], above: Sequence[Block], name: str) -> list[float]:
    if len(below) != len(above):
        raise ValueError(
            f"a_blocks has {len(below)} blocks and {name} {len(above)}: they must pair up."
        )
    return [
        math.log(_block_figure(b, f"{name}[{i}]")) - math.log(_block_figure(a, f"a_blocks[{i}]"))
        for i, (a, b) in enumerate(zip(below, above, strict=True))
    ]


def _block_figure(block: Block, name: str) -> float:
    if not isinstance(block, int | float):
        if len(block) == 0:
            raise ValueError(f"{name} has no samples.")
        figure = median(sorted_finite(block))
    else:
        figure = block
    if not (math.isfinite(figure) and figure > 0):
        raise ValueError(f"{name} is {figure!r}: a ratio needs finite figures above 0.")
    return figure


def _exp(log: float) -> float | None:
    """The ratio of a log ratio; None where it is unbounded or too large for a float."""
    return math.exp(log) if math.isfinite(log) and log < 700 else None
