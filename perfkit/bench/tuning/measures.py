"""Short measurements of this machine for advice that no saved result supports.

Each compares two ways on clusters that stay up and take turns, with a second arm of the first as
the A/A control. All of them together take about a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from cluster.local import LocalCluster
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import count_of
from perfkit.bench.tuning.advice import Advice, Standing
from perfkit.bench.tuning.loads import Load, make_load
from perfkit.bench.tuning.trials import ARMS, Block, gain_of, judge_arms, running
from perfkit.bench.workloads.pinning import UNPINNED, affinity_restored, apply, layouts
from perfkit.bench.workloads.rounds import Say, take_turns
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import OPTIMIZED, UNCOPIED

BLOCK_S, ROUNDS, WORKERS = 0.2, 8, 2
BUDGET_S = 60.0
#: What a verdict about another way is to the present one; the same or slower is fine.
STANDINGS = {Verdict.FASTER: Standing.ADVICE, Verdict.INCONCLUSIVE: Standing.UNKNOWN}
LATENCY: Mapping[str, Any] = {"name": "latency", "objective": "latency_p50"}
LARGE: Mapping[str, Any] = {"name": "throughput", "payload_bytes": 1 << 20, "tasks": 8}


@dataclass(frozen=True)
class Question:
    """Two ways to be compared: a name, the load, what the second way changes, and how to get it."""

    name: str
    load: Mapping[str, Any]
    changed: Callable[[ClusterSpec], ClusterSpec]
    why: str
    do: str


def _with(**values: Any) -> Callable[[ClusterSpec], ClusterSpec]:
    return lambda spec: msgspec.structs.replace(spec, **values)


QUESTIONS = (
    Question(
        "optimised spec", {"name": "throughput", "tasks": 500}, lambda _: OPTIMIZED,
        "small tasks travel together and leases are large", "--spec optimized",
    ),
    Question(
        "payloads uncopied", LARGE, _with(**UNCOPIED),
        "large frames are sent without a copy", "--set sockets.zero_copy_bytes=65536",
    ),
    Question(
        "ipc instead of tcp", LATENCY, _with(transport="ipc"),
        "processes of one machine need no TCP", "--set transport=ipc",
    ),
)  # fmt: skip


def measured_advice(
    spec: ClusterSpec, say: Say, budget_s: float = BUDGET_S, seed: int = 0
) -> Iterator[Advice]:
    """What short measurements beside the spec say; what no time is left for is unknown."""
    until_s = time.monotonic() + budget_s
    asked: list[tuple[str, Callable[[], Advice]]] = [
        (it.name, partial(_ask, it, spec, say, seed))
        for it in QUESTIONS
        if it.changed(spec) != spec
    ]
    asked.append(("pinned cores", partial(_pinned, spec, say, seed)))
    longest_s = 0.0
    for name, measure in asked:
        began_s = time.monotonic()
        if began_s + longest_s > until_s:
            yield Advice(name, Standing.UNKNOWN, None, evidence="no time was left to measure it")
            continue
        say(f"measures {name}")
        try:
            yield measure()
        except ClusterError as error:
            yield Advice(name, Standing.UNKNOWN, None, evidence=str(error).splitlines()[0])
        longest_s = max(longest_s, time.monotonic() - began_s)


def _ask(question: Question, spec: ClusterSpec, say: Say, seed: int) -> Advice:
    load = make_load(**question.load, seed=seed)
    specs = (spec, question.changed(spec), spec)
    with ExitStack() as stack:
        arms = {
            arm: stack.enter_context(running(load, one, WORKERS, BLOCK_S))
            for arm, one in zip(ARMS, specs, strict=True)
        }
        return _judged(question.name, question.why, question.do, load, arms, say, seed)


def _pinned(spec: ClusterSpec, say: Say, seed: int) -> Advice:
    """Every process on one core, for the latency of lone tasks."""
    layout, load = layouts()[0], make_load(**LATENCY, seed=seed)
    with (
        affinity_restored(),
        LocalCluster(1, spec) as local,
        local.client() as client,
    ):
        pids = [local.coordinator_pid, *(worker.pid for worker in local.workers)]

        def block(where: Any) -> float:
            apply(where, pids)
            load.warm_up(client)
            return load.block(client, BLOCK_S)

        places = dict(zip(ARMS, (UNPINNED, layout, UNPINNED), strict=True))
        arms: dict[str, Block] = {arm: partial(block, place) for arm, place in places.items()}
        return _judged(
            "pinned cores", f"{layout.name}: to wake a thread of the same core costs half",
            "taskset -c 0 perfkit cluster up --workers 1", load, arms, say, seed,
        )  # fmt: skip


def _judged(
    name: str, why: str, do: str, load: Load, arms: Mapping[str, Block], say: Say, seed: int
) -> Advice:
    """What blocks of the three arms in turns say."""

    def figure(block: Block) -> dict[str, float]:
        return {"figure": block()}

    turns = {arm: partial(figure, block) for arm, block in arms.items()}
    samples = take_turns(turns, ROUNDS, seed, load.objective.unit, say)["figure"]
    found = judge_arms(samples, load.objective.direction, seed)
    return Advice(
        name,
        STANDINGS.get(found.verdict, Standing.FINE),
        f"{found.verdict} here, {load.text}",
        why,
        do if found.verdict is Verdict.FASTER else "",
        gain_of(found),
        evidence=f"measured now in {count_of(found.blocks, 'round')}, A/A control "
        f"{found.control_text}",
    )
