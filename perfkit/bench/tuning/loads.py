"""The loads that a spec is tuned for, each with the figures that it gives.

A load is repeated until a block of time is over, so that a fast spec gets as much evidence as a
slow one. Every result is checked, and the time of one that was wrong never counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from cluster.shells.client import Client
from cluster.vocabulary.errors import did_you_mean
from cluster.vocabulary.printable import count_of
from perfkit.bench.tuning.recorded import read_recording
from perfkit.bench.workloads.load import (
    PAYLOAD_BYTES,
    ExperimentError,
    Work,
    burst_ms,
    echo_work,
    map_s,
    one_by_one_ms,
    submit_s,
)
from perfkit.bench.workloads.mixed import mixed_load, open_loop_ms
from perfkit.bench.workloads.served import INPUTS, model_work
from perfkit.evidence.samples import percentile
from perfkit.evidence.verdicts import Direction


class NoSuchLoad(ExperimentError):
    """A load that there is not; the message is one sentence."""


@dataclass(frozen=True)
class Objective:
    """One figure of a block: how it follows from the samples, and which direction is better."""

    name: str
    unit: str
    direction: Direction
    of: Callable[[Sequence[float]], float]


def _percentile_of(q: float, samples: Sequence[float]) -> float:
    found = percentile(samples, q)
    assert found is not None, "a block has samples"
    return found


THROUGHPUT = Objective("throughput", "tasks/s", "higher", median)
LATENCIES = tuple(
    Objective(f"latency_p{q}", "ms", "lower", partial(_percentile_of, q)) for q in (95, 50, 99)
)
#: The kind of load whose tasks are in a file.
RECORDED = "recorded"
HANDLERS = "cluster.work.workloads:HANDLERS"
LAST = Objective("last_result", "ms", "lower", partial(_percentile_of, 100))


@dataclass(frozen=True)
class Kind:
    """A kind of load: what it is, its number of tasks, its objectives (the first is its own), and
    what runs it once and returns samples; None for one that has work of its own.
    """

    help: str
    tasks: int
    objectives: tuple[Objective, ...]
    samples: Callable[[Client, Work], list[float]] | None


def _map_rates(client: Client, work: Work) -> list[float]:
    return [len(work) / map_s(client, work)]


def _submit_rates(client: Client, work: Work) -> list[float]:
    return [len(work) / submit_s(client, work)]


KINDS: Mapping[str, Kind] = {
    "throughput": Kind("maps that keep every worker busy", 2_000, (THROUGHPUT,), _map_rates),
    "submission": Kind("tasks submitted one by one", 1_000, (THROUGHPUT,), _submit_rates),
    "latency": Kind("one task in flight", 100, LATENCIES, one_by_one_ms),
    "burst": Kind("many tasks submitted at once", 500, (LAST, *LATENCIES), burst_ms),
    "mixed": Kind("quick tasks at random times, one in a hundred slow", 200, LATENCIES, None),
    RECORDED: Kind("tasks of a file, sent again as they came", 0, (*LATENCIES, LAST), None),
}


@dataclass(frozen=True)
class Load:
    """A kind of load with its work, its objective, what runs some of the work once, and the
    handlers that do it: a registry by name, or functions. All of it once takes `once_s`, if known.
    """

    name: str
    objective: Objective
    work: Work
    samples: Callable[[Client, Work], list[float]]
    handlers: str | Mapping[str, Callable[..., Any]] = HANDLERS
    once_s: float = 0.0

    @property
    def text(self) -> str:
        """The load in words: `burst, last_result: 500 tasks of echo, payload_bytes 200`."""
        facts = "".join(f", {name} {value}" for name, value in self.work.facts.items())
        figure = "" if self.objective.name == self.name else f", {self.objective.name}"
        return f"{self.name}{figure}: {count_of(len(self.work), 'task')} of {self.work.kind}{facts}"

    def warm_up(self, client: Client) -> None:
        """Run a quarter of the work, which does not count."""
        self.samples(client, self.work.part(0, max(1, len(self.work) // 4)))

    def block(self, client: Client, block_s: float) -> float:
        """The objective over as many repetitions as begin within `block_s`."""
        until_s = time.perf_counter() + block_s
        samples: list[float] = []
        while not samples or time.perf_counter() < until_s:
            samples += self.samples(client, self.work)
        return self.objective.of(samples)


def _mixed_ms(seed: int, client: Client, work: Work) -> list[float]:
    """Latencies of the quick tasks, from when each was to be sent."""
    return open_loop_ms(client, mixed_load(len(work), seed), workers=1, free=0)


def make_load(
    name: str = "throughput",
    *,
    objective: str | None = None,
    tasks: int | None = None,
    payload_bytes: int | None = None,
    model: str | None = None,
    recording: Path | None = None,
    handlers: str = HANDLERS,
    seed: int = 0,
) -> Load:
    """A load by the name of its kind; `tasks` and `objective` None take the kind's own.

    `payload_bytes` is the size of payloads to echo; with a `model` its inputs are the work. The
    kind "recorded" sends the tasks of a `recording` again (see `perfkit.bench.tuning.recorded`), to
    `handlers`, a registry as ``"module:attribute"``. Raises NoSuchLoad for an unknown name or
    objective, and for work that the kind does not take, and what `echo_work`, `model_work` and
    `read_recording` raise.
    """
    kind, chosen = kind_of(name, objective)
    if (name == RECORDED) != (recording is not None):
        raise NoSuchLoad(f"the workload {RECORDED} takes a recording, and no other does")
    if kind.samples is None and (model, payload_bytes) != (None, None):
        raise NoSuchLoad(f"{name} has tasks of its own: it takes no model and no payload size")
    if recording is not None:
        recorded = read_recording(recording, seed, tasks)
        return Load(name, chosen, recorded.work, recorded.latencies_ms, handlers)
    work = _work(kind, kind.tasks if tasks is None else tasks, payload_bytes, model, seed)
    return Load(name, chosen, work, kind.samples or partial(_mixed_ms, seed), handlers)


def kind_of(name: str, objective: str | None = None) -> tuple[Kind, Objective]:
    """A kind of load, and one of its objectives, its own if none is named.

    Raises NoSuchLoad for an unknown name of either.
    """
    kind = KINDS.get(name)
    if kind is None:
        hint = did_you_mean(name, KINDS)
        raise NoSuchLoad(f"no workload {name!r}; there are {', '.join(KINDS)}{hint}")
    by_name = {one.name: one for one in kind.objectives}
    if objective is not None and objective not in by_name:
        raise NoSuchLoad(f"{name} has no objective {objective!r}; it has {', '.join(by_name)}")
    return kind, by_name[objective] if objective else kind.objectives[0]


def _work(kind: Kind, tasks: int, payload_bytes: int | None, model: str | None, seed: int) -> Work:
    if kind.samples is None:
        return mixed_load(tasks, seed).work
    if model is None:
        return echo_work(tasks, seed, payload_bytes or PAYLOAD_BYTES)
    if model not in INPUTS:
        raise NoSuchLoad(f"no inputs are known for model {model!r}; take {', '.join(INPUTS)}")
    return model_work(model, tasks, seed)
