"""``perfkit specs``: the specs by name, and the knobs of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.output import out, plain_table, write_json

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from perfkit.optimized.knobs import Knob

EXAMPLES = (
    ("every spec, and how it differs from the baseline", "perfkit specs"),
    ("every knob of the optimised one, and what it means", "perfkit specs optimized"),
    ("for a program", "perfkit specs --json | jq .optimized"),
)


def specs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The spec to look into.")
    ] = None,
    as_json: Annotated[Path | None, opt.json_option("The knobs of each spec shown")] = None,
) -> None:
    """List the specs of a cluster, or every knob of one: its value and what it means.

    A spec names the parts and the knobs of a whole cluster. Other commands take it by --spec, and
    change single knobs by --set KNOB=VALUE.

    Ends with 2 if there is no such spec.
    """
    from perfkit.optimized.knobs import knobs
    from perfkit.optimized.specs import SPECS

    chosen = SPECS if name is None else {name: opt.spec_with(name, None)}
    if as_json is not None:
        found = {key: [knob._asdict() for knob in knobs(spec)] for key, spec in chosen.items()}
        write_json(found, as_json)
        return
    if name is None:
        columns = ("spec", "differs from the baseline in")
        rows = [(key, _changes(spec)) for key, spec in chosen.items()]
    else:
        columns = ("knob", f"{name}, where it differs from the baseline: *")
        rows = [(knob.name, _line(knob)) for knob in knobs(chosen[name])]
    table = plain_table(*columns, left=columns)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    out().print(table)


def _changes(spec: ClusterSpec) -> str:
    from perfkit.optimized.knobs import changes

    return ", ".join(f"{knob.name}={knob.value}" for knob in changes(spec)) or "nothing"


def _line(knob: Knob) -> str:
    mark = "" if knob.value == knob.baseline else "* "
    return f"{mark}{knob.value} ({knob.takes}): {knob.about}"
