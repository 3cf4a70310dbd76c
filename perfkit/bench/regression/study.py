"""How often the check finds a planted slowdown, and how often it raises a false alarm.

Saves a baseline in a folder of its own, then checks by turns the same code and slower code, each by
the public command in a fresh process. The slowdowns go round all places and kinds. A line of JSON
is kept for every run, and the summary also says what times alone, without counts, would have found.

    python -m perfkit.bench.regression.study --runs 20 --out study.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

from cluster.scratch import ScratchFolder
from cluster.vocabulary.printable import count_of
from perfkit.bench.regression.judge import BAD
from perfkit.bench.regression.planted import KINDS, PLACES, plant_folder
from perfkit.evidence.verdicts import Verdict

CLEAN = "the same code"


@dataclass(frozen=True)
class StudyRun:
    """One check: what was planted, its exit code, verdicts of all figures and of times alone.

    `ratios` are those of the times, by figure; `load_1min` is the machine's at the start.
    """

    planted: str
    exit_code: int
    verdict: str
    times_alone: str
    ratios: dict[str, float]
    processes: int
    duration_s: float
    load_1min: float


def check_once(baseline: Path, planted: str, folder: Path | None = None) -> StudyRun:
    """One check of this code, slowed down by what `folder` plants; raises RuntimeError without a
    verdict.
    """
    paths = [str(folder)] if folder else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    load_1min, began_s = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "perfkit", *"baseline check --json - --against".split(), baseline],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.perf_counter() - began_s
    if done.returncode not in (0, 3, 4):
        raise RuntimeError(f"the check ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    times = [row for row in found["rows"] if row["name"].endswith("time")]
    verdicts = {row["verdict"] for row in times}
    return StudyRun(
        planted=planted,
        exit_code=done.returncode,
        verdict=found["verdict"],
        times_alone=next((str(bad) for bad in BAD if bad in verdicts), str(Verdict.SAME)),
        ratios={row["name"]: round(row["ratio"]["value"], 4) for row in times},
        processes=len(found["results"][0]["samples"]),
        duration_s=round(took_s, 1),
        load_1min=round(load_1min, 2),
    )


def summary(runs: Sequence[StudyRun]) -> list[str]:
    """What was found among planted and clean runs, as lines."""
    lines = []
    for clean in (False, True):
        arm = [run for run in runs if (run.planted == CLEAN) == clean]
        if arm:
            took = sorted(run.duration_s for run in arm)
            whole, times = (
                dict(Counter(getattr(run, field) for run in arm))
                for field in ("verdict", "times_alone")
            )
            lines += [
                f"{CLEAN if clean else 'slower code'}: {count_of(len(arm), 'run')}, {whole}; "
                f"by times alone {times}; {took[len(took) // 2]:.0f} s each, at most {took[-1]:.0f}"
            ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and print each run and the summary."""
    parser = argparse.ArgumentParser(description="Study the check of the coordinator's cost.")
    parser.add_argument("--runs", type=int, default=20, help="of each arm")
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each run")
    chosen = parser.parse_args(arguments)
    from perfkit.bench.regression.measure import measure_costs
    from perfkit.evidence.baselines import save_baseline

    runs = []
    with ScratchFolder("study-") as scratch, chosen.out.open("a") as out:
        baseline = save_baseline(measure_costs(), Path(scratch))
        plants = cycle(product(PLACES, KINDS))
        for _ in range(chosen.runs):
            place, kind = next(plants)
            folder = plant_folder(Path(scratch, f"{place}-{kind}"), place, kind)
            for planted, path in ((f"{place}, {kind}", folder), (CLEAN, None)):
                runs.append(check_once(baseline, planted, path))
                print(json.dumps(asdict(runs[-1])), file=out, flush=True)
                print(runs[-1], flush=True)
    print(*summary(runs), sep="\n")


if __name__ == "__main__":
    main()
