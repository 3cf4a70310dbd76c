"""Blocks of a load on living clusters, each candidate beside the spec that the search began from.

A machine that drifts does so for both: a candidate's figure is the ratio of neighbouring blocks,
and the cluster of the start stays up for them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import msgspec

from cluster.local import LocalCluster
from cluster.spec import ClusterSpec
from perfkit.bench.tuning.loads import Load
from perfkit.bench.workloads.rounds import Say, take_turns
from perfkit.evidence.samples import Interval
from perfkit.evidence.stats import Comparison, abba, compare_blocks
from perfkit.evidence.verdicts import Direction, Verdict

#: A block lasts about this long.
BLOCK_S = 0.3
#: Pairs of blocks of a candidate that may be the best.
PAIRS = 3
#: A candidate that is below this part of the best ratio gets no further pair.
HOPELESS = 0.8

#: A smaller gain is not worth a spec of its own.
MIN_GAIN = 0.05
#: The arms of a proof: what the search began from, what it found, and the former again.
ARMS = ("start", "tuned", "start again")

#: Runs a block on a running cluster and returns its figure.
Block: TypeAlias = Callable[[], float]


@dataclass
class Trial:
    """One candidate: its values by knob, and its ratio to the start in each pair of blocks.

    Ratios are above 1 if it is better. `error` says why it has none.
    """

    values: dict[str, Any]
    ratios: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of its ratios, which a hiccup does not move; None if it never ran."""
        return median(self.ratios) if self.ratios else None


@contextmanager
def running(load: Load, spec: ClusterSpec, workers: int, block_s: float) -> Iterator[Block]:
    """A fresh cluster of a spec, warmed up; gives what runs a block on it."""
    local = LocalCluster(workers, spec, models=load.work.models, handlers=load.handlers)
    with local, local.client() as client:
        load.warm_up(client)
        yield partial(load.block, client, block_s)


def measure_pairs(
    reference: Block, candidate: Block, direction: Direction, seed: int, best: float
) -> Iterator[float]:
    """Ratios of a candidate's blocks to the neighbouring ones of the reference, better above 1.

    Below HOPELESS of the `best` ratio so far there is no further pair.
    """
    arms, so_far = {"A": reference, "B": candidate}, Trial({})
    for order in abba(PAIRS, seed):
        figures = {arm: arms[arm]() for arm in order}
        ratio = figures["B"] / figures["A"]
        so_far.ratios.append(ratio if direction == "higher" else 1 / ratio)
        yield so_far.ratios[-1]
        if (so_far.ratio or 0.0) < HOPELESS * best:
            return


def confirm(
    load: Load,
    arms: Mapping[str, ClusterSpec],
    *,
    blocks: int,
    workers: int,
    seed: int,
    block_s: float,
    say: Say,
) -> dict[str, list[float]]:
    """The figures of each arm by block, in turns, each block on fresh processes."""

    def block(spec: ClusterSpec) -> dict[str, float]:
        with running(load, spec, workers, block_s) as run:
            return {load.objective.name: run()}

    turns = {name: partial(block, spec) for name, spec in arms.items()}
    samples = take_turns(turns, blocks, seed, load.objective.unit, say, warm=False)
    return samples[load.objective.name]


def gain_of(found: Comparison) -> Interval:
    """The ratio of a comparison, turned so that above 1 is better."""
    if found.direction == "higher":
        return found.factor
    value, low, high = (
        None if not end else 1 / end for end in (found.ratio, found.high, found.low)
    )
    return Interval(value, low, high, found.confidence, found.method)


def judge_arms(arms: Mapping[str, list[float]], direction: Direction, seed: int) -> Comparison:
    """The tuned arm against the start, with the start's second arm as the A/A control.

    On a machine that favours one arm a difference still counts if it lies beyond the control's
    whole interval: `compare_blocks` would leave even a factor of seven open.
    """
    before, after, again = (arms[arm] for arm in ARMS)
    found = compare_blocks(before, after, again, direction=direction, same_band=MIN_GAIN, seed=seed)
    ends = (found.low, found.high, found.aa_low, found.aa_high)
    low, high, aa_low, aa_high = (math.nan if end is None else math.log(end) for end in ends)
    margin = max(abs(aa_low), abs(aa_high), math.log1p(MIN_GAIN))
    nearest, is_higher = (low, True) if low > 0 else (-high, False)
    if found.verdict is not Verdict.INCONCLUSIVE or not nearest > margin:
        return found
    better = is_higher == (direction == "higher")
    return msgspec.structs.replace(
        found,
        verdict=Verdict.FASTER if better else Verdict.SLOWER,
        reason="the whole interval lies beyond that of the A/A control",
    )
