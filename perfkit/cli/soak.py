"""``perfkit soak``: minutes of load and churn, or each kind of event by itself; is there a leak?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.config import SettingError, build_spec, parse_knobs
from perfkit.cli.measuring import check_target, machine_text, progress
from perfkit.cli.output import FAILED, complain, errors_as_lines, note, out

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.bench.leaks.check import LeakTable
    from perfkit.bench.leaks.soak import SoakResult

INTERRUPTED = 130
STYLES: Mapping[str, str] = {
    "leak": "bold red", "no leak found": "green", "inconclusive": "yellow",
}  # fmt: skip

EXAMPLES = (
    ("ten minutes of the optimised cluster", "perfkit soak --minutes 10 --spec optimized"),
    ("each kind of event, a minute", "perfkit soak --by-event --spec optimized"),
    ("overnight, for a program", "perfkit soak --minutes 480 --json soak.json"),
    ("does it find a leak?", "perfkit soak --minutes 1 --plant-leak"),
)


def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 10.0,
    spec: Annotated[
        str, typer.Option(metavar="NAME", help="The cluster's parts and knobs by name.")
    ] = "baseline",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the payloads and of the order of things.")] = 0,
    by_event: Annotated[
        bool,
        typer.Option(
            "--by-event", help="Check each kind of event alone, without processes; no --minutes."
        ),
    ] = False,
    plant_leak: Annotated[
        bool, typer.Option("--plant-leak", help="Leak 100 B a task on purpose: is it found?")
    ] = False,
    knobs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KNOB=VALUE", help="Turn a knob of the spec; repeatable."),
    ] = None,
    as_json: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Save the result with every reading; - prints it, alone."
        ),
    ] = None,
) -> None:
    """Soak a fresh cluster: does its coordinator grow under load, failures and churn?

    Tasks, failures, cancels, timeouts, bad frames, clients that come, leave and are killed, workers
    that are killed and restarted: what is left of each in objects, memory, descriptors, threads and
    containers, and where memory would be in 24 h. Ctrl-C ends it early, with what was found so far.

    Ends with 1 if there is a leak or something went wrong, with 2 if an argument is wrong.
    """
    from perfkit.bench.leaks.check import Leak, check_leaks
    from perfkit.evidence.results import ResultError, write

    with errors_as_lines(ClusterError, ResultError):
        chosen = _chosen(spec, knobs or [], plant_leak)
        check_target(as_json)
        found: SoakResult | LeakTable
        with progress() as say:
            if by_event:
                found = check_leaks(chosen, progress=say)
            else:
                from perfkit.bench.leaks.soak import soak as measure

                found = measure(chosen, minutes, workers=workers, seed=seed, progress=say)
        if as_json is not None:
            write(found.encode(), as_json)
        if as_json != "-":
            show(found)
            if as_json is not None:
                note(f"saved to {as_json}")
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if found.verdict is Leak.FOUND:
        complain(f"{found.spec} leaks")
        raise typer.Exit(FAILED)


def _chosen(spec: str, knobs: list[str], plant_leak: bool) -> ClusterSpec:
    """The spec by name with its knobs turned, perhaps with a leak in it; raises SettingError."""
    from perfkit.bench.leaks.planted import plant

    chosen = build_spec(spec, parse_knobs(knobs, "--set"))
    try:
        return plant(chosen) if plant_leak else chosen
    except ClusterError as error:
        raise SettingError(f"--plant-leak: {error}") from None


def show(found: SoakResult | LeakTable) -> None:
    """What was found, to people."""
    from perfkit.bench.leaks.check import HEADER, Leak, LeakTable, cells

    console = out()
    if not isinstance(found, LeakTable):
        ended = ", interrupted" if found.interrupted else ""
        console.print(
            Text(f"soak of {found.spec}, {found.duration_s:,.0f} s{ended}; 95 % intervals", "bold")
        )
        for name, text in found.lines():
            console.print(Text(f"  {name:<11} {text}", STYLES.get(text.partition(":")[0], "")))
        console.print(f"  machine     {machine_text(found.environment)}", markup=False)
        return
    console.print(Text(f"what is left of each event, {found.spec}; 95 % intervals", "bold"))
    for row in found.rows:
        event, events, *figures, verdict = cells(row)
        named = zip(HEADER[2:-1], figures, strict=True)
        console.print(
            Text(f"{event:<15} ").append(verdict, STYLES[verdict]).append(f" in {events}: ")
            + Text(", ".join(f"{name} {figure}" for name, figure in named), "dim")
        )
        if row.verdict is not Leak.NONE:
            console.print(f"  {row.reason}", markup=False)
