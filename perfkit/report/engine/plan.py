"""A checked request for a report: what to run, with what, and how to ask for it again.

Every mistake in what the caller asked for is found here, before the first kernel starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from perfkit.evidence.environment import fingerprint
from perfkit.report.engine.notebook import Notebook, read_notebook, shown_path
from perfkit.report.engine.outcome import ReportError
from perfkit.report.engine.parameters import resolve

#: The folder of results inside a run's folder.
RESULTS = "results"
DEFAULT_OUT_ROOT = Path("reports")
DEFAULT_CELL_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `injected` holds each notebook's parameters by its name.

    `command` is the argv that asks for the same again, `environment` the machine's fingerprint as
    JSON values, `started` is in UTC. `warning` says what else used the machine then.
    """

    notebooks: tuple[Notebook, ...]
    injected: Mapping[str, Mapping[str, object]]
    profile: str
    cell_timeout_s: float | None
    gate: bool
    command: tuple[str, ...]
    environment: Mapping[str, Any]
    started: datetime
    warning: str = ""

    @property
    def commit(self) -> str:
        """The short commit of the code that runs, `nocommit` outside a checkout."""
        return str(self.environment.get("git_commit") or "nocommit")[:10]

    @property
    def run_name(self) -> str:
        return f"{self.started:%Y%m%dT%H%M%SZ}-{self.commit}-{self.profile}"


def make_plan(
    paths: Sequence[Path],
    profile: str,
    parameters: Mapping[str, object],
    out_root: Path,
    cell_timeout_s: float | None,
    gate: bool,
) -> Plan:
    """The checked plan of a run, for the arguments of `run_report`; raises ReportError."""
    _check_arguments(paths, profile, cell_timeout_s)
    _check_text(*(str(path.resolve()) for path in (*paths, out_root)), *parameters.values())
    notebooks = tuple(map(read_notebook, paths))
    declared = {notebook.name: notebook.parameters for notebook in notebooks}
    injected = resolve(declared, parameters, {"profile": profile, "out_dir": RESULTS})
    pinned = dict(parameters)
    seeds = {found["seed"].default for found in declared.values() if "seed" in found}
    if len(seeds) == 1:
        pinned.setdefault("seed", seeds.pop())
    again = rerun_command(
        paths, profile, pinned, out_root, cell_timeout_s=cell_timeout_s, gate=gate
    )
    machine = fingerprint()
    return Plan(
        notebooks,
        injected,
        profile,
        cell_timeout_s,
        gate,
        again,
        msgspec.to_builtins(machine),
        datetime.now(UTC),
        machine.busy_words and f"At the start: {machine.busy_words}",
    )


def rerun_command(
    notebooks: Sequence[Path | str],
    profile: str,
    parameters: Mapping[str, object],
    out_root: Path | str = DEFAULT_OUT_ROOT,
    *,
    cell_timeout_s: float | None = DEFAULT_CELL_TIMEOUT_S,
    gate: bool = False,
) -> tuple[str, ...]:
    """The argv of `perfkit report` that asks for the same again; defaults are left out.

    A `cell_timeout_s` of None is written as 0. Parameter values are Python literals, text as it is.
    """
    shown = (shown_path(Path(path)) for path in notebooks)
    argv = ["perfkit", "report", *shown, "--profile", profile]
    for name, value in parameters.items():
        argv += ["-p", f"{name}={value}"]
    if Path(out_root) != DEFAULT_OUT_ROOT:
        argv += ["--out", shown_path(Path(out_root))]
    if cell_timeout_s != DEFAULT_CELL_TIMEOUT_S:
        argv += ["--cell-timeout", f"{cell_timeout_s or 0:g}"]
    return (*argv, "--gate") if gate else tuple(argv)


def _check_arguments(paths: Sequence[Path], profile: str, cell_timeout_s: float | None) -> None:
    if not paths:
        raise ReportError("name at least one notebook to run")
    stems = [path.stem for path in paths]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ReportError(f"two notebooks are called {twice[0]}; run them in two reports")
    if "index" in stems:
        raise ReportError("a notebook can't be called index: its page would be the index")
    if not profile or not profile.replace("-", "").replace("_", "").isalnum():
        raise ReportError(f"profile {profile!r} is no plain word, and it names the run's folder")
    if cell_timeout_s is not None and not cell_timeout_s > 0:
        raise ReportError(f"the limit for a cell is {cell_timeout_s} s; it must be above 0")


def _check_text(*values: object) -> None:
    """Raise ReportError for a name or a value that notebooks, pages and JSON can't hold."""
    for value in values:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            message = f"{str(value)!r} is not UTF-8, and a report stores it: rename it"
            raise ReportError(message) from None
