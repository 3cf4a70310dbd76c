"""``perfkit bench``: one experiment on a fresh engine, its figure with an interval, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli import limits
from perfkit.cli.config import SettingError, build_spec, parse_knobs
from perfkit.cli.measuring import (
    check_experiment,
    check_target,
    interval_text,
    machine_text,
    number,
    progress,
)
from perfkit.cli.output import errors_as_lines, note, out

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.evidence.results import Result

EXAMPLES = (
    ("tasks per second of the baseline", "perfkit bench throughput --workers 2 --tasks 20000"),
    ("one task in flight: p50, p95, p99", "perfkit bench latency --seed 7"),
    ("real work instead of echoes", "perfkit bench throughput --model digits --tasks 2000"),
    ("a peer, same tasks", "perfkit bench throughput --engine dask"),
    ("a knob turned", "perfkit bench burst --set burst=100"),
    ("for a program", "perfkit bench throughput --json - | jq .value"),
    ("every goal beside the bare limit", "perfkit bench limits --profile quick"),
    ("what watching cards costs", "perfkit bench gpu"),
    ("every goal of memory", "perfkit bench memory --json memory.json"),
)


def bench(
    experiment: Annotated[
        str, typer.Argument(help="throughput, latency, burst or startup; limits, gpu, memory.")
    ],
    spec: Annotated[
        str, typer.Option(metavar="NAME", help="The cluster's parts and knobs by name.")
    ] = "baseline",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many; for startup, how many clusters.", show_default="its own"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the payloads and of the interval.")] = 0,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="Who runs the tasks: local, zmq, dask or ray.")
    ] = "zmq",
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask a model: magika, digits.")
    ] = None,
    knobs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KNOB=VALUE", help="Turn a knob of the spec; repeatable."),
    ] = None,
    profile: Annotated[str | None, typer.Option(metavar="NAME", help="Tables: quick, full")] = None,
    as_json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Save the result with its raw samples; - prints it, alone.",
        ),
    ] = None,
) -> None:
    """Measure a fresh cluster on this machine, or another engine given the same tasks.

    Every result is checked before its time counts. The figure comes with an interval: the machine
    is never quite the same twice. `limits` holds every goal against what bare ZeroMQ does, `gpu`
    those of watching cards, `memory` those of memory.

    Ends with 1 if a result was wrong or the cluster failed, with 2 if an argument is wrong.
    """
    if experiment in limits.TABLES:
        others = (spec != "baseline", workers != 2, tasks, engine != "zmq", model, knobs)
        _table(experiment, profile or "quick", seed, as_json, others)
        return
    from perfkit.evidence.results import ResultError, save

    with errors_as_lines(ClusterError, ResultError):
        check_experiment(experiment, tasks, engine, model, profile)
        chosen = _chosen_spec(engine, spec, knobs or [])
        check_target(as_json)
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
        if as_json is not None:
            save(result, as_json)
        _print(lambda: show(result), as_json)


def _table(
    name: str, profile: str, seed: int, as_json: str | None, others: Sequence[object]
) -> None:
    """A table of goals; `others` are the options that it has no use for."""
    from perfkit.evidence.results import ResultError, write

    names = ("spec", "workers", "tasks", "engine", "model", "set")
    with errors_as_lines(ClusterError, ResultError):
        limits.check_words(name, profile, dict(zip(names, others, strict=True)))
        check_target(as_json)
        with progress() as say:
            table = limits.measure(name, profile, seed, say)
        if as_json is not None:
            write(table.encode(), as_json)
        _print(lambda: limits.show(table, machine_text(table.environment)), as_json)


def _print(show_it: Callable[[], None], saved_to: str | None) -> None:
    """Show a result to people, unless a program has been given it on standard output."""
    if saved_to != "-":
        show_it()
        if saved_to is not None:
            note(f"saved to {saved_to}")


def show(result: Result) -> None:
    """The figure and its interval, what it is of, and where it was taken."""
    from perfkit.bench.experiments.catalogue import NO_SPEC

    console = out()
    line = Text(f"{result.experiment} ", "bold")
    if result.value is None:
        line.append(f"unknown ({result.unit})")
    else:
        line.append(f"{number(result.value)} {result.unit}", "bold green").append(" median")
        line.append(interval_text(result.low, result.high) or "  (no interval)")
    console.print(line.append(f"  n = {len(result.samples):,}", "dim"))
    console.print(f"  interval  {result.parameters.get('interval') or 'none'}", markup=False)
    by = result.engine if result.spec == NO_SPEC else f"{result.spec} on {result.engine}"
    of = f"{by}, {number(result.workers)} workers"
    model = result.parameters.get("model")
    what = f"tasks of {model}" if model else "tasks"
    console.print(
        f"  cluster   {of}, {number(result.tasks)} {what}, seed {result.seed}", markup=False
    )
    console.print(f"  machine   {machine_text(result.environment)}", markup=False)
    for name, value, low, high in _with_ends(result.counters):
        ends = interval_text(low, high)
        console.print(f"  {name:<28} {number(value):>10}{ends}", markup=False)


def _with_ends(
    counters: Mapping[str, float | int | None],
) -> Iterator[tuple[str, float | int | None, float | int | None, float | int | None]]:
    """Each counter with the ends of its interval, which stand beside it as name_low, name_high."""
    for name, value in counters.items():
        base = name.removesuffix("_low").removesuffix("_high")
        if base == name or base not in counters:
            yield name, value, counters.get(f"{name}_low"), counters.get(f"{name}_high")


def _chosen_spec(engine: str, spec: str, knobs: list[str]) -> ClusterSpec:
    """The spec by name with its knobs turned; only a cluster of ours has any."""
    if engine != "zmq" and (spec != "baseline" or knobs):
        raise SettingError(f"--spec and --set are for the engine zmq; {engine} has no such parts")
    return build_spec(spec, parse_knobs(knobs, "--set"))
