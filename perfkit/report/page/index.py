"""Writes the page a person opens first: what was found, how each notebook went, on what machine.

The index is made from the run's own files only (headlines, environment, `run.json`), so that it
says nothing the files don't. A reader who wants to doubt a figure finds it one link away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfkit.evidence.text import UNKNOWN, duration, interval, measured, quantity
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.outcome import ExitCode
from perfkit.report.engine.result import NotebookRun
from perfkit.report.page.html import TEMPLATES, style

#: How the exit code reads to a person.
MEANING: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Every notebook ran to its end.",
    ExitCode.CELL_FAILED: "A notebook failed; the others ran.",
    ExitCode.BAD_ARGUMENTS: "The arguments were wrong.",
    ExitCode.REGRESSION: "Every notebook ran, and a gate found a regression.",
    ExitCode.INCONCLUSIVE: "Every notebook ran, and a gate could not decide.",
    ExitCode.KERNEL_DIED: "A kernel died; the other notebooks ran.",
    ExitCode.TIMED_OUT: "A cell ran out of time; the other notebooks ran.",
}


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """All that the index shows besides the files it lists."""

    run_name: str
    profile: str
    started_utc: str
    duration_s: float
    exit_code: ExitCode
    commit: str
    shell: str
    notebooks: tuple[NotebookRun, ...]
    headlines: tuple[Headline, ...]
    problems: tuple[str, ...]
    environment: Mapping[str, Any]


def render_index(facts: IndexFacts, folder: Path) -> str:
    """The index page of the run in `folder`, as HTML that needs no other file."""
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters.update(quantity=quantity, duration=duration)
    templates.globals.update(interval=interval)
    titles = {notebook.name: notebook for notebook in facts.notebooks}
    text = templates.get_template("run_index.html.j2").render(
        run=facts,
        style=style(),
        meaning=MEANING[facts.exit_code],
        by_name=titles,
        files=sorted(path.name for path in (folder / "results").rglob("*.json")),
        machine=machine_facts(facts.environment),
        everything=list(_flatten(facts.environment)),
        parameters=_shared_parameters(facts.notebooks),
    )
    return str(text)


def verdict_lines(headlines: tuple[Headline, ...]) -> list[str]:
    """One sentence per headline: what was measured, beside what was claimed."""
    lines = []
    for found in headlines:
        result = measured(found.value, found.unit, found.low, found.high)
        claim = "" if found.claim is None else f", claimed {quantity(found.claim, found.unit)}"
        lines.append(f"{found.title}: {result}{claim}; {found.verdict}")
    return lines


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader asks of a machine, as (label, text), from a fingerprint as JSON."""

    def known(key: str) -> str:
        value = environment.get(key)
        return UNKNOWN if value is None else quantity(value) if _is_number(value) else str(value)

    def gib(key: str) -> str:
        value = environment.get(key)
        return UNKNOWN if value is None else f"{value / 2**30:.1f} GiB"

    limit = "" if environment.get("memory_limit_bytes") is None else gib("memory_limit_bytes")
    dirty = " with uncommitted changes" if environment.get("git_dirty") else ""
    return [
        ("Processor", f"{known('cpu_model')} ({known('architecture')})"),
        (
            "Cores",
            f"{known('cores_available')} available of {known('cores_logical')} logical, "
            f"{known('cores_physical')} physical",
        ),
        ("Memory", gib("memory_total_bytes") + (f", limited to {limit}" if limit else "")),
        ("System", f"{known('platform')} {known('kernel')}"),
        ("Virtualisation", known("virtualisation")),
        ("Clock governor", known("governor")),
        (
            "Load before the run",
            f"{known('load_1min')} (1 min), {known('load_5min')} (5 min), "
            f"{known('load_15min')} (15 min)",
        ),
        ("Python", f"{known('implementation')} {known('python')}"),
        ("Code", known("git_commit") + dirty),
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shared_parameters(notebooks: tuple[NotebookRun, ...]) -> list[tuple[str, str]]:
    """Every effective parameter as (name, value); values that differ name their notebooks."""
    values: dict[str, dict[str, list[str]]] = {}
    for notebook in notebooks:
        for name, value in notebook.parameters.items():
            values.setdefault(name, {}).setdefault(repr(value), []).append(notebook.name)
    return [
        (
            name,
            next(iter(by_value))
            if len(by_value) == 1
            else "; ".join(f"{value} in {', '.join(users)}" for value, users in by_value.items()),
        )
        for name, by_value in values.items()
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(label, text) of every leaf of a JSON object, labels joined by ` · `."""
    for key, item in value.items():
        label = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{label} · ")
        elif isinstance(item, list):
            yield label, ", ".join(str(part) for part in item) or "none"
        else:
            yield label, UNKNOWN if item is None else str(item)
