"""``perfkit bench``: one experiment on a fresh engine, its figure with an interval, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cluster.errors import ClusterError
from perfkit.cli.config import SettingError, build_spec, did_you_mean, parse_knobs
from perfkit.cli.output import err, errors_as_lines, note, out, size

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.bench.environment import Environment
    from perfkit.bench.experiments import Say
    from perfkit.bench.results import Result

EXAMPLES = (
    ("tasks per second of the baseline", "perfkit bench throughput --workers 2 --tasks 20000"),
    ("one task in flight: p50, p95, p99", "perfkit bench latency --seed 7"),
    ("real work instead of echoes", "perfkit bench throughput --model digits --tasks 2000"),
    ("a peer, same tasks", "perfkit bench throughput --engine dask"),
    ("a knob turned", "perfkit bench burst --set burst=100"),
    ("for a program", "perfkit bench throughput --json - | jq .value"),
)


def bench(
    experiment: Annotated[
        str, typer.Argument(help="What to measure: throughput, latency, burst or startup.")
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
    is never quite the same twice.

    Ends with 1 if a result was wrong or the cluster failed, with 2 if an argument is wrong.
    """
    from perfkit.bench.results import ResultError, save

    with errors_as_lines(ClusterError, ResultError):
        _check(experiment, tasks, engine, model)
        chosen = _chosen_spec(engine, spec, knobs or [])
        _check_target(as_json)
        from perfkit.bench.experiments import run

        with _progress() as say:
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
        if as_json != "-":
            show(result)
            if as_json is not None:
                note(f"saved to {as_json}")


def show(result: Result) -> None:
    """The figure and its interval, what it is of, and where it was taken."""
    from perfkit.bench.experiments import NO_SPEC

    console = out()
    line = Text(f"{result.experiment} ", "bold")
    if result.value is None:
        line.append(f"unknown ({result.unit})")
    else:
        line.append(f"{_number(result.value)} {result.unit}", "bold green").append(" median")
        line.append(_interval(result.low, result.high) or "  (no interval)")
    console.print(line.append(f"  n = {len(result.samples):,}", "dim"))
    console.print(f"  interval  {result.parameters.get('interval') or 'none'}", markup=False)
    by = result.engine if result.spec == NO_SPEC else f"{result.spec} on {result.engine}"
    of = f"{by}, {_number(result.workers)} workers"
    model = result.parameters.get("model")
    what = f"tasks of {model}" if model else "tasks"
    console.print(
        f"  cluster   {of}, {_number(result.tasks)} {what}, seed {result.seed}", markup=False
    )
    console.print(f"  machine   {_machine(result.environment)}", markup=False)
    for name, value, low, high in _with_ends(result.counters):
        ends = _interval(low, high)
        console.print(f"  {name:<28} {_number(value):>10}{ends}", markup=False)


def _with_ends(
    counters: Mapping[str, float | int | None],
) -> Iterator[tuple[str, float | int | None, float | int | None, float | int | None]]:
    """Each counter with the ends of its interval, which stand beside it as name_low, name_high."""
    for name, value in counters.items():
        base = name.removesuffix("_low").removesuffix("_high")
        if base == name or base not in counters:
            yield name, value, counters.get(f"{name}_low"), counters.get(f"{name}_high")


def _machine(environment: Environment) -> str:
    cores = environment.cores_available or environment.cores_logical
    parts = [environment.cpu_model or "unknown processor"]
    parts += [f"{cores:g} cores" if cores else "cores unknown"]
    parts += [f"{size(environment.memory_total_bytes)} memory"]
    if environment.load_1min is not None:
        parts.append(f"load {environment.load_1min:.1f} at the start")
    return ", ".join(parts)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"  [{_number(low)} – {_number(high)}]"


def _number(value: float | int | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


@contextmanager
def _progress() -> Iterator[Say]:
    """Where progress goes: one line that changes in a terminal, line after line elsewhere."""
    console = err()
    if not console.is_terminal:
        yield lambda line: print(line, file=sys.stderr, flush=True)
        return
    with console.status("starting …") as status:
        yield status.update


def _check(experiment: str, tasks: int | None, engine: str, model: str | None) -> None:
    """Find what is wrong with the arguments before a cluster is started for them."""
    from cluster.inference import ModelRepository
    from perfkit.bench.experiments import ENGINES, EXPERIMENTS

    for what, word, known in (
        ("experiment", experiment, [*EXPERIMENTS]),
        ("engine", engine, [*ENGINES]),
        ("model", model, ModelRepository().names()),
    ):
        if word is not None and word not in known:
            hint = did_you_mean(word, known)
            raise SettingError(f"there is no {what} {word!r}; there are {', '.join(known)}{hint}")
    most = EXPERIMENTS[experiment].tasks_max
    if tasks is not None and tasks > most:
        raise SettingError(f"--tasks: {experiment} takes 1 to {most:,}, not {tasks:,}")


def _chosen_spec(engine: str, spec: str, knobs: list[str]) -> ClusterSpec:
    """The spec by name with its knobs turned; only a cluster of ours has any."""
    if engine != "zmq" and (spec != "baseline" or knobs):
        raise SettingError(f"--spec and --set are for the engine zmq; {engine} has no such parts")
    return build_spec(spec, parse_knobs(knobs, "--set"))


def _check_target(target: str | None) -> None:
    """A file that can't be written should be known before the minutes are spent."""
    if target is not None and target != "-" and Path(target).is_dir():
        raise SettingError(f"--json: {target} is a directory; name a file")
