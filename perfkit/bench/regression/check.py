"""The check of this code against a baseline, as `make bench-check` and `perfkit report` run it."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.bench.regression.judge import BAD, GateTable, judge_runs
from perfkit.bench.regression.measure import BATCH, EXPERIMENT, Costs
from perfkit.bench.workloads.rounds import Say
from perfkit.evidence.baselines import Baseline
from perfkit.evidence.environment import machine_differences
from perfkit.evidence.results import Result, ResultError, encode_fields
from perfkit.evidence.verdicts import Verdict

#: A figure that is not clearly as good as its baseline is measured again, up to this many batches.
BATCHES_MAX = 3
#: Raised when a field of the JSON changes its meaning.
SCHEMA = 1


@dataclass(frozen=True)
class Check:
    """A check: its table of figures, the results measured now, and how the machines differ."""

    table: GateTable
    results: list[Result]
    other_machine: tuple[str, ...]

    def encode(self) -> str:
        """JSON with one top-level field per line: the verdict, every row, the raw results."""
        return encode_fields(
            {
                "schema": SCHEMA,
                "verdict": self.table.verdict,
                "sentence": self.table.sentence,
                "other_machine": self.other_machine,
                "rows": self.table.rows,
                "results": self.results,
            }
        )


def check(baseline: Baseline, say: Say | None = None) -> Check:
    """Measure now and judge by the baseline; takes about 15 s, and up to 30 s in doubt.

    A first batch of fresh processes settles a run that is clearly as good. Otherwise more are
    measured, and all together are judged, until two judgements in a row see a regression or
    BATCHES_MAX have been measured. On another machine times do not gate, and one batch is measured.

    Raises ResultError for a baseline without costs, ExperimentError if a process fails, WrongResult
    if a result was wrong.
    """
    before = baseline.of(EXPERIMENT)
    if not before:
        raise ResultError(
            "The baseline has no cost of the coordinator to compare with; "
            "`perfkit baseline save` measures it."
        )
    costs = Costs(say)
    differences = machine_differences(baseline.environment, costs.environment)
    costs.add(BATCH)
    table = judge_runs(before, costs.results())
    for _ in range(0 if differences else BATCHES_MAX - 1):
        if table.verdict not in BAD:
            break
        last = table.verdict
        costs.add(BATCH)
        table = judge_runs(before, costs.results())
        if last is table.verdict is Verdict.REGRESSION:
            break
    return Check(table, costs.results(), tuple(differences))
