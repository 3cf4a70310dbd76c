"""``perfkit gpu``: the AMD cards of this machine, read from sysfs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.output import is_drawn_in_place, note, out, show_live, write_json
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfkit.gpu.card import Cards
    from perfkit.gpu.device.schema import GpuSample

LOOK_EVERY_S = 1.0
#: Waited on between two looks; nothing sets it but a test, and Ctrl-C ends the wait.
PAUSE = threading.Event()
#: How often the live table's figures are read.
WATCH_HZ = {"activity": 2.0, "thermal": 1.0}

EXAMPLES = (
    ("every AMD card", "perfkit gpu"),
    ("left open: the last minute of each", "perfkit gpu --watch"),
    ("for a program", "perfkit gpu --json | jq '.[].power_w'"),
    ("a line of JSON each second", "perfkit gpu --json --watch"),
    ("a tree recorded from another machine", "perfkit gpu --drm-root ./rx580 --json"),
    ("the processes that use them", "perfkit gpu --processes"),
)


def gpu(
    drm_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder that stands in for /sys/class/drm."),
    ] = None,
    as_json: Annotated[Path | None, opt.json_option("A list of cards")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="A live table with the last minute, until Ctrl-C.")
    ] = False,
    tools: Annotated[
        bool,
        typer.Option(
            "--tools",
            help="Ask amdsmi, rocm-smi and amd-smi for missing fields.",
        ),
    ] = False,
    processes: Annotated[
        bool, typer.Option("--processes", help="Also the use by each process; root sees all.")
    ] = False,
) -> None:
    """Show every AMD card: utilisation, memory, clocks, power, temperatures, fan, PCIe link.

    The driver's files in sysfs are read, so no ROCm is needed and old cards answer too. A suspended
    card is not woken. Unknown values are null, and `errors` says why; `source` says where each
    value is from.

    Ends with 0 if there is no card, and with 2 if the folder is missing.
    """
    from perfkit.gpu.card import Cards
    from perfkit.gpu.device.discovery import DRM_ROOT
    from perfkit.gpu.sources.tools import vendor_tools

    if drm_root is not None and not drm_root.is_dir():
        raise SettingError(f"--drm-root: {drm_root} is not a folder")
    if tools and drm_root is not None:
        note("--tools asks this machine: an answer counts for the card with its PCI address")
    asked = vendor_tools() if tools else ()
    with closing(Cards(drm_root or DRM_ROOT, asked)) as cards:
        _show(cards, as_json=as_json, watch=watch, processes=processes)
    if not any(tool.has_answered for tool in asked):
        for text in [tool.error for tool in asked if tool.error is not None]:
            note(text)


def _show(cards: Cards, *, as_json: Path | None, watch: bool, processes: bool) -> None:
    if as_json is not None and not len(cards):
        note(_no_card(cards))
    if watch and as_json is not None:
        _watch_json(cards, as_json, processes)
    elif watch:
        show_live(live_views(cards, processes))
    elif as_json is not None:
        write_json(facts(cards.sample(), processes), as_json, indent=2)
    else:
        out().print(view(cards, processes))


def _watch_json(cards: Cards, as_json: Path, processes: bool) -> None:
    """Write a line each second; what could not be seen of the processes is said once."""
    from perfkit.cli.cards.views import watched_samples
    from perfkit.gpu.sampler import GpuSampler

    notes = True
    with GpuSampler(cards, rates_hz=WATCH_HZ) as sampler:
        while True:
            found = facts(watched_samples(sampler), processes, notes=notes)
            write_json(found, as_json, indent=None)
            notes = False
            if PAUSE.wait(LOOK_EVERY_S):
                return


def _no_card(cards: Cards) -> str:
    from perfkit.gpu.device.discovery import no_card_text

    return no_card_text(cards.root, cards.skipped)


def facts(
    samples: Sequence[GpuSample], processes: bool = False, *, notes: bool = True
) -> list[dict[str, Any]]:
    """The samples as JSON values; the fields are those of `GpuSample`.

    With `notes` it also says what could not be seen of the processes.
    """
    found = [sample.to_dict() for sample in samples]
    if processes:
        from dataclasses import asdict

        from perfkit.gpu.processes import fdinfo

        seen = fdinfo.look()
        for text in seen.notes if notes else ():
            note(text)
        for card in found:
            card["processes"] = [asdict(use) for use in seen.uses if use.pci == card["pci"]]
    return found


def view(cards: Cards, processes: bool = False) -> RenderableType:
    """A few lines for each card, with its unknown fields, and the processes that use it."""
    from rich.console import Group

    from perfkit.cli.cards.views import ProcessWatch, card_lines

    samples = cards.sample()
    if not samples:
        return Text(_no_card(cards), "yellow")
    lines = [line for sample in samples for line in card_lines(sample)]
    return Group(*lines, *(ProcessWatch().views(time.monotonic()) if processes else ()))


def live_views(cards: Cards, processes: bool = False) -> Iterator[RenderableType]:
    """The table of the cards, again and again; plain lines if it isn't drawn in place."""
    from rich.console import Group

    from perfkit.cli.cards.views import ProcessWatch, Watch, live_table, plain_lines
    from perfkit.gpu.sampler import GpuSampler
    from perfkit.profile.activity.sparklines import RAMPS

    with GpuSampler(cards, rates_hz=WATCH_HZ) as sampler:
        watch, users = Watch(sampler), ProcessWatch()
        while True:
            console, seen, now_s = out(), watch.cards(), time.monotonic()
            view: RenderableType
            if not seen:
                view = Text(_no_card(cards), "yellow")
            elif is_drawn_in_place(console):
                ramp = RAMPS[console.encoding.lower().startswith("utf")]
                view = live_table(seen, console.width, now_s, ramp)
            else:
                view = plain_lines(seen)
            yield Group(view, *users.views(now_s)) if processes else view
            if PAUSE.wait(LOOK_EVERY_S):
                return
