"""Measurements in a fresh Python process, which holds nothing of this one's past."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from perfkit.bench.workloads.load import ExperimentError


def run_module(
    module: str,
    *arguments: str,
    what: str,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The standard output of ``python -m module arguments``.

    Raises ExperimentError, which calls the run `what` and quotes the last line of its errors, if it
    fails or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=None if environment is None else {**environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"{what} took longer than {timeout_s:.0f} s") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ExperimentError(f"{what} failed: {reason}")
    return done.stdout
