"""Headline findings: what a reader of the index sees before opening any notebook.

The index of a run shows the few figures that matter, each beside the claim about it. A headline is
one JSON file under the run's `results/`, next to the raw samples it was derived from, and any
program can read it.

    from perfkit.report import headlines
    headlines.record(out_dir, "Message throughput", value=41_200, unit="tasks/s",
                     low=39_800, high=42_900, claim=1_000, verdict="met")
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from cluster.vocabulary.printable import count_of
from perfkit.evidence.results import encode_fields, write
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine.outcome import ExitCode, ReportError

SCHEMA: Final = 1
GOAL_VERDICTS = (Verdict.MET, Verdict.MISSED, Verdict.INCONCLUSIVE)
COMPARED_VERDICTS = (Verdict.FASTER, Verdict.SAME, Verdict.SLOWER)
#: What a sentence names of a list; the table below it has the rest.
NAMED_MAX = 3
#: The report engine names the notebook in this variable, so a headline says where it is from.
NOTEBOOK_VARIABLE = "PERFKIT_REPORT_NOTEBOOK"


class Headline(msgspec.Struct, frozen=True):
    """One finding: a value with its interval beside its claim.

    `value`, `low` and `high` share `unit`; unknown is None, never 0, also for one end of an
    interval that too few samples leave open. `claim` is a number in the same unit or the claim's
    own words. A `gate` headline decides the run's exit code. One that `compares` two figures is no
    goal: neither of its ends is good enough by itself.
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
    compares: bool = False
    notebook: str | None = None
    recorded_utc: str = ""
    schema: Literal[1] = SCHEMA


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
    compares: bool = False,
) -> Path:
    """Save one finding as `out_dir/headline-<notebook>-<title>.json` and return that path.

    The same title in the same notebook replaces the earlier one. `note` is a sentence shown under
    the title. With `gate` the verdict decides the run's exit code (3 missed or a regression, 4
    inconclusive). `compares` says that the figure compares two things and is no goal.

    Raises ReportError when the title is empty, the verdict is not one of Verdict, a figure is not
    finite, or the value lies outside its interval.
    """
    if verdict not in set(Verdict):
        known = ", ".join(Verdict)
        raise ReportError(f"headline {title!r}: verdict {verdict!r} is none of {known}")
    headline = Headline(
        title=title.strip(),
        value=value,
        unit=unit,
        low=low,
        high=high,
        claim=claim,
        verdict=Verdict(verdict),
        note=note,
        gate=gate,
        compares=compares,
        notebook=os.environ.get(NOTEBOOK_VARIABLE),
        recorded_utc=datetime.now(UTC).isoformat(),
    )
    _check(headline)
    name = "-".join(filter(None, ["headline", _slug(headline.notebook or ""), _slug(title)]))
    path = Path(out_dir) / f"{name}.json"
    write(encode_fields(msgspec.structs.asdict(headline)), path)
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
    if verdicts & {Verdict.REGRESSION, Verdict.SLOWER, Verdict.MISSED}:
        return ExitCode.REGRESSION
    return ExitCode.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else ExitCode.DONE


def sentence(headlines: Iterable[Headline]) -> str:
    """The verdict of findings: regressions, then goals met of all, and those that are not, by name.

    Comparisons are counted. Without a finding that is judged it says so.
    """
    titles: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    open_comparisons = 0
    for headline in headlines:
        if headline.compares and headline.verdict is Verdict.INCONCLUSIVE:
            open_comparisons += 1
        else:
            titles[headline.verdict].append(headline.title.removeprefix("Goal: "))
    met, missed, undecided = (titles[word] for word in GOAL_VERDICTS)
    told = []
    if worse := titles[Verdict.REGRESSION]:
        told.append(f"{count_of(len(worse), 'regression')}: {_named(worse)}")
    if goals := len(met) + len(missed) + len(undecided):
        words = [f"{len(met)} of {count_of(goals, 'goal')} met"]
        words += [f"missed: {_named(missed)}"] if missed else []
        words += [f"inconclusive: {_named(undecided)}"] if undecided else []
        told.append("; ".join(words))
    compared = [f"{len(titles[word])} {word}" for word in COMPARED_VERDICTS if titles[word]]
    compared += [f"{open_comparisons} inconclusive"] if open_comparisons else []
    if compared:
        told.append(f"Comparisons: {', '.join(compared)}")
    return f"{'. '.join(told)}." if told else "Nothing was judged."


def _named(titles: list[str]) -> str:
    more = len(titles) - NAMED_MAX
    return ", ".join(titles[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _check(headline: Headline) -> None:
    title, value = headline.title, headline.value
    if not title:
        raise ReportError("a headline needs a title that names the figure")
    for field in ("value", "low", "high", "claim"):
        figure = getattr(headline, field)
        if not isinstance(figure, str | None) and not math.isfinite(figure):
            raise ReportError(
                f"headline {title!r}: {field} is {figure}, which is no figure; "
                "pass None for unknown"
            )
    low = -math.inf if headline.low is None else headline.low
    high = math.inf if headline.high is None else headline.high
    if low > high:
        raise ReportError(f"headline {title!r}: low {quantity(low)} is above high {quantity(high)}")
    if value is not None and not low <= value <= high:
        raise ReportError(
            f"headline {title!r}: value {quantity(value)} is outside its interval, "
            f"{quantity(low)} to {quantity(high)}"
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:60]


def _read(path: Path) -> Headline:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Headline)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReportError(f"{path.name} is not a headline of schema {SCHEMA}: {error}") from error
