"""``perfkit compare``: is B faster than A? Two specs, run now, or two saved results."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.measuring import (
    check_experiment,
    deliver,
    gate_code,
    machine_text,
    progress,
)
from perfkit.cli.terminal.output import note, out
from perfkit.evidence.text import quantity
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.bench.experiments.compare import SpecComparison
    from perfkit.evidence.results import Result

EXAMPLES = (
    ("both specs side by side, a minute or two", "perfkit compare baseline optimized"),
    ("more evidence", "perfkit compare baseline optimized --experiment latency --blocks 16"),
    ("saved results", "perfkit compare before.json after.json"),
    ("how noisy is this machine?", "perfkit compare baseline baseline"),
    ("in CI: slower is a failure", "perfkit compare baseline optimized --gate || exit $?"),
    ("for a program", "perfkit compare baseline optimized --json - | jq .ratio"),
)
STYLES = {"faster": "bold green", "slower": "bold red", "inconclusive": "bold yellow"}


def _live_option(text: str, *names: str, **more: Any) -> Any:
    """An option that saved results refuse: they have their own."""
    return typer.Option(*names, help=text, rich_help_panel="Two specs, run now", **more)


def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A spec or a saved result.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same kind; judged against A.")],
    experiment: Annotated[
        str, _live_option("throughput, latency, burst or startup.", metavar="NAME")
    ] = "throughput",
    blocks: Annotated[int, _live_option("How often A, B and A again run.", min=4)] = 8,
    workers: Annotated[int, _live_option("Worker processes.", min=1, max=64)] = 2,
    tasks: Annotated[
        int | None,
        _live_option("How many in each run.", min=1, show_default="the experiment's own"),
    ] = None,
    seed: Annotated[int, _live_option("Of the order of runs, the payloads and the interval.")] = 0,
    model: Annotated[
        str | None, _live_option("Ask a model: magika, digits.", metavar="NAME")
    ] = None,
    knobs: Annotated[
        list[str] | None,
        _live_option("Set a knob of both specs; repeatable.", "--set", metavar="KNOB=VALUE"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare saved results that were not measured alike.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Let the verdict decide the exit code.")
    ] = False,
    as_json: opt.ResultFile = None,
) -> None:
    """Say whether B is faster than A, slower, the same, or that the evidence does not tell.

    Two specs run in blocks of A, B and A again on fresh processes, in a random order; the second A
    shows how much identical code varies on this machine. An argument that is a file or ends in
    .json is a saved result, unless it holds a spec. Results of different machines are refused, or
    labelled with [bold]--force[/]; since two saved runs were not interleaved, a ratio below 2 is
    inconclusive.

    Exit codes: [bold]0[/] there is any verdict · [bold]1[/] a result was wrong or the cluster
    failed · [bold]2[/] wrong arguments · with [bold]--gate[/] also [bold]3[/] slower,
    [bold]4[/] inconclusive · [bold]130[/] interrupted
    """
    live: dict[str, Any] = {
        "experiment": experiment, "blocks": blocks, "workers": workers, "tasks": tasks,
        "seed": seed, "model": model,
    }  # fmt: skip
    if _are_saved(a, b):
        opt.refuse(context, f"{' '.join(live)} knobs", "is for two specs, not saved results")
        found = _saved(a, b, force)
    else:
        opt.refuse(context, "force", "is for saved results; two specs run on this machine")
        found = _live(a, b, knobs, live)
    deliver(found.encode, lambda: show(found), as_json)
    if gate:
        raise typer.Exit(gate_code(found.comparison.verdict))


def show(found: SpecComparison) -> None:
    """The verdict and the ratio with its interval, the control, both figures, and the reason."""
    console, comparison = out(), found.comparison
    verdict = str(comparison.verdict)
    line = Text(verdict, STYLES.get(verdict, "bold"))
    line.append(f"  B/A {comparison.ratio_text}", "bold")
    console.print(line.append(f"  {found.title}", "dim"))
    control = comparison.control_text
    rows = [
        ("control", f"A/A {control}" if found.results["C"] else "none: there is no second A"),
        *((arm, _arm(found.results[arm])) for arm in "AB"),
        ("why", comparison.reason),
        ("interval", f"{comparison.confidence:.0%}, {comparison.method}"),
        ("machine", machine_text(found.results["A"][0].environment)),
    ]
    for name, text in rows:
        console.print(f"  {name:<9} {text}", markup=False)
    if found.label:
        console.print(Text(f"  {found.label}", "bold yellow"))
    if found.order and verdict == "inconclusive":
        note(f"more blocks may tell: --blocks {2 * len(found.order)}")


def _arm(results: list[Result]) -> str:
    """An arm's spec and figure: the median over its runs."""
    values = [result.value for result in results if result.value is not None]
    figure = quantity(median(values) if values else None, results[0].unit)
    of = "one run" if len(results) == 1 else f"median of {len(results)} runs"
    return f"{results[0].spec}: {figure}, {of}"


def _are_saved(a: str, b: str) -> bool:
    """Whether both are saved results; SettingError for one of each kind."""
    for word in (a, b):
        if word.endswith(".py") or (":" in word and not _is_file(word)):
            raise SettingError(
                f"{word} is no spec: perfkit profile compare takes functions and scripts"
            )
    saved = [word for word in (a, b) if _is_file(word) and not _is_spec(word)]
    if len(saved) == 1:
        spec = b if saved == [a] else a
        raise SettingError(
            f"{saved[0]} is a saved result and {spec} is a spec: compare two specs, which are run "
            "now, or two saved results"
        )
    return bool(saved)


def _is_file(word: str) -> bool:
    return word.endswith(".json") or Path(word).is_file()


def _is_spec(word: str) -> bool:
    from perfkit.optimized.specs import spec_named

    try:
        spec_named(word)
    except ClusterError:
        return False
    return True


def _saved(a: str, b: str, force: bool) -> SpecComparison:
    from perfkit.bench.experiments.compare import compare_saved
    from perfkit.evidence.results import ResultError, load

    try:
        return compare_saved(load(a), load(b), force=force)
    except ResultError as error:
        raise SettingError(str(error)) from None


def _live(a: str, b: str, knobs: list[str] | None, live: dict[str, Any]) -> SpecComparison:
    from perfkit.bench.experiments.compare import compare_specs

    specs = opt.spec_with(a, knobs), opt.spec_with(b, knobs)
    check_experiment(live["experiment"], live["tasks"], "zmq", live["model"])
    with progress() as say:
        return compare_specs(*specs, **live, progress=say)
