"""``perfkit bench``: one experiment on a fresh engine, all of them, or a table of goals."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.text import Text

from cluster.vocabulary.printable import count_of
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.measuring import check_experiment, deliver, machine_text, progress
from perfkit.cli.terminal.output import FAILED, complain, note, out, plain_table
from perfkit.evidence.text import duration, estimate, measured, quantity
from perfkit.optimized.knobs import SettingError, check_known

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.bench.experiments.catalogue import Judged, Ran
    from perfkit.bench.goals.table import GoalRow, GoalTable
    from perfkit.evidence.results import Result
    from perfkit.evidence.verdicts import FigureGoal

EXAMPLES = (
    ("tasks per second of the baseline", "perfkit bench throughput --workers 2 --tasks 20000"),
    ("one task in flight: p50, p95, p99", "perfkit bench latency --seed 7"),
    ("latency at 20 to 95 % of capacity", "perfkit bench load --spec optimized --profile full"),
    ("three times what it can do", "perfkit bench stress --json stress.json"),
    ("a model's work instead of echoes", "perfkit bench throughput --model digits --tasks 2000"),
    ("the same tasks on another engine", "perfkit bench throughput --engine dask"),
    ("with a knob of the spec set", "perfkit bench burst --set burst=100"),
    ("for a program", "perfkit bench throughput --json - | jq .value"),
    ("every experiment, both specs", "perfkit bench all --profile quick --json out/"),
    ("for a dashboard", "perfkit bench latency --export bmf=bmf.json --export asv=asv.json"),
    ("every goal beside the bare limit", "perfkit bench limits --profile quick"),
    ("the cost of watching GPUs", "perfkit bench gpu"),
    ("and whether recorded cards are read right", "perfkit bench gpu --recorded recordings"),
    ("every goal of memory", "perfkit bench memory --json memory.json"),
    ("the HTTP API beside Triton and others", "perfkit bench serving --peers all"),
)
#: What measures each table of goals; its module has the `PROFILES` it takes.
TABLES = {
    "limits": ("perfkit.bench.goals.cluster", "measure_cluster"),
    "gpu": ("perfkit.bench.goals.gpu", "measure_gpu"),
    "memory": ("perfkit.bench.goals.memory", "measure_memory"),
    "serving": ("perfkit.bench.goals.serving", "measure_serving"),
}
ALL = "all"
STYLES = {"met": "green", "missed": "bold red", "inconclusive": "yellow"}


Name: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="submission, latency, load, throughput, overhead, burst, startup, scaling, "
        "balancing, failover, stress or network; all; the tables limits, gpu, memory or serving.",
    ),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Worker processes.", show_default="its own")
]
Tasks: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="How many; for startup, how many clusters.", show_default="its own"),
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of the payloads and of the interval.")]
EngineName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="What runs the tasks: local, zmq, dask or ray.")
]
Model: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Ask a model: magika, digits.")
]
ProfileName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="quick for a look, full for a claim.")
]
Recorded: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        exists=True,
        file_okay=False,
        help="For gpu: recorded cards and profiles, each with a right.json beside it.",
    ),
]
Peers: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="For serving: all or names by commas, installed by pip into the user's cache where "
        "they are missing; installed, those that are there; none.",
    ),
]
Target: TypeAlias = Annotated[
    Path | None, opt.json_option("The result with every raw figure", folder="for all, a folder")
]


def bench(
    context: typer.Context,
    experiment: Name,
    spec: opt.SpecName = "baseline",
    workers: Workers = None,
    tasks: Tasks = None,
    seed: Seed = 0,
    engine: EngineName = "zmq",
    model: Model = None,
    knobs: opt.SpecKnobs = None,
    profile: ProfileName = "quick",
    recorded: Recorded = None,
    peers: Peers = "installed",
    as_json: Target = None,
    export: opt.Exports = None,
) -> None:
    """Measure a fresh cluster on this machine, or another engine given the same tasks.

    Every result is checked before its time counts. The figure comes with an interval, because no
    two runs are alike, and with its goals. `all` runs every experiment with both specs, in less
    than four minutes on two idle cores with the profile quick. `limits` compares every goal with
    bare ZeroMQ, `gpu` shows what watching GPUs costs, `memory` what each role and each task holds,
    and `serving` what the HTTP API does beside bare servers and what people use instead.

    Ends with 1 if a result was wrong or the cluster failed, with 2 if an argument is wrong.
    """
    from perfkit.evidence.results import encode

    if experiment != "gpu":
        opt.refuse(context, "recorded", "is for gpu only: it compares what cards say")
    if experiment != "serving":
        opt.refuse(context, "peers", "is for serving only: it names the servers to compare with")
    if experiment == ALL:
        opt.refuse(context, "workers tasks engine model export", "is not for all: each has its own")
        named = {"spec", "knobs"} & opt.given(context)
        _run_all([opt.spec_with(spec, knobs)] if named else [], profile, seed, as_json)
        return
    opt.check_file(as_json)
    if experiment in TABLES:
        unused = "spec workers tasks engine model knobs export"
        opt.refuse(context, unused, f"is not for {experiment}: each goal has its own")
        given: dict[str, Any] = {} if recorded is None else {"recorded": recorded}
        if experiment == "serving":
            given = {"peers": _known_peers(peers)}
        table = _measure_goals(experiment, profile, seed, **given)
        deliver(table.encode, lambda: show_goals(table), as_json)
        return
    from perfkit.bench.experiments.catalogue import EXPERIMENTS, run

    check_known("experiment", experiment, [*EXPERIMENTS, ALL, *TABLES])
    check_experiment(experiment, tasks, engine, model, workers=workers, profile=profile)
    exports = opt.export_files(export)
    if engine != "zmq":
        opt.refuse(context, "spec knobs", f"is for the engine zmq; {engine} has no spec")
    chosen = opt.spec_with(spec, knobs)
    with progress() as say:
        result = run(
            experiment,
            spec=chosen,
            workers=workers,
            tasks=tasks,
            seed=seed,
            engine=engine,
            model=model,
            profile="full" if profile == "full" else "quick",
            progress=say,
        )
    deliver(lambda: encode(result), lambda: show(result), as_json)
    opt.write_exports([result], exports)


def _run_all(specs: Sequence[ClusterSpec], profile: str, seed: int, folder: Path | None) -> None:
    """Run every experiment, save each result at once, and show all of them at the end."""
    from perfkit.bench.experiments.catalogue import run_all
    from perfkit.bench.experiments.setting import PROFILES
    from perfkit.evidence.results import save

    check_known("profile", profile, PROFILES, "--profile: ")
    if folder is not None and (str(folder) == "-" or folder.is_file()):
        raise SettingError(f"--json: {folder} is no folder; all writes a file for each experiment")
    ran = []
    with progress() as say:
        series = run_all(
            specs=specs,
            profile="full" if profile == "full" else "quick",
            seed=seed,
            progress=say,
        )
        for one in series:
            ran.append(one)
            say.keep(f"{one.experiment} of {one.spec}: {_ending(one)}")
            if folder is not None and one.result is not None:
                save(one.result, folder / f"{one.experiment}-{one.spec}.json")
    show_all(ran)
    if folder is not None:
        note(f"saved to {folder}")
    if failed := [f"{one.experiment} of {one.spec}" for one in ran if one.result is None]:
        complain(f"{len(failed)} of {len(ran)} experiments failed: {', '.join(failed)}")
        raise typer.Exit(FAILED)


def _ending(one: Ran) -> str:
    """How an experiment ended: its figure, or its error."""
    return f"failed: {one.error}" if one.result is None else one.result.figure_text


def _known_peers(text: str) -> str:
    """The text of --peers; SettingError for a name that is not a peer's."""
    from cluster.vocabulary.errors import ClusterError
    from perfkit.bench.goals.serving import chosen_peers

    try:
        chosen_peers(text)
    except ClusterError as error:
        raise SettingError(f"--peers: {error}") from error
    return text


