"""Writes the page that a person opens first: the verdict, findings, pages, and the machine.

The index is made from the run's own files (headlines, environment, `run.json`), so every figure in
it can be checked one link away.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from perfkit.evidence.text import UNKNOWN, quantity, size
from perfkit.report.engine import headlines
from perfkit.report.engine.outcome import MEANING
from perfkit.report.engine.plan import RESULTS, Plan
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.engine.scorecard import Scorecard
from perfkit.report.figures.before_after import Change, before_after
from perfkit.report.figures.charts import Figure
from perfkit.report.page.html import render, tone, words_used
from perfkit.report.page.pieces import Thumbnail, in_line, labelled


def render_index(
    report: ReportRun,
    plan: Plan,
    thumbnails: Mapping[str, Thumbnail] | None = None,
    card: Scorecard | None = None,
) -> str:
    """The index page of the run in `report.path`, as HTML that needs no other file.

    `thumbnails` holds a picture of a notebook by its name; `card` is the run's scorecard.
    """
    found = report.headlines
    shown = {
        notebook.name: [headline for headline in found if headline.notebook == notebook.name]
        for notebook in report.notebooks
    }
    table = "" if card is None else card._repr_html_()
    drawn = None if card is None else before_and_after(card)
    return render(
        "index.html.j2",
        kind="index",
        title="perfkit report",
        run=report,
        plan=plan,
        verdict=_verdict(report),
        tone="missed" if report.problems else tone(found),
        warnings=report.warnings,
        words=words_used(f"claimed {table}") if found or card else "",
        picture=in_line(drawn._repr_html_()) if drawn else "",
        scorecard=labelled(table),
        verdicts={name: headlines.sentence(own) if own else "" for name, own in shown.items()},
        thumbnails=thumbnails or {},
        shell=shlex.join(report.command),
        meaning=MEANING[report.exit_code],
        by_name={notebook.name: notebook for notebook in report.notebooks},
        files=sorted(path.name for path in (report.path / RESULTS).rglob("*.json")),
        machine=machine_facts(plan.environment),
        everything=list(_flatten(plan.environment)),
        parameters=_shared_parameters(report.notebooks),
    )


def _verdict(report: ReportRun) -> str:
    """The run in a sentence: notebooks that did not finish, then what was found."""
    stopped = [run.name for run in report.notebooks if run.failure is not None]
    told = headlines.sentence(report.headlines)
    return f"Not complete: {', '.join(stopped)}. {told}" if stopped else told


def before_and_after(card: Scorecard) -> Figure | None:
    """Every row that has a target and a figure, as a multiple of its target; None without any."""
    rows = [
        Change(row.figure, row.unit, row.better, row.goal, row.baseline, row.optimized, row.verdict)
        for row in card.rows
        if row.goal is not None and row.goal > 0
        if row.baseline.value is not None or row.optimized.value is not None
    ]
    if not rows:
        return None
    return before_after(rows, names=("baseline", "optimised"), caption="Measured on this machine.")


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main facts about a machine, as (label, text), from a fingerprint as JSON values."""

    def known(key: str) -> str:
        value = environment.get(key)
        return quantity(value) if isinstance(value, (int, float)) else str(value or UNKNOWN)

    limit_bytes = environment.get("memory_limit_bytes")
    limit = "" if limit_bytes is None else f", limited to {size(limit_bytes)}"
    dirty = " with uncommitted changes" if environment.get("git_dirty") else ""
    cores = f"{known('cores_available')} available of {known('cores_logical')} logical"
    disturbance = environment.get("disturbance") or {}
    used, steal = (disturbance.get(name) for name in ("others_cores", "steal"))
    others = (
        f"{quantity(used)} cores used by other processes, "
        f"{quantity(None if steal is None else 100 * steal, '%')} of the time by other guests"
    )
    now, most = (disturbance.get(name) for name in ("frequency_mhz", "frequency_mhz_max"))
    clock = "" if now is None else f", {quantity(now, 'MHz')} of {quantity(most, 'MHz')}"
    load = ", ".join(f"{known(f'load_{n}min')} ({n} min)" for n in (1, 5, 15))
    return [
        ("Processor", f"{known('cpu_model')} ({known('architecture')})"),
        ("Cores", f"{cores}, {known('cores_physical')} physical"),
        ("Memory", size(environment.get("memory_total_bytes")) + limit),
        ("System", f"{known('platform')} {known('kernel')}"),
        ("Virtualisation", known("virtualisation")),
        ("Clock", f"governor {known('governor')}{clock}"),
        ("Load before the run", load),
        ("Others before the run", others),
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
