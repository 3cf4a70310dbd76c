"""Whether figures measured now are worse than those of a baseline, figure by figure.

Two runs days apart are not interleaved, so the interval of a ratio has two parts: what differs
between fresh processes, seen in both runs, and what differs between two runs of the same code,
which neither shows. The second, BETWEEN_RUNS, is from a study of one code in many runs on an idle
and on a busy machine; see `perfkit.bench.regression.study` and reports/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from cluster.vocabulary.printable import count_of
from perfkit.evidence.environment import machine_differences
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import Verdict

#: A ratio up to 1 plus this is no regression; 10 % has to be found, and this is about half of it.
BAND = 0.05
#: Standard deviation between runs of the same code, of a figure's logarithm.
BETWEEN_RUNS = 0.008
CONFIDENCE = 0.95
#: Fewer fresh processes than this tell nothing of what differs between them.
PROCESSES_MIN = 4
#: Growth of a count that is a regression. Counts are exact; blocks and bytecodes follow from Python
#: too, and a bytecode more is no slowdown.
COUNT_BANDS: Mapping[str, float] = {"bytecodes_per_task": BAND, "blocks_per_queued_task": 0.02}
COUNT_BAND = 0.001
#: Counts that depend on the minor version of Python.
OF_PYTHON = ("allocations_per_task", "blocks_per_queued_task", "bytecodes_per_task")
BAD = (Verdict.REGRESSION, Verdict.INCONCLUSIVE)


@dataclass(frozen=True)
class GateRow:
    """A figure now beside its baseline: `ratio` is now over the baseline, above 1 is worse.

    A row that does not gate is shown, but decides nothing; `reason` says why, or why its verdict
    is what it is.
    """

    name: str
    unit: str
    baseline: float | None
    now: float | None
    ratio: Interval
    verdict: Verdict
    reason: str
    gates: bool = True


class GateTable(ResultTable[GateRow]):
    """Every figure of a check."""

    @property
    def verdict(self) -> Verdict:
        """REGRESSION if one figure is, else INCONCLUSIVE if one is, else SAME."""
        found = {row.verdict for row in self.rows if row.gates}
        return next((verdict for verdict in BAD if verdict in found), Verdict.SAME)

    @property
    def sentence(self) -> str:
        """The outcome in one sentence, which names the figures that decide it."""
        gating = [row for row in self.rows if row.gates]
        if self.verdict is Verdict.SAME:
            return f"no regression in {count_of(len(gating), 'figure')}"
        named = "; ".join(row.name for row in gating if row.verdict is self.verdict)
        return f"{self.verdict}: {named}"

    def _sheets(self) -> Iterator[Sheet]:
        cells = [(row.name, *texts(row), str(row.verdict), row.reason) for row in self.rows]
        header = ("figure", "baseline", "now", "now / baseline", "verdict", "why")
        yield Sheet(self.sentence, header, cells)

    def _figures(self) -> Figures:
        return "×", [(row.name, row.ratio) for row in self.rows]


def texts(row: GateRow) -> tuple[str, str, str]:
    """A row's baseline, figure and ratio as people write them."""
    return quantity(row.baseline, row.unit), quantity(row.now, row.unit), row.ratio.text()


def judge_runs(baseline: Sequence[Result], now: Sequence[Result]) -> GateTable:
    """Judge the costs measured now by those of a baseline.

    A result belongs to the one of its spec and load. Times gate only on the baseline's machine,
    counts of allocations and bytecodes only with its minor version of Python, messages and bytes
    everywhere. A figure without a partner is inconclusive.
    """
    partners = {_key(result): result for result in baseline}
    rows: list[GateRow] = []
    for result in now:
        before = partners.pop(_key(result), None)
        rows.append(_time_row(before, result))
        rows += _count_rows(before, result)
    rows += [_lost(result) for result in partners.values()]
    return GateTable(tuple(rows))


def _key(result: Result) -> tuple[str, str]:
    return result.spec, str(result.parameters.get("load"))


def _name(result: Result) -> str:
    return f"{result.spec}, {result.parameters.get('load')}"


def _time_row(before: Result | None, now: Result) -> GateRow:
    name = f"{_name(now)}: coordinator time"
    if before is None:
        return _alone(name, now.unit, now.value)
    ratio = ratio_of_runs(before.samples, now.samples)
    if different := machine_differences(before.environment, now.environment):
        verdict, why = Verdict.MEASURED, f"another machine ({'; '.join(different)})"
    elif _yardstick(before) != _yardstick(now):
        verdict, why = Verdict.INCONCLUSIVE, "measured by another yardstick: save a new baseline"
    else:
        verdict, why = judge_ratio(ratio)
    gates = verdict is not Verdict.MEASURED
    return GateRow(name, now.unit, before.value, now.value, ratio, verdict, why, gates)