def _measure_goals(name: str, profile: str, seed: int, **given: Any) -> GoalTable:
    module_name, function = TABLES[name]
    module = import_module(module_name)
    check_known("profile", profile, module.PROFILES, "--profile: ")
    with progress() as say:
        table: GoalTable = getattr(module, function)(profile, seed=seed, progress=say, **given)
    return table


def show(result: Result) -> None:
    """The figure and its interval, its goals, what ran, and where."""
    from perfkit.bench.experiments.catalogue import NO_SPEC, judged

    console = out()
    figure = measured(result.value, result.unit, result.low, result.high)
    line = Text(f"{result.experiment} ", "bold").append(figure, "bold green")
    console.print(line.append(f"  of {count_of(len(result.samples), 'sample')}", "dim"))
    for found in judged(result):
        console.print(_goal_line(found))
    by = result.engine if result.spec == NO_SPEC else f"{result.spec} on {result.engine}"
    model = result.parameters.get("model")
    tasks = count_of(result.tasks, "task") + (f" of {model}" if model else "")
    rows = {
        "interval": result.parameters.get("interval") or "none",
        "cluster": f"{by}, {count_of(result.workers, 'worker')}, {tasks}, seed {result.seed}",
        "machine": machine_text(result.environment),
    }
    for name, text in rows.items():
        console.print(f"  {name:<9} {text}", markup=False)
    counters = result.counters
    for name, value in counters.items():
        # The ends of a counter's interval are counters too: name_low and name_high.
        base = name.removesuffix("_low").removesuffix("_high")
        if base == name or base not in counters:
            low, high = counters.get(f"{name}_low"), counters.get(f"{name}_high")
            console.print(f"  {name:<28} {measured(value, '', low, high)}", markup=False)


