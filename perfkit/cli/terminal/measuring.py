"""What the commands that measure share: checked arguments, progress, the machine, the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.cli.terminal.output import STDOUT, err, note, write_json_text
from perfkit.evidence.text import quantity, size
from perfkit.optimized.knobs import SettingError, check_known

if TYPE_CHECKING:
    from rich.status import Status

    from perfkit.evidence.environment import Environment
    from perfkit.evidence.verdicts import Verdict


def check_experiment(
    experiment: str,
    tasks: int | None,
    engine: str,
    model: str | None,
    *,
    workers: int | None = None,
    profile: str = "quick",
) -> None:
    """Raise SettingError for a wrong argument before a cluster is started."""
    from cluster.models.inference import ModelRepository
    from perfkit.bench.experiments.catalogue import EXPERIMENTS
    from perfkit.bench.experiments.setting import PROFILES
    from perfkit.engines import ENGINES

    check_known("experiment", experiment, EXPERIMENTS)
    check_known("engine", engine, ENGINES)
    check_known("profile", profile, PROFILES, "--profile: ")
    if model is not None:
        check_known("model", model, ModelRepository().names())
    chosen = EXPERIMENTS[experiment]
    for name, number, most in (
        ("tasks", tasks, chosen.tasks_max),
        ("workers", workers, chosen.workers_max),
    ):
        if number is not None and number > most:
            raise SettingError(f"--{name}: {experiment} takes 1 to {most:,}, not {number:,}")
    if chosen.cluster_only and (engine != "zmq" or model is not None):
        flag = "--engine" if engine != "zmq" else "--model"
        raise SettingError(f"{flag} is not for {experiment}, which measures this cluster alone")


class Progress:
    """Shows progress: on one line in a terminal, else each time on a new line."""

    def __init__(self, status: Status | None = None) -> None:
        self._status = status

    def __call__(self, line: str) -> None:
        """Show a line, which the next one may replace."""
        if self._status is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._status.update(line)

    def keep(self, line: str) -> None:
        """Show a line that stays."""
        if self._status is None:
            self(line)
        else:
            self._status.console.print(line, markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """What shows progress during a `with` block."""
    console = err()
    if not console.is_terminal:
        yield Progress()
        return
    with console.status("starting …") as status:
        yield Progress(status)


def deliver(json_text: Callable[[], str], show: Callable[[], None], target: Path | None) -> None:
    """Save a result where ``--json`` says and show it, unless it was printed as JSON.

    Raises:
        ResultError: the file cannot be written.
    """
    if target is not None:
        write_json_text(json_text(), target)
    if target != STDOUT:
        show()
        if target is not None:
            note(f"saved to {target}")


def gate_code(verdict: Verdict) -> int:
    """The exit code of ``--gate``: that of a regression for slower, or of inconclusive; else 0."""
    from perfkit.evidence.verdicts import Verdict
    from perfkit.report import ExitCode

    codes = {Verdict.SLOWER: ExitCode.REGRESSION, Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE}
    return int(codes.get(verdict, ExitCode.DONE))


def machine_text(environment: Environment) -> str:
    """The machine in one line: processor, cores, memory, and what else used it at the start."""
    cores = environment.cores_available or environment.cores_logical
    parts = [
        environment.cpu_model or "unknown processor",
        f"{quantity(cores)} cores",
        f"{size(environment.memory_total_bytes)} memory",
    ]
    if environment.load_1min is not None:
        parts.append(f"load {environment.load_1min:.1f} at the start")
    return ". ".join(filter(None, [", ".join(parts), environment.busy_words]))
