"""What the commands that measure share: progress, figures as text, and the check of arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.vocabulary.errors import did_you_mean
from perfkit.cli.config import SettingError
from perfkit.cli.output import err, size

if TYPE_CHECKING:
    from perfkit.bench.experiments.catalogue import Say
    from perfkit.evidence.environment import Environment


def machine_text(environment: Environment) -> str:
    """The machine in one line: processor, cores, memory, and how busy it was at the start."""
    cores = environment.cores_available or environment.cores_logical
    parts = [environment.cpu_model or "unknown processor"]
    parts += [f"{cores:g} cores" if cores else "cores unknown"]
    parts += [f"{size(environment.memory_total_bytes)} memory"]
    if environment.load_1min is not None:
        parts.append(f"load {environment.load_1min:.1f} at the start")
    return ", ".join(parts)


def interval_text(low: float | None, high: float | None) -> str:
    """An interval behind its figure; nothing where an end is unknown."""
    return "" if low is None or high is None else f"  [{number(low)} – {number(high)}]"


def number(value: float | int | None) -> str:
    """A figure to three digits, with its thousands apart."""
    if value is None:
        return "unknown"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


@contextmanager
def progress() -> Iterator[Say]:
    """Where progress goes: one line that changes in a terminal, line after line elsewhere."""
    console = err()
    if not console.is_terminal:
        yield lambda line: print(line, file=sys.stderr, flush=True)
        return
    with console.status("starting …") as status:
        yield status.update


def check_experiment(
    experiment: str,
    tasks: int | None,
    engine: str,
    model: str | None,
    profile: str | None = None,
) -> None:
    """Find what is wrong with the arguments before a cluster is started for them."""
    from cluster.models.inference import ModelRepository
    from perfkit.bench.experiments.catalogue import ENGINES, EXPERIMENTS

    if profile is not None:
        raise SettingError("--profile is for limits and gpu; an experiment takes --tasks")
    for what, word, known in (
        ("experiment", experiment, [*EXPERIMENTS]),
        ("engine", engine, [*ENGINES]),
        ("model", model, ModelRepository().names()),
    ):
        if word is not None and word not in known:
            hint = did_you_mean(word, known)
            raise SettingError(f"there is no {what} {word!r}; there are {', '.join(known)}{hint}")
    most = EXPERIMENTS[experiment].tasks_max
    if tasks is not None and tasks > most:
        raise SettingError(f"--tasks: {experiment} takes 1 to {most:,}, not {tasks:,}")


def check_target(target: str | None) -> None:
    """A file that can't be written should be known before the minutes are spent."""
    if target is not None and target != "-" and Path(target).is_dir():
        raise SettingError(f"--json: {target} is a directory; name a file")
