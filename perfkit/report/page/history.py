"""Writes the history of all runs in a folder: how each figure moved, and where that means little.

Each run is read from its own `run.json` and `environment.json`. A run that can't be read is named
and left out; one that lacks a figure is a gap in that figure's line. A mark stands where the
machine or the profile changed, because what lies on its two sides is not comparable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import msgspec

from cluster.vocabulary.printable import count_of
from perfkit.evidence.text import UNKNOWN, measured, quantity
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.outcome import ReportError
from perfkit.report.page.html import render

FILE = "index.html"
WIDTH, HEIGHT, MARGIN = 300.0, 44.0, 6.0
#: A page of more points, or of more rows of runs, would weigh more than a page may.
POINTS_MAX, ROWS_MAX = 1_500, 100


class _RunFile(msgspec.Struct, frozen=True):
    """What the history needs of `run.json`."""

    started_utc: str
    profile: str
    commit: str
    exit_code: int
    headlines: tuple[Headline, ...]


class _Machine(msgspec.Struct, frozen=True):
    """What the history needs of `environment.json`."""

    machine_id: str
    cpu_model: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its folder's name, when, of what, on which machine, and its findings."""

    name: str
    started_utc: str
    profile: str
    commit: str
    exit_code: int
    machine_id: str
    cpu_model: str | None
    findings: dict[tuple[str, str, str], Headline]

    @property
    def address(self) -> str:
        """Its index page, seen from the history."""
        return f"{quote(self.name)}/{FILE}"


def write_history(folder: Path) -> Path:
    """Write `folder/index.html` about all runs below `folder`, atomically; returns the path.

    Raises ReportError when the folder can't be read or written.
    """
    runs, broken = read_runs(folder)
    keys = _keys(runs)
    drawn = runs[-max(2, POINTS_MAX // max(1, len(keys))) :]
    page = render(
        "history.html.j2",
        kind="history",
        title="perfkit reports",
        plan=None,
        runs=runs,
        drawn=drawn,
        listed=runs[: -ROWS_MAX - 1 : -1],
        broken=broken,
        figures=[Line(key, drawn) for key in keys],
        changes={run.name: _change(before, run) for before, run in pairwise(runs)},
    )
    path = folder / FILE
    working = folder / f".{FILE}-{os.getpid()}"
    try:
        working.write_text(page, encoding="utf-8")
        working.replace(path)
    except OSError as error:
        working.unlink(missing_ok=True)
        raise ReportError(f"{path} can't be written: {error.strerror}") from error
    return path


def read_runs(folder: Path) -> tuple[list[Run], dict[str, str]]:
    """The runs below `folder`, oldest first, and why others can't be read, by name.

    A folder without `run.json` that looks like no run's is left alone. Raises ReportError when
    `folder` can't be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise ReportError(f"{folder} has no reports to list: {error.strerror}") from error
    runs, broken = [], {}
    for path in paths:
        if not (path.name[:8].isdigit() or (path / "run.json").exists()) or path.name[0] == ".":
            continue
        try:
            runs.append(_read(path))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            broken[path.name] = str(error).replace(f"{folder}{os.sep}", "")
    return sorted(runs, key=lambda run: (run.started_utc, run.name)), broken


def _read(path: Path) -> Run:
    found = msgspec.json.decode((path / "run.json").read_bytes(), type=_RunFile)
    machine = msgspec.json.decode((path / "environment.json").read_bytes(), type=_Machine)
    return Run(
        path.name,
        found.started_utc,
        found.profile,
        found.commit,
        found.exit_code,
        machine.machine_id,
        machine.cpu_model,
        {(h.notebook or "", h.title, h.unit): h for h in found.headlines},
    )


def _keys(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Each figure of any run once: (notebook, title, unit)."""
    every = dict.fromkeys(key for run in runs for key in run.findings)
    return sorted(every, key=lambda key: key[0])


def _change(before: Run, run: Run) -> str:
    """What makes a run incomparable with the one before it; "" if nothing does."""
    changed = ["machine"] * (before.machine_id != run.machine_id)
    changed += ["profile"] * (before.profile != run.profile)
    return " and ".join(changed)


class Line:
    """One figure over all runs: its name, its last value, and a sparkline."""

    def __init__(self, key: tuple[str, str, str], runs: Sequence[Run]) -> None:
        self.notebook, self.title, self.unit = key
        self._runs = runs
        self._found = [run.findings.get(key) for run in runs]
        self._values = [None if found is None else found.value for found in self._found]
        self._known = [value for value in self._values if value is not None]

    @property
    def last(self) -> Headline | None:
        """The newest run's finding, None if that run lacks it."""
        return self._found[-1]

    @property
    def last_text(self) -> str:
        """The newest run's figure with its interval."""
        last = self.last
        if last is None:
            return f"{UNKNOWN}: not in the newest run"
        return measured(last.value, self.unit, last.low, last.high)

    @property
    def alt(self) -> str:
        """The line in words."""
        if not self._known:
            return f"{self.title}: {UNKNOWN} in every run."
        ends = f"{quantity(min(self._known))} to {quantity(max(self._known), self.unit)}"
        gaps = len(self._values) - len(self._known)
        lost = f", unknown in {gaps}" if gaps else ""
        return f"{self.title} over {count_of(len(self._values), 'run')}: {ends}{lost}."

    def svg(self) -> str:
        """The sparkline, oldest first: points link to runs, a gap is unknown, a rule a change."""
        parts = [
            f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{HEIGHT:g}" class="change">'
            f"<title>another {escape(change)}</title></line>"
            for x, change in self._changes()
        ]
        for stretch in self._stretches():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in stretch)
            parts.append(f'<polyline points="{points}"/>')
            parts += [self._point(x, y, number) for x, y, number in stretch]
        return (
            f'<svg class="spark" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="group" '
            f'aria-label="{escape(self.alt)}">{"".join(parts)}</svg>'
        )

    def _point(self, x: float, y: float, number: int) -> str:
        run = self._runs[number]
        told = f"{run.name}: {quantity(self._values[number], self.unit)}"
        return (
            f'<a href="{escape(run.address)}">'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(told)}</title></circle></a>'
        )

    def _at(self, number: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (number + 0.5) / len(self._values)

    def _stretches(self) -> Iterator[list[tuple[float, float, int]]]:
        """Runs of neighbouring known values as (x, y, number); the scale begins at the lowest."""
        stretch: list[tuple[float, float, int]] = []
        low = min(self._known, default=0.0)
        span = max(self._known, default=0.0) - low
        for number, value in enumerate(self._values):
            if value is None:
                if stretch:
                    yield stretch
                stretch = []
                continue
            part = 0.5 if span == 0 else (value - low) / span
            y = HEIGHT - MARGIN - part * (HEIGHT - 2 * MARGIN)
            stretch.append((self._at(number), y, number))
        if stretch:
            yield stretch

    def _changes(self) -> Iterator[tuple[float, str]]:
        for number in range(1, len(self._runs)):
            if change := _change(self._runs[number - 1], self._runs[number]):
                yield self._at(number - 0.5), change
