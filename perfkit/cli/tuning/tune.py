"""``perfkit tune``: search a spec's knobs for one workload on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.imports import load_named
from perfkit.cli.terminal.measuring import deliver, machine_text, progress
from perfkit.cli.terminal.output import INTERRUPTED, note
from perfkit.cli.terminal.output import out as console_out
from perfkit.optimized.knobs import SettingError, check_known, parse_pairs, turn_knobs

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.bench.tuning.loads import Load
    from perfkit.bench.tuning.tuned import Tuned

STYLES = {"faster": "bold green", "slower": "bold red", "inconclusive": "bold yellow"}
SAMPLERS = ("tpe", "grid")
EXAMPLES = (
    ("five minutes for tasks per second", "perfkit tune throughput --out tuned.json"),
    ("use what it found", "perfkit cluster up --spec tuned.json"),
    ("the p99 of quick tasks beside slow ones", "perfkit tune mixed --objective latency_p99"),
    ("go on from the optimised spec", "perfkit tune latency --spec optimized --minutes 10"),
    (
        "two knobs, one of them with your values",
        "perfkit tune --knob burst=1,64,2048 --knob credit",
    ),
    ("payloads of 1 MiB", "perfkit tune throughput --payload-bytes 1048576 --tasks 50"),
    ("your own mix, as it came", "perfkit tune recorded --recording mix.jsonl"),
    ("a model's work", "perfkit tune throughput --model digits --minutes 10"),
    (
        "your own function",
        "perfkit tune latency --function work.py:resize --items work.py:IMAGES --out tuned.json",
    ),
    ("for a program", "perfkit tune burst --json - | jq .parameters.changes"),
)


Workload: TypeAlias = Annotated[
    str, typer.Argument(help="throughput, submission, latency, burst, mixed or recorded.")
]
Searched: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="KNOB[=V,V…]", help="Search this one, among these values; repeatable."),
]
Minutes: TypeAlias = Annotated[float, typer.Option(min=0.1, help="How long, the proof included.")]
ObjectiveName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="throughput, last_result, latency_p50, latency_p95 or latency_p99.",
        show_default="the workload's own",
    ),
]
Tasks: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="In one repetition.", show_default="its own")
]
PayloadBytes: TypeAlias = Annotated[
    int | None, typer.Option(min=8, help="Of a task to echo.", show_default="200")
]
RecordingFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For recorded: a line of JSON for each task; see the guide."),
]
HandlersName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME", help="For recorded: what runs the tasks.", show_default="echo, …"
    ),
]
FunctionName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--function",
        metavar="MODULE:FUNCTION",
        help="Call your own function, of a module or a FILE.py, with each of the --items.",
    ),
]
Items: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|MODULE:NAME",
        help="For --function: a file with an item of JSON a line, or a list in a module or "
        "FILE.py, or a function that returns one.",
    ),
]
Model: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Ask a model: magika, digits.")
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of the search, the payloads and the order.")]
SamplerName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="tpe learns; grid tries every combination once.")
]
OutFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the spec goes, and beside it the evidence."),
]


def tune(
    context: typer.Context,
    workload: Workload = "throughput",
    spec: opt.SpecName = "baseline",
    knob: Searched = None,
    minutes: Minutes = 5.0,
    workers: opt.WorkerCount = 2,
    objective: ObjectiveName = None,
    tasks: Tasks = None,
    payload_bytes: PayloadBytes = None,
    model: Model = None,
    function: FunctionName = None,
    items: Items = None,
    recording: RecordingFile = None,
    handlers: HandlersName = None,
    seed: Seed = 0,
    sampler: SamplerName = "tpe",
    knobs: opt.SpecKnobs = None,
    out: OutFile = None,
    as_json: opt.ResultFile = None,
) -> None:
    """Search a spec's knobs for one workload on this machine, and prove what was found.

    Candidates run on clusters of their own, each beside the spec that the search began from, so
    that a drifting machine does not decide. The best one is compared with that spec on fresh
    processes. If it is not faster, the file holds the spec that the search began from. Knobs that
    guard a promise, such as limits and checks, are never searched. The file can be given to --spec
    everywhere. Ctrl-C ends the search and keeps what was found so far, without a proof.

    Ends with 1 if the cluster failed, with 2 if an argument is wrong, with 130 if interrupted.
    """
    from perfkit.bench.tuning.search import tune as search

    start = opt.spec_with(spec, knobs)
    check_known("sampler", sampler, SAMPLERS, "--sampler: ")
    if out is not None:
        _check_out(out)
    chosen: dict[str, Any] = {} if knob is None else {"knobs": _space(start, knob)}
    if (function is None) != (items is None):
        raise SettingError("--function and --items belong together: a function is called with them")
    work: dict[str, Any] = {"objective": objective, "tasks": tasks}
    chosen |= {"sampler": sampler, "minutes": minutes, "workers": workers, "seed": seed}
    with progress() as say:
        if function is not None and items is not None:
            opt.refuse(context, "model payload_bytes recording handlers", "is not for --function")
            work |= {"workers": workers, "spec": start, "progress": say}
            load = _own_load(function, items, workload, work)
        else:
            work |= {"payload_bytes": payload_bytes, "model": model, "recording": recording}
            work |= {"seed": seed} | ({"handlers": handlers} if handlers else {})
            load = _load(workload, work)
        found = search(start, load, progress=say, **chosen)
    if out is not None:
        target, evidence = found.save_spec(out)
        note(f"saved {found.spec.name} to {target}, its evidence to {evidence}")
    deliver(found.encode, lambda: show(found), as_json)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


def show(found: Tuned) -> None:
    """The verdict, how it was reached, and the best candidates."""
    console = console_out()
    head, *rest = str(found).splitlines()
    console.print(Text(head, STYLES.get(found.verdict, "bold")))
    for line in rest:
        console.print(line, markup=False)
    console.print(f"machine   {machine_text(found.environment)}", markup=False)


def _load(workload: str, work: dict[str, Any]) -> Load:
    from perfkit.bench.tuning.loads import NoSuchLoad, make_load
    from perfkit.bench.tuning.recorded import NoRecording

    try:
        return make_load(workload, **work)
    except (NoSuchLoad, NoRecording) as error:
        raise SettingError(str(error)) from None


def _own_load(function: str, items: str, workload: str, work: dict[str, Any]) -> Load:
    """The load of a user's own function; SettingError if it or its items don't fit."""
    from perfkit.bench.tuning.functions import UnfitFunction, function_load
    from perfkit.bench.tuning.loads import NoSuchLoad, kind_of
    from perfkit.cli.tuning.items import read_items

    try:
        kind_of(workload, work["objective"])
        called, given = load_named(function), read_items(items)
        if not callable(called):
            raise SettingError(f"--function: {function} is no function but {called!r:.60}")
        return function_load(called, given, workload, **work)
    except (NoSuchLoad, UnfitFunction) as error:
        raise SettingError(str(error)) from None


def _check_out(target: Path) -> None:
    """Refuse a file that can't be written, before minutes are spent."""
    from perfkit.bench.tuning.tuned import EVIDENCE

    if target.suffix != ".json" or target.name.endswith(EVIDENCE):
        raise SettingError(f"--out: a spec's file ends in .json, unlike {target}")
    if target.is_dir() or not target.parent.is_dir():
        raise SettingError(f"--out: {target} is no file in a folder that is there")


def _space(start: ClusterSpec, words: list[str]) -> dict[str, Any]:
    """The knobs of ``--knob`` with their values; SettingError for one that is not searched."""
    from cluster.vocabulary.errors import ClusterError
    from perfkit.bench.tuning.space import space_of

    wanted: dict[str, Any] = {}
    for word in words:
        name, equals, _ = word.partition("=")
        values = parse_pairs([word], "--knob")[name.strip()].split(",") if equals else []
        wanted[name.strip()] = [_value(start, name.strip(), text) for text in values]
    try:
        return dict(space_of(start, wanted))
    except ClusterError as error:
        raise SettingError(f"--knob: {error}") from None


def _value(start: ClusterSpec, knob: str, text: str) -> Any:
    """A value of a knob from its text, as ``--set`` reads it."""
    from perfkit.optimized.knobs import value_of

    return value_of(turn_knobs(start, {knob: text}), knob)
