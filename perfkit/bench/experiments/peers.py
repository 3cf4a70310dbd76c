"""The same tasks on this cluster and on its alternatives.

Each engine gets the same work through the same protocol and experiments, one after the other,
because they differ by factors, not percents. Single tasks are like for like, a map is not (see
`fairness`). An engine whose packages are missing, or that does not
start here, has a row that says so.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.experiments.catalogue import run
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say
from perfkit.engines import ENGINES
from perfkit.engines.base import COLUMN_TASKS_MAX
from perfkit.evidence.results import Result
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.tables import data_frame
from perfkit.optimized.specs import OPTIMIZED

if TYPE_CHECKING:
    import pandas as pd

CLUSTER = "zmq"
#: Experiments that hand in tasks one by one, and those that leave it to the engine's own map.
SINGLE_TASKS = frozenset({"submission", "latency", "load", "burst"})
MAPS = frozenset({"throughput"})


class Amount(NamedTuple):
    """An experiment and its number of tasks."""

    experiment: str
    tasks: int


@dataclass(frozen=True)
class PeerRow:
    """One engine's results by experiment; `reason` says why it could not run."""

    name: str
    results: Mapping[str, Result] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class PeerTable(ResultTable[PeerRow]):
    """Every engine, the cluster once for each of its specs."""

    experiments: tuple[str, ...]

    @property
    def results(self) -> dict[str, Result]:
        """Every result, under a name for a file: "burst-zmq-optimized"."""
        return {
            f"{experiment}-{row.name.replace(' ', '-')}": result
            for row in self.rows
            for experiment, result in row.results.items()
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for each engine and experiment; one without a result has its reason."""
        return data_frame(
            {
                "engine": row.name,
                "experiment": name,
                **{part: getattr(found, part, None) for part in ("value", "low", "high", "unit")},
                "reason": row.reason,
            }
            for row in self.rows
            for name in self.experiments
            for found in [row.results.get(name)]
        )

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            "The same tasks on every engine (medians, 95 % intervals)",
            ("engine", *self.experiments),
            [(row.name, *(_cell(row, name) for name in self.experiments)) for row in self.rows],
            fairness(self.experiments),
        )

    def _figures(self) -> Figures:
        name = self.experiments[0]
        found = [(row.name, row.results[name]) for row in self.rows if name in row.results]
        return found[0][1].unit if found else "", found


def fairness(experiments: Sequence[str]) -> list[str]:
    """What may be compared between engines, a sentence for each kind of experiment."""
    single = [name for name in experiments if name in SINGLE_TASKS]
    mapped = [name for name in experiments if name in MAPS]
    notes = []
    if single:
        notes.append(
            f"{', '.join(single)}: like for like. Each engine is handed the same single tasks."
        )
    if mapped:
        notes.append(
            f"{', '.join(mapped)}: a map, not like for like. The cluster places, retries and "
            f"cancels each task; a peer gets columns of up to {COLUMN_TASKS_MAX:,} tasks and "
            "does so with a whole column."
        )
    return notes


def measure_peers(
    amounts: Sequence[Amount],
    *,
    workers: int = 2,
    seed: int = 0,
    specs: Sequence[ClusterSpec] = (BASELINE, OPTIMIZED),
    engines: Sequence[str] = tuple(ENGINES),
    progress: Say | None = None,
) -> PeerTable:
    """Run the experiments on each engine, on the cluster once for each spec.

    Raises WrongResult for a wrong result on any engine, and what this cluster raises; a peer that
    cannot run is a row that says why.
    """
    rows = []
    with _quiet():
        for engine in engines:
            for spec in specs if engine == CLUSTER else specs[:1]:
                results: dict[str, Result] = {}
                reason = ""
                try:
                    for experiment, tasks in amounts:
                        results[experiment] = run(
                            experiment, spec=spec, engine=engine, workers=workers, tasks=tasks,
                            seed=seed, progress=progress,
                        )  # fmt: skip
                except ExperimentError:
                    raise
                except ClusterError as error:
                    if engine == CLUSTER:
                        raise
                    reason = str(error).splitlines()[0]
                name = f"{engine} {spec.name}" if engine == CLUSTER else engine
                rows.append(PeerRow(name, results, reason))
    return PeerTable(tuple(rows), tuple(amount.experiment for amount in amounts))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the peers' hints for notebooks, which would be in every report."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cell(row: PeerRow, experiment: str) -> str:
    result = row.results.get(experiment)
    if result is None:
        return f"unknown: {row.reason}"
    return result.figure_text
