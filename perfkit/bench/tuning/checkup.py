"""A check-up of the machine, its software, its cards and its saved results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.tuning.advice import Checkup, ranked
from perfkit.bench.tuning.cards import card_advice
from perfkit.bench.tuning.machine import CHECKS
from perfkit.bench.tuning.measures import measured_advice
from perfkit.bench.tuning.saved import FOLDERS, spec_advice
from perfkit.bench.tuning.software import software_advice
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.environment import fingerprint


def doctor(
    spec: ClusterSpec = BASELINE,
    *,
    measure: bool = False,
    results: Iterable[Path] = FOLDERS,
    root: Path = Path("/"),
    seed: int = 0,
    progress: Say | None = None,
) -> Checkup:
    """What makes figures of this machine worthless, and what would make its cluster faster.

    `spec` is the one that is used now. `results` are folders of saved results: those in them and in
    their `*/results`. With `measure` clusters run for about a minute. `root` is the folder that
    holds proc, sys and dev. Advice is ranked by its measured gain; what can't be read is unknown.
    """
    environment = fingerprint(root)
    rows = [check(root, environment, spec) for check in CHECKS]
    rows += software_advice(environment)
    rows += card_advice(root)
    rows += spec_advice(spec.name, results, environment)
    if measure:
        rows += measured_advice(spec, prefixed(progress, "doctor"), seed=seed)
    return ranked(rows, environment)
