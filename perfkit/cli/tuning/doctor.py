"""``perfkit doctor``: what spoils this machine's figures, and what would make it faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.measuring import deliver, machine_text, progress
from perfkit.cli.terminal.output import FAILED, out
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.bench.tuning.advice import Checkup

STYLES = {"fault": "bold red", "advice": "bold yellow", "fine": "green"}
EXAMPLES = (
    ("what should I change?", "perfkit doctor"),
    ("measure what no saved result tells, a minute", "perfkit doctor --measure"),
    ("beside the spec that you use", "perfkit doctor --spec tuned.json --measure"),
    ("before a long measurement", "perfkit doctor --check && perfkit report"),
    ("for a program", "perfkit doctor --json - | jq '.advice[] | select(.gain)'"),
)


def doctor(
    spec: opt.SpecName = "baseline",
    measure: Annotated[
        bool, typer.Option("--measure", help="Compare on clusters, at most about a minute.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with 1 if figures would be worthless now.")
    ] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Saved results, those in its */results too; repeatable.",
            show_default="reports and .",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show what needs nothing, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the payloads and the order.")] = 0,
    knobs: opt.SpecKnobs = None,
    as_json: Annotated[Path | None, opt.json_option("Every finding")] = None,
) -> None:
    """Read the machine, its software, cards and saved results, and rank what to change.

    Faults come first: they make figures worthless. Advice follows by its gain, the measured first,
    and says where the gain is from. What can't be read is unknown.

    Ends with 0 whatever it finds; with --check, with 1 if there is a fault.
    """
    from perfkit.bench.tuning.checkup import doctor as examine
    from perfkit.bench.tuning.saved import FOLDERS

    chosen = opt.spec_with(spec, knobs)
    for folder in results or ():
        if not folder.is_dir():
            raise SettingError(f"--results: {folder} is not a folder")
    with progress() as say:
        found = examine(
            chosen, measure=measure, results=results or FOLDERS, seed=seed, progress=say
        )
    deliver(found.encode, lambda: show(found, everything), as_json)
    if check and found.faults:
        raise typer.Exit(FAILED)


def show(found: Checkup, everything: bool) -> None:
    """The findings, most urgent first, and the machine."""
    console = out()
    head, *lines = found.describe(all_rows=everything).splitlines()
    console.print(Text(head, "bold"))
    for line in lines:
        style = STYLES.get(line.split(" ", 1)[0], "")
        console.print(Text(line[:8], style).append(Text(line[8:])))
    console.print(f"machine  {machine_text(found.environment)}", markup=False)
