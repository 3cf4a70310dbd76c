"""``perfkit soak``: does a coordinator leak, under minutes of load and churn or event by event?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.measuring import deliver, machine_text, progress
from perfkit.cli.terminal.output import FAILED, INTERRUPTED, complain, out
from perfkit.evidence.text import duration
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.bench.leaks.check import LeakTable
    from perfkit.bench.leaks.soak import SoakResult

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
    context: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 10.0,
    spec: opt.SpecName = "baseline",
    workers: opt.WorkerCount = 2,
    seed: Annotated[int, typer.Option(help="Of the payloads and of the order of events.")] = 0,
    by_event: Annotated[
        bool,
        typer.Option(
            "--by-event", help="Check each kind of event alone, in one process; it takes a minute."
        ),
    ] = False,
    plant_leak: Annotated[
        bool, typer.Option("--plant-leak", help="Leak 100 B a task on purpose: is it found?")
    ] = False,
    knobs: opt.SpecKnobs = None,
    as_json: opt.ResultFile = None,
) -> None:
    """Soak a fresh cluster: does its coordinator grow under load, failures and churn?

    There are tasks, failures, cancels, timeouts and bad frames; clients come, leave and are killed;
    workers are killed and restarted. The result is what each event leaves behind in objects,
    memory, descriptors, threads and containers, and where memory would be in 24 h. Ctrl-C ends the
    soak early and shows the result so far.

    Ends with 1 if there is a leak or something went wrong, with 2 if an argument is wrong.
    """
    from perfkit.bench.leaks.check import Leak, check_leaks
    from perfkit.bench.leaks.planted import plant

    if by_event:
        opt.refuse(context, "minutes workers seed", "is not for --by-event: it counts events")
    chosen = opt.spec_with(spec, knobs)
    try:
        chosen = plant(chosen) if plant_leak else chosen
    except ClusterError as error:
        raise SettingError(f"--plant-leak: {error}") from None
    found: SoakResult | LeakTable
    with progress() as say:
        if by_event:
            found = check_leaks(chosen, progress=say)
        else:
            from perfkit.bench.leaks.soak import soak as measure

            found = measure(chosen, minutes, workers=workers, seed=seed, progress=say)
    deliver(found.encode, lambda: show(found), as_json)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if found.verdict is Leak.FOUND:
        complain(f"{found.spec} leaks")
        raise typer.Exit(FAILED)


def show(found: SoakResult | LeakTable) -> None:
    """The verdict of a soak or of each kind of event, with its figures."""
    from perfkit.bench.leaks.check import HEADER, Leak, LeakTable, cells

    console = out()
    if not isinstance(found, LeakTable):
        took = duration(found.duration_s) + (", interrupted" if found.interrupted else "")
        console.print(Text(f"soak of {found.spec}, {took}; 95 % intervals", "bold"))
        for name, text in found.lines():
            console.print(Text(f"  {name:<11} {text}", STYLES.get(text.partition(":")[0], "")))
        console.print(f"  machine     {machine_text(found.environment)}", markup=False)
        return
    console.print(Text(f"what each event leaves behind, {found.spec}; 95 % intervals", "bold"))
    for row in found.rows:
        event, events, *figures, verdict = cells(row)
        named = zip(HEADER[2:-1], figures, strict=True)
        console.print(
            Text(f"{event:<15} ").append(verdict, STYLES[verdict]).append(f" in {events}: ")
            + Text(", ".join(f"{name} {figure}" for name, figure in named), "dim")
        )
        if row.verdict is not Leak.NONE:
            console.print(f"  {row.reason}", markup=False)
