"""``perfkit model precision``: what fp16, int8, int4 and zeroed weights are worth on this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from cluster.vocabulary.cards import CARD, card_environment
from cluster.vocabulary.errors import ClusterError
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.output import FAILED, complain, note, out, plain_table, write_json
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import size
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from cluster.models.precision import Measured, Row


def precision(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name, or its path.")],
    card: Annotated[
        str | None,
        typer.Option(
            metavar="PCI|any",
            help="Try this card too: its PCI address, or any, the only one there is.  "
            "[dim]\\[default: $PERFKIT_CARD][/dim]",
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="IN.npz", help="Inputs by name, as numpy.savez writes them, to try it with."
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(min=0.0, help="Points of accuracy that auto may lose.")
    ] = 0.5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a run on the CPU.")] = 1,
    version: Annotated[str | None, typer.Option(help="A version, not the newest.")] = None,
    repository: opt.Repository = None,
    as_json: Annotated[Path | None, opt.json_option("Every block's time")] = None,
) -> None:
    """Try a model in each precision on the CPU, and on a card if one is named.

    The loss of accuracy is against the model's own file on the CPU, in points with a 95 % interval:
    per cent of answers with another label, or, for texts, of the rank correlation with graded
    pairs. Times are of blocks that alternate, with the interval of their median. ``precision =
    "auto"`` in a model's config.toml takes the marked one: the fastest whose interval is within the
    budget.

    Ends with 1 if the model does not run on the CPU, or nothing runs on the card.
    """
    from cluster.models.inference import ModelRepository
    from cluster.models.precision import measure_precisions

    opt.find_repository(repository)
    if card is not None:
        try:
            os.environ.update(card_environment(card))
        except ClusterError as error:
            raise SettingError(f"--card: {error}") from None
    providers = ("cpu", "webgpu") if CARD in os.environ else ("cpu",)
    measured = measure_precisions(
        ModelRepository(), name, version, providers=providers, budget_points=budget,
        golden=golden, threads=threads,
    )  # fmt: skip
    speeds = [_speed(row) for row in measured.rows]
    if as_json is None:
        _show(measured, speeds, budget)
    else:
        rows = [
            msgspec.to_builtins(row)
            | speed.columns("items_per_s")
            | {"verdict": _verdict(row, budget), "auto": row is measured.best}
            for row, speed in zip(measured.rows, speeds, strict=True)
        ]
        write_json({"inputs": measured.inputs, "budget_points": budget, "rows": rows}, as_json)
    if any(all(it.trouble for it in measured.rows if it.provider == one) for one in providers):
        raise typer.Exit(FAILED)


def _speed(row: Row) -> Interval:
    """Items a second by the median block, with its interval."""
    return bootstrap_interval([1 / it for it in row.item_s])


def _verdict(row: Row, budget: float) -> str:
    """How the loss stands to the budget; empty without one."""
    return row.loss.verdict(budget) if row.loss else ""


def _show(measured: Measured, speeds: list[Interval], budget: float) -> None:
    table = plain_table(
        "", "precision", "on", "items/s", "× fp32", "loss, points", "file",
        left=("", "precision", "on"),
    )  # fmt: skip
    plain = {it.provider: it.items_per_s for it in measured.rows if it.precision == "fp32"}
    for row, speed in zip(measured.rows, speeds, strict=True):
        base = plain.get(row.provider)
        fast = speed.value is not None and base is not None
        table.add_row(
            "→" if row is measured.best else "",
            row.precision,
            row.provider,
            Text(speed.text() if row.item_s else "failed", "red" if row.trouble else ""),
            f"{speed.value / base:.2f}" if fast and speed.value and base else "",
            str(row.loss).removesuffix(" points") if row.loss else "",
            "" if row.file_bytes is None else size(row.file_bytes),
        )
    out().print(table)
    where = {it.device for it in measured.rows if it.device}
    note(f"by {measured.inputs}; on {', '.join(sorted(where))}")
    if measured.best is not None:
        chosen = f"{measured.best.precision} on {measured.best.provider}"
        note(f"auto takes {chosen}, the fastest that surely loses at most {budget:g} points")
    for row in measured.rows:
        if _verdict(row, budget) == "inconclusive":
            note(f"{row.precision} on {row.provider}: {row.loss}, so auto can't be sure of it")
        if row.trouble:
            complain(f"{row.precision} on {row.provider}: {row.trouble}")
