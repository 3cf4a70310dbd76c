"""A planted slowdown is in the coordinator's path, does its work, and changes no answer."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from perfkit.bench.regression.cost import CASES
from perfkit.bench.regression.planted import KINDS, PLACES, plant_folder
from perfkit.bench.regression.study import CLEAN, StudyRun, summary

ROOT = Path(__file__).parents[4]
#: Replays every case, which checks the answers, and prints how often a debt was paid.
#: The cost of the wrappers is left out: a busy machine may measure it as more than the share.
REPLAY = """
from sitecustomize import DEBT
from perfkit.bench.regression.cost import CASES, Replay
paid, spend = [], DEBT.spend
DEBT.spend = lambda until_ns: (paid.append(until_ns), spend(until_ns))
DEBT.own_ns = 0.0
for case in CASES:
    paid.clear()
    Replay(case).run()
    print(len(paid))
"""


@pytest.mark.parametrize(("place", "kind"), [*product(PLACES, KINDS)])
def test_a_slowdown_is_paid_in_both_specs(place: str, kind: str, tmp_path: Path) -> None:
    folder = plant_folder(tmp_path / "planted", place, kind, share=0.5)
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    payments = [int(line) for line in done.stdout.split()]
    assert len(payments) == len(CASES)
    assert all(payments)


def test_the_summary_counts_both_arms_and_times_alone() -> None:
    def run(planted: str, verdict: str, times: str) -> StudyRun:
        return StudyRun(planted, 0, verdict, times, {}, 5, 12.0, 1.0)

    lines = summary(
        [
            run("decode, c", "regression", "same"),
            run("encode, c", "regression", "regression"),
            run(CLEAN, "same", "same"),
        ]
    )
    assert lines == [
        "slower code: 2 runs, {'regression': 2}; by times alone {'same': 1, 'regression': 1}; "
        "12 s each, at most 12",
        "the same code: 1 run, {'same': 1}; by times alone {'same': 1}; 12 s each, at most 12",
    ]
