"""``perfkit bench``: one experiment on a fresh engine, or a table of goals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.config import check_known
from perfkit.cli.terminal.measuring import check_experiment, deliver, machine_text, progress
from perfkit.cli.terminal.output import out, plain_table
from perfkit.evidence.text import duration, measured, quantity

if TYPE_CHECKING:
    from perfkit.bench.goals.table import GoalRow, GoalTable
    from perfkit.evidence.results import Result

EXAMPLES = (
    ("tasks per second of the baseline", "perfkit bench throughput --workers 2 --tasks 20000"),
    ("one task in flight: p50, p95, p99", "perfkit bench latency --seed 7"),
    ("a model's work instead of echoes", "perfkit bench throughput --model digits --tasks 2000"),
    ("the same tasks on another engine", "perfkit bench throughput --engine dask"),
    ("with a knob of the spec set", "perfkit bench burst --set burst=100"),
    ("for a program", "perfkit bench throughput --json - | jq .value"),
    ("for a dashboard", "perfkit bench latency --export bmf=bmf.json --export asv=asv.json"),
    ("every goal beside the bare limit", "perfkit bench limits --profile quick"),
    ("the cost of watching GPUs", "perfkit bench gpu"),
    ("every goal of memory", "perfkit bench memory --json memory.json"),
)
#: What measures each table of goals; its module has the `PROFILES` it takes.
TABLES = {
    "limits": ("perfkit.bench.goals.cluster", "measure_cluster"),
    "gpu": ("perfkit.bench.goals.gpu", "measure_gpu"),
    "memory": ("perfkit.bench.goals.memory", "measure_memory"),
}
STYLES = {"met": "green", "missed": "bold red", "inconclusive": "yellow"}


def bench(
    context: typer.Context,
    experiment: Annotated[
        str, typer.Argument(help="throughput, latency, burst or startup; limits, gpu, memory.")
    ],
    spec: opt.SpecName = "baseline",
    workers: opt.WorkerCount = 2,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many; for startup, how many clusters.", show_default="its own"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the payloads and of the interval.")] = 0,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="What runs the tasks: local, zmq, dask or ray.")
    ] = "zmq",
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask a model: magika, digits.")
    ] = None,
    knobs: opt.SpecKnobs = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Of limits, gpu, memory: quick or full.")
    ] = "quick",
    as_json: opt.ResultFile = None,
    export: opt.Exports = None,
) -> None:
    """Measure a fresh cluster on this machine, or another engine given the same tasks.

    Every result is checked before its time counts. The figure comes with an interval, because no
    two runs are alike. `limits` compares every goal with bare ZeroMQ, `gpu` shows what watching
    GPUs costs, and `memory` what each role and each task holds.

    Ends with 1 if a result was wrong or the cluster failed, with 2 if an argument is wrong.
    """
    from perfkit.evidence.results import encode

    if experiment in TABLES:
        unused = "spec workers tasks engine model knobs export"
        opt.refuse(context, unused, f"is not for {experiment}: each goal has its own")
        table = _measure_goals(experiment, profile, seed)
        deliver(table.encode, lambda: show_goals(table), as_json)
        return
    opt.refuse(context, "profile", f"is for {', '.join(TABLES)}; use --tasks")
    check_experiment(experiment, tasks, engine, model)
    exports = opt.export_files(export)
    if engine != "zmq":
        opt.refuse(context, "spec knobs", f"is for the engine zmq; {engine} has no spec")
    chosen = opt.spec_with(spec, knobs)
    from perfkit.bench.experiments.catalogue import run

    with progress() as say:
        result = run(
            experiment,
            spec=chosen,
            workers=workers,
            tasks=tasks,
            seed=seed,
            engine=engine,
            model=model,
            progress=say,
        )
    deliver(lambda: encode(result), lambda: show(result), as_json)
    opt.write_exports([result], exports)


def _measure_goals(name: str, profile: str, seed: int) -> GoalTable:
    module_name, function = TABLES[name]
    module = import_module(module_name)
    check_known("profile", profile, module.PROFILES, "--profile: ")
    with progress() as say:
        table: GoalTable = getattr(module, function)(profile, seed=seed, progress=say)
    return table


def show(result: Result) -> None:
    """The figure and its interval, what ran, and where."""
    from perfkit.bench.experiments.catalogue import NO_SPEC

    console = out()
    figure = measured(result.value, result.unit, result.low, result.high)
    line = Text(f"{result.experiment} ", "bold").append(figure, "bold green")
    console.print(line.append(f"  median of {len(result.samples):,}", "dim"))
    by = result.engine if result.spec == NO_SPEC else f"{result.spec} on {result.engine}"
    model = result.parameters.get("model")
    tasks = f"{quantity(result.tasks)} tasks" + (f" of {model}" if model else "")
    rows = {
        "interval": result.parameters.get("interval") or "none",
        "cluster": f"{by}, {quantity(result.workers)} workers, {tasks}, seed {result.seed}",
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
    for note in table.notes:
        console.print(f"\n{note}", markup=False)


def _cells(row: GoalRow) -> dict[str, str | Text]:
    from perfkit.bench.goals.table import cells

    # The interval goes below its figure, to keep the table narrow.
    shown = {name: text.replace(" (", "\n(") for name, text in cells(row).items()}
    shown["bare limit"] = shown["bare limit"].replace(" ", "\n", 1)
    return {**shown, "met": Text(shown["met"], STYLES.get(shown["met"], "dim"))}
