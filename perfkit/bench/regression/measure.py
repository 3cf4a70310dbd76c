"""Measures the figures of the gate: the coordinator's cost in fresh processes, and its counts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from perfkit.bench.counts.gate import PYTHON, TRACING, count_afresh
from perfkit.bench.counts.per_task import CountTable, count_specs
from perfkit.bench.regression.cost import CASES, CostSample
from perfkit.bench.regression.reference import VERSION
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed, run_module
from perfkit.evidence.environment import Environment
from perfkit.evidence.results import Recording, Result, ResultError, load, save
from perfkit.evidence.samples import bootstrap_interval
from perfkit.evidence.text import quantity

EXPERIMENT = "coordinator_cost"
UNIT = "reference loads"
#: Fresh processes of one batch, and of a baseline.
BATCH, BASELINE_PROCESSES = 5, 15
#: A busy machine takes several times the second that a process needs.
PROCESS_TIMEOUT_S = 120.0


class Costs:
    """Measured costs, to which more fresh processes can be added; `results` are all so far."""

    def __init__(self, say: Say | None = None) -> None:
        self._say = prefixed(say, "coordinator cost")
        self._recording = Recording()
        self._samples: list[dict[str, CostSample]] = []
        self._counts, self._reason = _counts(self._say)

    @property
    def environment(self) -> Environment:
        """The machine as it was at the start."""
        return self._recording.environment

    def add(self, processes: int) -> None:
        """Sample every figure in this many more fresh processes.

        Raises ExperimentError if one fails, WrongResult if a result was wrong.
        """
        for _ in range(processes):
            printed = run_module(
                "perfkit.bench.regression.cost",
                what="a sample of the coordinator's cost",
                timeout_s=PROCESS_TIMEOUT_S,
                environment=_plain_environment(),
            )
            self._samples.append(msgspec.json.decode(printed, type=dict[str, CostSample]))
            first = next(iter(self._samples[-1].values()))
            self._say(
                f"process {len(self._samples)}, {quantity(first.us_per_task, 'µs/task')} of "
                f"{CASES[0].name}"
            )

    def results(self) -> list[Result]:
        """A result for each spec and load, whose samples are those of the fresh processes."""
        return [self._result(number) for number in range(len(CASES))]

    def _result(self, number: int) -> Result:
        case = CASES[number]
        samples = [sample[case.name] for sample in self._samples]
        counters: dict[str, float | int | None] = {**self._counts[case.spec.name][case.load]}
        counters["bytecodes_per_task"] = _one({sample.bytecodes_per_task for sample in samples})
        return self._recording.result(
            EXPERIMENT,
            case.spec,
            bootstrap_interval([sample.cost for sample in samples]),
            UNIT,
            [sample.cost for sample in samples],
            engine="in process",
            workers=2,
            tasks=case.shape.tasks,
            seed=0,
            parameters={
                "load": case.load, "reference_version": VERSION, "no_allocations": self._reason
            },
            counters=counters,
            series={"us_per_task": [sample.us_per_task for sample in samples]},
        )  # fmt: skip


def measure_costs(processes: int = BASELINE_PROCESSES, say: Say | None = None) -> list[Result]:
    """The figures of the gate, from this many fresh processes, with their counts.

    Raises ExperimentError if a process fails, WrongResult if a result was wrong.
    """
    costs = Costs(say)
    costs.add(processes)
    return costs.results()


def save_costs(results: Iterable[Result], folder: Path) -> None:
    """Save results where `results_of_run` finds them."""
    for result in results:
        save(result, folder / f"{EXPERIMENT}-{result.spec}-{result.parameters['load']}.json")


def results_of_run(run: Path) -> list[Result]:
    """The costs that a run of `perfkit report` has measured, from its folder.

    Raises ResultError if the folder holds none.
    """
    folder = run / "results"
    found = [load(path) for path in sorted(folder.glob(f"{EXPERIMENT}*.json"))]
    if not found:
        raise ResultError(
            f"{folder} has no {EXPERIMENT}*.json: only a run of `perfkit report --against` "
            "measures it; `perfkit baseline save` without a folder measures now."
        )
    return found


def _counts(say: Say) -> tuple[CountTable, str | None]:
    """The counts of the gate; without memray, none of allocations, and the reason."""
    say("counting messages, bytes and allocations")
    try:
        afresh = count_afresh()
    except ExperimentError as error:
        return count_specs(), str(error)
    allocated = afresh.by_python[PYTHON].counts
    return {
        spec: {load: {**found, **allocated[spec][load]} for load, found in loads.items()}
        for spec, loads in afresh.everywhere.items()
    }, None


def _plain_environment() -> Mapping[str, str]:
    """This environment without what traces, and with hashes that repeat."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TRACING)}
    return {**kept, "PYTHONHASHSEED": "0"}


def _one(values: set[float]) -> float | None:
    """The value that all agree on; None if they differ, because then it is no count."""
    return values.pop() if len(values) == 1 else None
