"""``perfkit compare``: is B faster than A? Two specs side by side now, or two saved results."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.config import SettingError, build_spec, parse_knobs
from perfkit.cli.measuring import check_experiment, check_target, machine_text, number, progress
from perfkit.cli.output import errors_as_lines, note, out

if TYPE_CHECKING:
    from perfkit.bench.experiments.compare import SpecComparison
    from perfkit.evidence.results import Result
    from perfkit.evidence.stats import Verdict

EXAMPLES = (
    ("both specs side by side, a minute or two", "perfkit compare baseline optimized"),
    (
        "another experiment, more evidence",
        "perfkit compare baseline optimized --experiment latency --blocks 16",
    ),
    ("results from before", "perfkit compare before.json after.json"),
    ("how noisy is this machine?", "perfkit compare baseline baseline"),
    ("in CI: slower is a failure", "perfkit compare baseline optimized --gate || exit $?"),
    ("for a program", "perfkit compare baseline optimized --json - | jq .ratio"),
)
STYLES = {"faster": "bold green", "slower": "bold red", "inconclusive": "bold yellow"}
LIVE_PANEL = "Two specs, run now"


def _live_option(default: str, text: str, *names: str, **more: Any) -> Any:
    """An option that stays None unless it is given, so that saved results can refuse it."""
    return typer.Option(
        *names, help=text, show_default=default or False, rich_help_panel=LIVE_PANEL, **more
    )


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A spec's name, or a saved result.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same kind; judged, seen from A.")],
    experiment: Annotated[
        str | None,
        _live_option("throughput", "throughput, latency, burst or startup.", metavar="NAME"),
    ] = None,
    blocks: Annotated[
        int | None, _live_option("8", "How often A, B and A again run; 4 or more.")
    ] = None,
    workers: Annotated[int | None, _live_option("2", "Worker processes.", min=1, max=64)] = None,
    tasks: Annotated[
        int | None, _live_option("the experiment's own", "How many in each run.", min=1)
    ] = None,
    seed: Annotated[
        int | None, _live_option("0", "Of the order of runs, the payloads and the interval.")
    ] = None,
    model: Annotated[
        str | None, _live_option("", "Ask a model: magika, digits.", metavar="NAME")
    ] = None,
    knobs: Annotated[
        list[str] | None,
        _live_option("", "Turn a knob of both specs; repeatable.", "--set", metavar="KNOB=VALUE"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare saved results that were not measured alike.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Let the verdict decide the exit code.")
    ] = False,
    as_json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Save it with all raw results; - prints that."),
    ] = None,
) -> None:
    """Say whether B is faster than A, slower, the same, or that it cannot be told.

    Two specs run in blocks of A, B and A again on fresh processes, in an order drawn by lot; the
    second A shows what this machine does to identical code. What exists as a file or ends in .json
    is a saved result. Those of different machines are refused, or labelled with [bold]--force[/];
    since two saved runs were not interleaved, less than a factor of 2 between them is inconclusive.

    Exit codes: [bold]0[/] there is a verdict, whichever · [bold]1[/] a result was wrong or the
    cluster failed · [bold]2[/] wrong arguments · with [bold]--gate[/] also [bold]3[/] slower,
    [bold]4[/] inconclusive · [bold]130[/] interrupted
    """
    from perfkit.evidence.results import ResultError, write

    given = {
        "experiment": experiment, "blocks": blocks, "workers": workers, "tasks": tasks,
        "seed": seed, "model": model, "set": knobs or None,
    }  # fmt: skip
    live = {name: value for name, value in given.items() if value is not None}
    with errors_as_lines(ClusterError, ResultError):
        check_target(as_json)
        found = _saved(a, b, live, force) if _are_saved(a, b) else _live(a, b, live, force)
        if as_json is not None:
            write(found.encode(), as_json)
    if as_json != "-":
        show(found)
        if found.order and found.comparison.verdict == "inconclusive":
            note(f"more blocks may tell: --blocks {2 * len(found.order)}")
        if as_json is not None:
            note(f"saved to {as_json}")
    if gate:
        raise typer.Exit(_gate(found.comparison.verdict))


def show(found: SpecComparison) -> None:
    """The verdict and the ratio with its interval, the control, both figures, and the reason."""
    console, comparison = out(), found.comparison
    verdict = str(comparison.verdict)
    line = Text(verdict, STYLES.get(verdict, "bold"))
    line.append(f"  B/A {comparison.ratio_text}", "bold")
    console.print(line.append(f"  {found.title}", "dim"))
    control = comparison.control_text
    rows = [
        ("control", f"A/A {control}" if found.results["C"] else "none: there was no second A"),
        *((arm, _arm(found.results[arm])) for arm in "AB"),
        ("why", comparison.reason),
        ("interval", f"{comparison.confidence:.0%}, {comparison.method}"),
        ("machine", machine_text(found.results["A"][0].environment)),
    ]
    for name, text in rows:
        console.print(f"  {name:<9} {text}", markup=False)
    if found.label:
        console.print(Text(f"  {found.label}", "bold yellow"))


def _arm(results: list[Result]) -> str:
    """An arm's spec and figure: the median over its runs."""
    values = [result.value for result in results if result.value is not None]
    figure = f"{number(median(values))} {results[0].unit}" if values else "unknown"
    of = "one run" if len(results) == 1 else f"median of {len(results)} runs"
    return f"{results[0].spec}: {figure}, {of}"


def _are_saved(a: str, b: str) -> bool:
    """Whether both are saved results; SettingError for one of each kind."""
    saved = [word for word in (a, b) if word.endswith(".json") or Path(word).is_file()]
    if len(saved) == 1:
        spec = b if saved == [a] else a
        raise SettingError(
            f"{saved[0]} is a saved result and {spec} a spec: compare two specs, which are run "
            "now, or two saved results"
        )
    return bool(saved)


def _saved(a: str, b: str, live: dict[str, Any], force: bool) -> SpecComparison:
    from perfkit.bench.experiments.compare import compare_saved
    from perfkit.evidence.results import ResultError, load

    if live:
        raise SettingError(f"--{next(iter(live))} is for two specs; saved results have their own")
    try:
        return compare_saved(load(a), load(b), force=force)
    except ResultError as error:
        raise SettingError(str(error)) from None


def _live(a: str, b: str, live: dict[str, Any], force: bool) -> SpecComparison:
    from perfkit.bench.experiments.compare import compare_specs
    from perfkit.evidence.stats import MIN_BLOCKS

    if force:
        raise SettingError("--force is for saved results; two specs run on this machine")
    options = dict(live)
    turned = parse_knobs(options.pop("set", ()), "--set")
    specs = build_spec(a, turned), build_spec(b, turned)
    check_experiment(
        live.get("experiment", "throughput"), live.get("tasks"), "zmq", live.get("model")
    )
    if live.get("blocks", MIN_BLOCKS) < MIN_BLOCKS:
        raise SettingError(f"--blocks: a verdict needs at least {MIN_BLOCKS}, not {live['blocks']}")
    with progress() as say:
        return compare_specs(*specs, **options, progress=say)


def _gate(verdict: Verdict) -> int:
    from perfkit.evidence.stats import Verdict
    from perfkit.report import ExitCode

    codes = {Verdict.SLOWER: ExitCode.REGRESSION, Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE}
    return int(codes.get(verdict, ExitCode.DONE))
