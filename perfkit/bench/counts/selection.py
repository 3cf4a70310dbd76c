"""How long a policy takes to choose one of many workers.

A cluster of two workers hides the cost of a scan, so the workers are made up. They are the
scheduler's own records, and the policy is the one that the spec's coordinator would load.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

import msgspec

from cluster.core.policy import AssignmentPolicy
from cluster.core.run import Needs
from cluster.core.worker import WorkerState
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary.events import WorkerJoined
from cluster.vocabulary.task import NO_REQUIREMENTS, Gpu, GpuLoad, Load, Requirements
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import percentile_interval

KIND = "echo"
#: The workers' cards, in turn.
FAMILIES = ("polaris", "vega")
CAPACITY, CREDIT, VRAM_BYTES = 4, 8, 8 << 30
WORKERS_MAX, CHOICES_MAX = 10_000, 1_000_000
#: Scores that differ only in the last bit are a tie.
SCORE_EPSILON = 1e-9


def measure_selection(
    spec: ClusterSpec,
    *,
    workers: int = 100,
    choices: int = 2_000,
    seed: int = 0,
    requirements: Requirements = NO_REQUIREMENTS,
) -> Result:
    """Microseconds that the spec's policy takes to choose one of many workers, in this process.

    The made-up workers differ in load, have cards of alternating families, and change between
    choices. Each choice is checked: the worker has credit and meets the requirements, and if the
    policy scores workers, no eligible one scores lower. Raises ExperimentError for numbers out of
    range and for requirements that no worker meets, WrongResult for a wrong choice.
    """
    if not (1 <= workers <= WORKERS_MAX and 1 <= choices <= CHOICES_MAX):
        raise ExperimentError(
            f"selection takes 1 to {WORKERS_MAX:,} workers and 1 to {CHOICES_MAX:,} choices, "
            f"not {workers:,} and {choices:,}"
        )
    recording = Recording()
    policy: AssignmentPolicy = load_part(spec.policies)[spec.policy]()
    rng = random.Random(seed)
    roster = [_made_worker(number, rng) for number in range(workers)]
    needs: Needs = (KIND, requirements)
    eligible = [worker for worker in roster if worker.offers(*needs)]
    if not eligible:
        raise ExperimentError(f"none of {workers:,} made-up workers meets {requirements}")
    for worker in roster:
        policy.join(worker)
    took_us: list[float] = []
    for _ in range(choices):
        freed = rng.choice([worker for worker in eligible if worker.held])
        freed.held -= 1
        policy.touch(freed)
        best = _best(policy, eligible, needs)
        chosen, us = _timed_choice(policy, needs)
        if chosen.free <= 0:
            raise WrongResult(f"policy {policy.name!r} chose {chosen.id}, which has no credit left")
        if not chosen.offers(*needs):
            raise WrongResult(f"policy {policy.name!r} chose {chosen.id}, which cannot do the task")
        if best and chosen not in best:
            raise WrongResult(
                f"policy {policy.name!r} chose {chosen.id}, and {best[0].id} is better"
            )
        took_us.append(us)
        chosen.held += 1
        policy.touch(chosen)
    figure, slow = percentile_interval(took_us, 50), percentile_interval(took_us, 99)
    return recording.result(
        "selection",
        spec,
        figure,
        "µs",
        took_us,
        engine="in process",
        workers=workers,
        tasks=choices,
        seed=seed,
        parameters={"policy": policy.name, "requirements": msgspec.to_builtins(requirements)},
        counters=slow.columns("choice_us_p99"),
    )


def _made_worker(number: int, rng: random.Random) -> WorkerState:
    joined = WorkerJoined(
        worker=f"worker-{number}",
        incarnation=1,
        capacity=CAPACITY,
        credit=CREDIT,
        kinds=[KIND],
        gpus=[Gpu(family=FAMILIES[number % len(FAMILIES)], memory_bytes=VRAM_BYTES)],
    )
    worker = WorkerState(joined, epoch=1, now=0.0)
    worker.held = rng.randrange(1, worker.credit)
    busy_pct, free_bytes = rng.uniform(0, 100), rng.randrange(VRAM_BYTES)
    worker.load = Load(gpus=(GpuLoad(busy_pct=busy_pct, free_bytes=free_bytes),))
    return worker


def _timed_choice(policy: AssignmentPolicy, needs: Needs) -> tuple[WorkerState, float]:
    began_ns = time.perf_counter_ns()
    chosen = policy.choose(needs, False)
    took_us = (time.perf_counter_ns() - began_ns) / 1e3
    if chosen is None:
        raise WrongResult(f"policy {policy.name!r} chose no worker although one has credit")
    return chosen, took_us


def _best(
    policy: AssignmentPolicy, eligible: Sequence[WorkerState], needs: Needs
) -> list[WorkerState]:
    """The workers that a scoring policy may choose now; none if it does not score."""
    score = getattr(policy, "score", None)
    if score is None:
        return []
    # Before the choice, which may change the scores.
    scores = {worker.id: score(worker, needs) for worker in eligible if worker.free > 0}
    lowest = min(scores.values(), default=0.0) + SCORE_EPSILON
    return [worker for worker in eligible if scores.get(worker.id, math.inf) <= lowest]
