"""Headline findings: what a reader of the index sees before opening any notebook.

A notebook ends in figures and words; the index of a run needs the few that matter, each beside
what was claimed for it. A headline is one JSON file under the run's `results/`, so that it lives
with the raw samples it was derived from and any program can read it.

    from perfkit.report import headlines
    headlines.record(out_dir, "Message throughput", value=41_200, unit="tasks/s",
                     low=39_800, high=42_900, claim=1_000, verdict="faster")
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from perfkit.report.engine.outcome import ExitCode, ReportError

SCHEMA = 1
#: The report engine names the notebook in this variable, so that a headline says where it is from.
NOTEBOOK_VARIABLE = "PERFKIT_REPORT_NOTEBOOK"


class Verdict(StrEnum):
    """What a finding says about its claim or baseline.

    `measured` is a figure without a judgement. `regression` is `slower` than a baseline of the
    same system, and is meant for gates.
    """

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    REGRESSION = "regression"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Headline:
    """One finding: a value with its interval beside what was claimed.

    `value`, `low` and `high` share `unit`; None is unknown, never 0, also for one end of an
    interval that too few samples leave open. `claim` is a number in the
    same unit or the claim's own words. A `gate` headline decides the run's exit code.
    """

    title: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    claim: float | str | None = None
    verdict: Verdict = Verdict.MEASURED
    note: str = ""
    gate: bool = False
    notebook: str | None = None
    recorded_utc: str = ""


def record(
    out_dir: Path | str,
    title: str,
    value: float | None,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    claim: float | str | None = None,
    verdict: Verdict | str = Verdict.MEASURED,
    *,
    note: str = "",
    gate: bool = False,
) -> Path:
    """Save one finding as `out_dir/headline-<notebook>-<title>.json` and return that path.

    The same title in the same notebook replaces the earlier one. `note` is a sentence shown under
    the title. With `gate` the verdict decides the run's exit code (3 regression, 4 inconclusive).

    Raises ReportError when the title is empty, the verdict is not one of Verdict, a figure is not
    finite, or the value lies outside its interval.
    """
    headline = Headline(
        title=title.strip(),
        value=_figure(title, "value", value),
        unit=unit,
        low=_figure(title, "low", low),
        high=_figure(title, "high", high),
        claim=claim if isinstance(claim, str) else _figure(title, "claim", claim),
        verdict=_verdict(title, verdict),
        note=note,
        gate=gate,
        notebook=os.environ.get(NOTEBOOK_VARIABLE),
        recorded_utc=datetime.now(UTC).isoformat(),
    )
    _check_interval(headline)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(filter(None, ["headline", _slug(headline.notebook or ""), _slug(title)]))
    path = folder / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"schema": SCHEMA, **asdict(headline)}, indent=2) + "\n")
    partial.replace(path)
    return path


def load(folder: Path | str) -> tuple[Headline, ...]:
    """Every headline under `folder`, in the order they were recorded.

    Raises ReportError naming the file when one is not a headline of this schema.
    """
    found = [_read(path) for path in sorted(Path(folder).glob("headline-*.json"))]
    return tuple(sorted(found, key=lambda headline: headline.recorded_utc))


def exit_code(headlines: Iterable[Headline], *, gate: bool = False) -> ExitCode:
    """REGRESSION, INCONCLUSIVE or DONE, from the gate headlines (from all of them with `gate`)."""
    verdicts = {headline.verdict for headline in headlines if gate or headline.gate}
    if verdicts & {Verdict.REGRESSION, Verdict.SLOWER}:
        return ExitCode.REGRESSION
    return ExitCode.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else ExitCode.DONE


def _figure(title: str, field: str, value: float | None) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ReportError(
            f"headline {title!r}: {field} is {number}, which is no figure; pass None for unknown"
        )
    return number


def _verdict(title: str, verdict: Verdict | str) -> Verdict:
    try:
        return Verdict(verdict)
    except ValueError:
        known = ", ".join(Verdict)
        raise ReportError(f"headline {title!r}: verdict {verdict!r} is none of {known}") from None


def _check_interval(headline: Headline) -> None:
    title, value = headline.title, headline.value
    low = -math.inf if headline.low is None else headline.low
    high = math.inf if headline.high is None else headline.high
    if not title:
        raise ReportError("a headline needs a title that says what was measured")
    if low > high:
        raise ReportError(f"headline {title!r}: low {low:g} is above high {high:g}")
    if value is not None and not low <= value <= high:
        raise ReportError(
            f"headline {title!r}: value {value:g} is outside its interval, {low:g} to {high:g}"
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:60]


def _read(path: Path) -> Headline:
    try:
        fields = json.loads(path.read_text())
        if fields.pop("schema") != SCHEMA:
            raise ValueError("another schema version")
        fields["verdict"] = Verdict(fields["verdict"])
        return Headline(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path.name} is not a headline of schema {SCHEMA}: {error}") from error
