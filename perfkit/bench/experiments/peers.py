"""The same tasks on this cluster and on what people use instead of it.

Each engine gets the same work through the same protocol, by the same experiments, one after the
other: what separates them are factors, not percents. An engine whose packages are missing, or that
does not come up here, has a row that says so.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.experiments.catalogue import ExperimentError, run
from perfkit.engines import ENGINES
from perfkit.evidence.results import Result
from perfkit.evidence.tables import html_table
from perfkit.optimized.specs import OPTIMIZED

CLUSTER = "zmq"


class Amount(NamedTuple):
    """An experiment and how many tasks it gets."""

    experiment: str
    tasks: int


@dataclass(frozen=True)
class PeerRow:
    """One engine's results by experiment; none of them where it could not run, as `reason` says."""

    name: str
    results: Mapping[str, Result] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class PeerTable:
    """Every engine there is, the cluster once for each of its specs."""

    rows: tuple[PeerRow, ...]
    experiments: tuple[str, ...]

    @property
    def results(self) -> dict[str, Result]:
        """Every result, under a name for a file: "burst-zmq-optimized"."""
        return {
            f"{experiment}-{row.name.replace(' ', '-')}": result
            for row in self.rows
            for experiment, result in row.results.items()
        }

    def _repr_html_(self) -> str:
        return html_table(
            "The same tasks on every engine (medians, 95 % intervals)",
            ("engine", *self.experiments),
            [(row.name, *(_cell(row, name) for name in self.experiments)) for row in self.rows],
        )


def measure_peers(
    amounts: Sequence[Amount],
    *,
    workers: int = 2,
    seed: int = 0,
    specs: Sequence[ClusterSpec] = (BASELINE, OPTIMIZED),
    engines: Sequence[str] = tuple(ENGINES),
    progress: Callable[[str], None] | None = None,
) -> PeerTable:
    """Run the experiments on each engine, on the cluster once for each spec.

    Raises WrongResult when a task came back wrong, on whichever engine, and what this cluster
    raises; a peer that cannot run is a row that says why.
    """
    rows = []
    with _quiet():
        for engine in engines:
            for spec in specs if engine == CLUSTER else specs[:1]:
                name = f"{engine} {spec.name}" if engine == CLUSTER else engine
                rows.append(_measure(name, engine, spec, amounts, workers, seed, progress))
    return PeerTable(tuple(rows), tuple(amount.experiment for amount in amounts))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the peers' hints on how to use them in a notebook, which would be in every report."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _measure(
    name: str,
    engine: str,
    spec: ClusterSpec,
    amounts: Sequence[Amount],
    workers: int,
    seed: int,
    progress: Callable[[str], None] | None,
) -> PeerRow:
    results = {}
    try:
        for experiment, tasks in amounts:
            result = run(
                experiment,
                spec=spec,
                engine=engine,
                workers=workers,
                tasks=tasks,
                seed=seed,
                progress=progress,
            )
            results[experiment] = result
    except ExperimentError:
        raise
    except ClusterError as error:
        if engine == CLUSTER:
            raise
        return PeerRow(name, results, str(error).splitlines()[0])
    return PeerRow(name, results)


def _cell(row: PeerRow, experiment: str) -> str:
    result = row.results.get(experiment)
    if result is None:
        return f"unknown: {row.reason}"
    ends = [
        "unknown" if end is None else f"{end:,.4g}" if end < 1_000 else f"{end:,.0f}"
        for end in (result.value, result.low, result.high)
    ]
    return f"{ends[0]} {result.unit} ({ends[1]}\u00a0to\u00a0{ends[2]})"
