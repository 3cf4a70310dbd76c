"""Writes the page that a person opens first: findings, notebooks, and the machine.

The index is made from the run's own files (headlines, environment, `run.json`), so every figure in
it can be checked one link away.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from perfkit.evidence.text import UNKNOWN, quantity, size
from perfkit.report.engine.outcome import ExitCode
from perfkit.report.engine.plan import RESULTS, Plan
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.page.render import render

#: The exit code in words.
MEANING: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Every notebook ran to its end.",
    ExitCode.CELL_FAILED: "A notebook failed; the others ran.",
    ExitCode.BAD_ARGUMENTS: "The arguments were wrong.",
    ExitCode.REGRESSION: "Every notebook ran, and a gate found a regression.",
    ExitCode.INCONCLUSIVE: "Every notebook ran, and a gate could not decide.",
    ExitCode.KERNEL_DIED: "A kernel died; the other notebooks ran.",
    ExitCode.TIMED_OUT: "A cell ran out of time; the other notebooks ran.",
}


def render_index(report: ReportRun, plan: Plan) -> str:
    """The index page of the run in `report.path`, as HTML that needs no other file."""
    return render(
        "index.html.j2",
        kind="index",
        title="perfkit report",
        run=report,
        plan=plan,
        shell=shlex.join(report.command),
        meaning=MEANING[report.exit_code],
        by_name={notebook.name: notebook for notebook in report.notebooks},
        files=sorted(path.name for path in (report.path / RESULTS).rglob("*.json")),
        machine=machine_facts(plan.environment),
        everything=list(_flatten(plan.environment)),
        parameters=_shared_parameters(report.notebooks),
    )


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main facts about a machine, as (label, text), from a fingerprint as JSON values."""

    def known(key: str) -> str:
        value = environment.get(key)
        return quantity(value) if isinstance(value, (int, float)) else str(value or UNKNOWN)

    limit_bytes = environment.get("memory_limit_bytes")
    limit = "" if limit_bytes is None else f", limited to {size(limit_bytes)}"
    dirty = " with uncommitted changes" if environment.get("git_dirty") else ""
    cores = f"{known('cores_available')} available of {known('cores_logical')} logical"
    load = ", ".join(f"{known(f'load_{n}min')} ({n} min)" for n in (1, 5, 15))
    return [
        ("Processor", f"{known('cpu_model')} ({known('architecture')})"),
        ("Cores", f"{cores}, {known('cores_physical')} physical"),
        ("Memory", size(environment.get("memory_total_bytes")) + limit),
        ("System", f"{known('platform')} {known('kernel')}"),
        ("Virtualisation", known("virtualisation")),
        ("Clock governor", known("governor")),
        ("Load before the run", load),
        ("Python", f"{known('implementation')} {known('python')}"),
        ("Code", known("git_commit") + dirty),
    ]


def _shared_parameters(notebooks: tuple[NotebookRun, ...]) -> list[tuple[str, str]]:
    """Every effective parameter as (name, value); values that differ name their notebooks."""
    values: dict[str, dict[str, list[str]]] = {}
    for notebook in notebooks:
        for name, value in notebook.parameters.items():
            values.setdefault(name, {}).setdefault(repr(value), []).append(notebook.name)
    return [
        (
            name,
            "; ".join(
                value if len(users_by_value) == 1 else f"{value} in {', '.join(users)}"
                for value, users in users_by_value.items()
            ),
        )
        for name, users_by_value in values.items()
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(label, text) of every leaf of a JSON object, labels joined by ` · `."""
    for key, item in value.items():
        label = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{label} · ")
        elif isinstance(item, list):
            yield label, ", ".join(map(str, item)) or "none"
        else:
            yield label, UNKNOWN if item is None else str(item)
