"""Writes the figures in the documents: each stands between two markers and comes from one sample.

A document says `<!-- figures: NAME -->`, and everything up to `<!-- end -->` is made here, so no
figure in it is typed. The sample is one file in git, taken from a run of the whole report:

    python -m perfkit.report.stories.documents reports/<run>    # take a new sample, write them all
    python -m perfkit.report.stories.documents                  # write them again from the sample
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from cluster.vocabulary.printable import count_of
from perfkit.evidence.environment import Environment
from perfkit.evidence.results import Result, encode_fields, write
from perfkit.evidence.text import duration, estimate, quantity
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.knobs import knobs
from perfkit.optimized.specs import OPTIMIZED
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.outcome import ReportError
from perfkit.report.engine.scorecard import HEADER, ScoreRow
from perfkit.report.engine.scorecard import load as load_scorecard
from perfkit.report.page.index import machine_facts
from perfkit.report.stories import findings

ROOT: Final = Path(__file__).parent.parent.parent.parent
SAMPLE = ROOT / "reports" / "sample.json"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Figures(msgspec.Struct, frozen=True):
    """What a document needs of a result: all but its raw samples."""

    experiment: str
    spec: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    workers: int | None
    tasks: int | None

    @classmethod
    def of(cls, result: Result) -> Figures:
        """The figures of a result."""
        return cls(**{name: getattr(result, name) for name in cls.__struct_fields__})


class Sample(msgspec.Struct, frozen=True):
    """One run of the whole report, without raw samples."""

    run: str
    profile: str
    durations_s: dict[str, float]
    environment: Environment
    scorecard: tuple[ScoreRow, ...]
    headlines: tuple[Headline, ...]
    results: dict[str, Figures]


def take(run: Path) -> Sample:
    """The sample of a run's folder; ReportError if the run has no scorecard."""
    told: dict[str, Any] = msgspec.json.decode((run / "run.json").read_bytes())
    evidence = findings.read(run / "results")
    card = load_scorecard(run / "results")
    if card is None:
        raise ReportError(f"{run.name} has no scorecard: run the whole report, notebook 06 too")
    environment = msgspec.json.decode((run / "environment.json").read_bytes(), type=Environment)
    return Sample(
        run=told["run"],
        profile=told["profile"],
        durations_s={found["name"]: found["duration_s"] for found in told["notebooks"]},
        environment=msgspec.structs.replace(environment, host_hash=""),
        scorecard=card.rows,
        headlines=evidence.headlines,
        results={name: Figures.of(result) for name, result in evidence.results.items()},
    )


def save(sample: Sample, path: Path = SAMPLE) -> None:
    """Write the sample, one field to a line."""
    write(encode_fields(msgspec.structs.asdict(sample)), path)


def load(path: Path = SAMPLE) -> Sample:
    """The sample that is in git."""
    return msgspec.json.decode(path.read_bytes(), type=Sample)


def filled(text: str, sample: Sample) -> str:
    """A document with the figures of a sample; ReportError for a marker that names none."""

    def block(found: re.Match[str]) -> str:
        name = found[2]
        if name not in BLOCKS:
            raise ReportError(f"no figures are called {name!r}; there are {', '.join(BLOCKS)}")
        return f"{found[1]}{BLOCKS[name](sample)}\n{found[3]}"

    return _BLOCK.sub(block, text)


def source(sample: Sample) -> str:
    """The run and the machine that the figures are from."""
    facts = dict(machine_facts(msgspec.to_builtins(sample.environment)))
    machine = f"{facts['Processor']}, {facts['Cores']}, {facts['Memory']}, {facts['Python']}"
    return (
        f"From the run `{sample.run}` ({machine}). Figures have 95 % intervals and belong to that "
        "machine; `make report` measures yours."
    )


def scorecard(sample: Sample) -> str:
    """The plan's rows: claimed, asked for, measured."""
    return _table(HEADER[:-1], (row.texts for row in sample.scorecard))


def baseline(sample: Sample) -> str:
    """The baseline's results, one row each."""
    return _results(sample, lambda found: found.spec == "baseline")


def optimized(sample: Sample) -> str:
    """The optimised cluster's results, one row each."""
    return _results(sample, lambda found: found.spec == OPTIMIZED.name)


def peers(sample: Sample) -> str:
    """The results of other engines, one row each."""
    return _results(sample, lambda found: found.spec == "-")


def _results(sample: Sample, holds: Callable[[Figures], bool]) -> str:
    rows = (
        (
            name,
            estimate(found, found.unit),
            count_of(found.workers, "worker"),
            quantity(found.tasks),
        )
        for name, found in sorted(sample.results.items())
        if holds(found) and not found.experiment.startswith("ablation")
    )
    return _table(("result", "measured", "cluster", "tasks"), rows)


def goals(sample: Sample) -> str:
    """Every goal that the run judged, the missed ones first."""
    return _goals(sample, lambda title: True)


def lone(sample: Sample) -> str:
    """The goals of a lone task, in both placements."""
    return _goals(sample, lambda title: title.startswith(("latency_p", "unpinned_p")))


def _goals(sample: Sample, holds: Callable[[str], bool]) -> str:
    order = (Verdict.MISSED, Verdict.REGRESSION, Verdict.INCONCLUSIVE, Verdict.MET)
    judged = [
        one
        for one in sample.headlines
        if one.verdict in order and not one.compares and holds(one.title.removeprefix("Goal: "))
    ]
    return _table(
        ("goal", "asked", "measured", "verdict"),
        (
            (
                one.title.removeprefix("Goal: "),
                quantity(one.claim, one.unit),
                estimate(one, one.unit),
                str(one.verdict),
            )
            for one in sorted(judged, key=lambda one: order.index(one.verdict))
        ),
    )


def ideas(sample: Sample) -> str:
    """Each idea of the plan: predicted and measured, with the verdict."""
    return _table(
        ("idea", "predicted", "measured", "verdict"),
        (
            (
                one.title.removeprefix("Idea: "),
                quantity(one.claim, one.unit),
                estimate(one, one.unit),
                str(one.verdict),
            )
            for one in sample.headlines
            if one.title.startswith("Idea: ")
        ),
    )


def durations(sample: Sample) -> str:
    """How long each notebook took, and all together."""
    rows = [(name, duration(seconds)) for name, seconds in sample.durations_s.items()]
    rows.append(("all", duration(sum(sample.durations_s.values()))))
    return _table(("notebook", f"takes, profile {sample.profile}"), rows)


def knob_table(sample: Sample) -> str:
    """Every knob of a spec: its two values, the values it takes, its meaning."""
    return _table(
        ("knob", "baseline", "optimised", "takes", "meaning"),
        (
            (f"`{knob.name}`", f"{knob.baseline}", f"{knob.value}", knob.takes, knob.about)
            for knob in knobs(OPTIMIZED)
        ),
    )


BLOCKS: Mapping[str, Callable[[Sample], str]] = {
    "source": source,
    "scorecard": scorecard,
    "baseline": baseline,
    "optimized": optimized,
    "peers": peers,
    "goals": goals,
    "ideas": ideas,
    "lone": lone,
    "durations": durations,
    "knobs": knob_table,
}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def main(arguments: Sequence[str]) -> None:
    """Take a new sample from the run that is named, if any; then write every document."""
    if arguments:
        save(take(Path(arguments[0])))
    sample = load()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text, sample), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