def show_all(ran: Sequence[Ran]) -> None:
    """A row for each experiment, a line for each goal, and how many goals were met."""
    from perfkit.bench.experiments.catalogue import judged

    console = out()
    figures = plain_table("experiment", "spec", "figure", left=("experiment", "spec", "figure"))
    found: list[tuple[Ran, Judged]] = []
    for one in ran:
        style = "" if one.result else "bold red"
        figures.add_row(one.experiment, one.spec, Text(_ending(one), style))
        found += [(one, row) for row in (judged(one.result) if one.result else ())]
    console.print(figures)
    for one, row in found:
        console.print(_goal_line(row, f"{one.experiment} of {one.spec}, "))
    if found:
        console.print(_tally(found), markup=False)


def _goal_line(found: Judged, whose: str = "") -> Text:
    verdict = Text(f"  {found.verdict:<12} ", STYLES.get(found.verdict, ""))
    reached = estimate(found.figure, found.goal.unit)
    return verdict + Text(f"{whose}{found.goal.what} {_asked(found.goal)}: {reached}")


def _tally(found: Sequence[tuple[Ran, Judged]]) -> str:
    """How many goals were met, and which were not."""
    by_verdict: dict[str, list[str]] = {}
    for one, (goal, _, verdict) in found:
        by_verdict.setdefault(verdict, []).append(f"{goal.what} ({one.experiment}, {one.spec})")
    met = len(by_verdict.pop("met", []))
    others = [f"; {verdict}: {', '.join(names)}" for verdict, names in by_verdict.items()]
    return f"{met} of {len(found)} goals met" + "".join(others)


def _asked(goal: FigureGoal) -> str:
    sign = "≥" if goal.better == "higher" else "≤"
    return f"{sign} {quantity(goal.goal, goal.unit)}"


def show_goals(table: GoalTable) -> None:
    """The goals as a table, then how they were measured and where."""
    console = out()
    shown = plain_table(*table.columns, left=("goal", "asked", "met"))
    for column in shown.columns:
        column.no_wrap = column.header in ("goal", "met")
    for row in table.rows:
        cells = _cells(row)
        shown.add_row(*(cells[name] for name in table.columns))
    console.print(shown)
    how = f"profile {table.profile}, seed {table.seed}, {duration(table.duration_s)}"
    if table.layout:
        console.print(f"  latency   {table.layout}", markup=False)
    console.print(f"  measured  {how}, in turns; 95 % intervals", markup=False)
    console.print(f"  machine   {machine_text(table.environment)}", markup=False)
    for remark in table.notes:
        console.print(f"\n{remark}", markup=False)


def _cells(row: GoalRow) -> dict[str, str | Text]:
    from perfkit.bench.goals.table import cells

    # The interval goes below its figure, to keep the table narrow.
    shown = {name: text.replace(" (", "\n(") for name, text in cells(row).items()}
    shown["bare limit"] = shown["bare limit"].replace(" ", "\n", 1)
    return {**shown, "met": Text(shown["met"], STYLES.get(shown["met"], "dim"))}
