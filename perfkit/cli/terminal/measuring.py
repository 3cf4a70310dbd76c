"""What the commands that measure share: checked arguments, progress, the machine, the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.cli.terminal.config import SettingError, check_known
from perfkit.cli.terminal.output import err, note, write_json_text
from perfkit.evidence.text import quantity, size

if TYPE_CHECKING:
    from perfkit.evidence.environment import Environment


def check_experiment(experiment: str, tasks: int | None, engine: str, model: str | None) -> None:
    """Raise SettingError for a wrong argument before a cluster is started."""
    from cluster.models.inference import ModelRepository
    from perfkit.bench.experiments.catalogue import EXPERIMENTS
    from perfkit.engines import ENGINES

    check_known("experiment", experiment, EXPERIMENTS)
    check_known("engine", engine, ENGINES)
    if model is not None:
        check_known("model", model, ModelRepository().names())
    most = EXPERIMENTS[experiment].tasks_max
    if tasks is not None and tasks > most:
        raise SettingError(f"--tasks: {experiment} takes 1 to {most:,}, not {tasks:,}")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows progress: on one line in a terminal, else each time on a new line."""
    console = err()
    if not console.is_terminal:
        yield lambda line: print(line, file=sys.stderr, flush=True)
        return
    with console.status("starting …") as status:
        yield status.update


def deliver(json_text: Callable[[], str], show: Callable[[], None], target: Path | None) -> None:
    """Save a result where ``--json`` says and show it, unless it was printed as JSON.

    Raises:
        ResultError: the file cannot be written.
    """
    from perfkit.evidence.results import write

    if str(target) == "-":
        write_json_text(json_text())
    else:
        if target is not None:
            write(json_text(), target)
        show()
        if target is not None:
            note(f"saved to {target}")


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
