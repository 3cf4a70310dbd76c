"""A contest: the spec under study beside its baseline, with the sizes of the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.spec import BASELINE as BASELINE_SPEC
from cluster.spec import ClusterSpec
from perfkit.bench.goals.table import BASELINE, OPTIMIZED
from perfkit.bench.workloads.rounds import Arm, ArmSamples, Say, take_turns

S = TypeVar("S")


@dataclass(frozen=True)
class Contest(Generic[S]):
    """The spec to compare, the sizes of each block, and a listener for progress lines."""

    optimized: ClusterSpec
    sizes: S
    seed: int
    say: Say

    @property
    def specs(self) -> Mapping[str, ClusterSpec]:
        """The spec of each arm that is a cluster."""
        return {OPTIMIZED: self.optimized, BASELINE: BASELINE_SPEC}

    def take_turns(
        self, arms: Mapping[str, Arm], rounds: int, unit: str, *, warm: bool = True
    ) -> ArmSamples:
        """Run a block of every arm in each round."""
        return take_turns(arms, rounds, self.seed, unit, self.say, warm=warm)
