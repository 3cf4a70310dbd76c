"""Writes the page that a person opens first: findings, notebooks, and the machine.

The index is made from the run's own files (headlines, environment, `run.json`), so every figure in
it can be checked one link away.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from perfkit.evidence.text import UNKNOWN, quantity, size
from perfkit.report.engine.outcome import MEANING
from perfkit.report.engine.plan import RESULTS, Plan
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.page.html import render


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
    found: dict[str, dict[str, list[str]]] = {}
    for notebook in notebooks:
        for name, value in notebook.parameters.items():
            found.setdefault(name, {}).setdefault(repr(value), []).append(notebook.name)
    shared = []
    for name, users in found.items():
        differing = "; ".join(f"{value} in {', '.join(names)}" for value, names in users.items())
        shared.append((name, differing if len(users) > 1 else next(iter(users))))
    return shared


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
