"""``perfkit gpu``: the AMD cards of this machine, read from sysfs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.config import SettingError
from perfkit.cli.terminal.output import note, out, show_live, write_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfkit.gpu.card import Cards
    from perfkit.gpu.schema import GpuSample

LOOK_EVERY_S = 1.0

EXAMPLES = (
    ("every AMD card", "perfkit gpu"),
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
        bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")
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
    from perfkit.gpu.discovery import DRM_ROOT
    from perfkit.gpu.tools import vendor_tools

    if drm_root is not None and not drm_root.is_dir():
        raise SettingError(f"--drm-root: {drm_root} is not a folder")
    if tools and drm_root is not None:
        raise SettingError("--tools asks this machine's cards; leave out --drm-root")
    with closing(Cards(drm_root or DRM_ROOT, vendor_tools() if tools else ())) as cards:
        _show(cards, as_json=as_json, watch=watch, processes=processes)


def _show(cards: Cards, *, as_json: Path | None, watch: bool, processes: bool) -> None:
    from perfkit.gpu.discovery import no_card_text

    pause = threading.Event()
    if as_json is not None:
        if not len(cards):
            note(no_card_text(cards.root, cards.skipped))
        write_json(facts(cards, processes), as_json, indent=None if watch else 2)
        while watch and not pause.wait(LOOK_EVERY_S):
            cards.refresh()
            write_json(facts(cards, processes), as_json, indent=None)
        return
    if not watch:
        out().print(view(cards, processes))
        return

    def views() -> Iterator[RenderableType]:
        yield view(cards, processes)
        while not pause.wait(LOOK_EVERY_S):
            cards.refresh()
            yield view(cards, processes)

    show_live(views())


def facts(cards: Cards, processes: bool = False) -> list[dict[str, Any]]:
    """The samples as JSON values; the fields are those of `GpuSample`."""
    found = [sample.to_dict() for sample in cards.sample()]
    if processes:
        from dataclasses import asdict

        from perfkit.gpu.fdinfo import processes as all_processes

        uses = [asdict(use) for use in all_processes()]
        for card in found:
            card["processes"] = [use for use in uses if use["pci"] == card["pci"]]
    return found


def view(cards: Cards, processes: bool = False) -> RenderableType:
    """A few lines for each card, with its unknown fields, and the processes that use it."""
    from rich.console import Group
    from rich.text import Text

    from perfkit.gpu.discovery import no_card_text

    samples = cards.sample()
    if not samples:
        return Text(no_card_text(cards.root, cards.skipped), "yellow")
    lines: list[Text] = []
    for sample in samples:
        head = [sample.name or "AMD card", sample.driver or "no driver", sample.state.value]
        lines.append(Text.assemble((sample.pci or sample.card, "bold"), f"  {', '.join(head)}"))
        lines += [Text(f"  {line}") for line in _lines(sample)]
        if sample.errors:
            lines.append(Text(f"  unknown or doubtful: {', '.join(sample.errors)}", "dim"))
    return Group(*lines, *(map(Text, _process_lines()) if processes else ()))


def _process_lines() -> list[str]:
    from perfkit.evidence.text import size
    from perfkit.gpu.fdinfo import processes

    return [
        f"{use.pci}  pid {use.pid} {use.name or '?'}: VRAM {size(use.vram_bytes)}, "
        f"GTT {size(use.gtt_bytes)}"
        for use in processes()
    ]


def _lines(sample: GpuSample) -> list[str]:
    from perfkit.evidence.text import quantity, size

    kind = f" ({sample.power_kind.value})" if sample.power_kind else ""
    width = "" if sample.pcie_width is None else f".0 x{sample.pcie_width}"
    return [
        f"busy {quantity(sample.gpu_busy_pct, '%')}, memory controller "
        f"{quantity(sample.mem_busy_pct, '%')}; VRAM {size(sample.vram_used_bytes)} of "
        f"{size(sample.vram_total_bytes)}, GTT {size(sample.gtt_used_bytes)}",
        f"core {quantity(sample.sclk_hz, 'MHz', 1e-6)}, memory "
        f"{quantity(sample.mclk_hz, 'MHz', 1e-6)}, {quantity(sample.voltage_mv, 'mV')}; power "
        f"{quantity(sample.power_w, 'W')}{kind} of {quantity(sample.power_cap_w, 'W')}",
        f"edge {quantity(sample.temp_edge_c, '°C')}, junction "
        f"{quantity(sample.temp_junction_c, '°C')}, memory {quantity(sample.temp_memory_c, '°C')}; "
        f"fan {quantity(sample.fan_rpm, 'rpm')}; PCIe {quantity(sample.pcie_gen)}{width}",
    ]