def _yardstick(result: Result) -> tuple[object, ...]:
    return result.unit, result.tasks, result.parameters.get("reference_version")


def ratio_of_runs(before: Sequence[float], now: Sequence[float]) -> Interval:
    """The ratio of two runs' medians with its interval, both of fresh processes.

    The error of a median is 1.253 deviations over √n, the deviation 1.483 times the median absolute
    one (P. Huber, "Robust Statistics", 1981): now and then a process is off by a tenth.
    """
    method = "medians of fresh processes, with the deviation between runs"
    logs = [[math.log(sample) for sample in samples if sample > 0] for samples in (before, now)]
    if min(map(len, logs)) < PROCESSES_MIN:
        value = math.exp(median(logs[1]) - median(logs[0])) if all(logs) else None
        return Interval(value, None, None, CONFIDENCE, "too few processes")
    variance = 2 * BETWEEN_RUNS**2
    for found in logs:
        middle = median(found)
        deviation = 1.483 * median(abs(log - middle) for log in found)
        variance += (1.253 * deviation) ** 2 / len(found)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance)
    ratio = median(logs[1]) - median(logs[0])
    return Interval(
        math.exp(ratio), math.exp(ratio - half), math.exp(ratio + half), CONFIDENCE, method
    )


def judge_ratio(ratio: Interval) -> tuple[Verdict, str]:
    """The verdict on a ratio of times, now over before, and why."""
    value, low, high = ratio.value, ratio.low, ratio.high
    if value is None or low is None or high is None:
        return Verdict.INCONCLUSIVE, f"fewer than {PROCESSES_MIN} fresh processes in a run"
    band = f"{BAND:.0%}"
    if value > 1 + BAND and low > 1:
        return Verdict.REGRESSION, f"more than {band} slower, and the interval excludes 1"
    if high < 1:
        return Verdict.FASTER, "the whole interval lies below 1: save a new baseline to keep it"
    if high <= 1 + BAND:
        return Verdict.SAME, f"the whole interval lies below {band} slower"
    return Verdict.INCONCLUSIVE, f"the interval reaches beyond {band} slower"


def _count_rows(before: Result | None, now: Result) -> list[GateRow]:
    known: Mapping[str, float | int | None] = {} if before is None else before.counters
    rows = []
    for counter in dict.fromkeys([*known, *now.counters]):
        if counter.endswith(("_per_task", "_per_queued_task")):
            other_python = before is not None and (
                before.environment.python_minor != now.environment.python_minor
            )
            gates = not (other_python and counter in OF_PYTHON)
            rows.append(
                _count_row(
                    _name(now), counter, known.get(counter), now.counters.get(counter), gates
                )
            )
    return rows


def _count_row(
    name: str, counter: str, before: float | None, now: float | None, gates: bool
) -> GateRow:
    name, unit = f"{name}: {counter.replace('_', ' ')}", ""
    if before is None or now is None:
        missing = "the baseline" if before is None else "this run"
        why = f"not counted in {missing}"
        return GateRow(name, unit, before, now, _exactly(None), Verdict.MEASURED, why, gates=False)
    ratio = _exactly(now / before if before else (1.0 if now == before else None))
    if not gates:
        why = "another version of Python, so it does not gate"
        return GateRow(name, unit, before, now, ratio, Verdict.MEASURED, why, gates=False)
    band = COUNT_BANDS.get(counter, COUNT_BAND)
    if now > before * (1 + band):
        return GateRow(name, unit, before, now, ratio, Verdict.REGRESSION, "the count has grown")
    return GateRow(name, unit, before, now, ratio, Verdict.SAME, f"within {band:.1%}, or less")


def _exactly(ratio: float | None) -> Interval:
    return Interval(ratio, None, None, CONFIDENCE, "exact count")


def _alone(name: str, unit: str, now: float | None) -> GateRow:
    why = "the baseline has no such figure: save a new one"
    return GateRow(name, unit, None, now, _exactly(None), Verdict.INCONCLUSIVE, why)


def _lost(before: Result) -> GateRow:
    why = "the baseline has this figure, and it is no longer measured"
    name = f"{_name(before)}: coordinator time"
    return GateRow(name, before.unit, before.value, None, _exactly(None), Verdict.INCONCLUSIVE, why)
