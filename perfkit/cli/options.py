"""The options that several commands share, said once, so that they mean the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from perfkit.cli.config import DEFAULT_BIND, Settings, load, parse_knobs

SETTINGS_PANEL = "Settings (perfkit.toml, PERFKIT_… and these flags; the later wins)"

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings as TOML; without it [bold]PERFKIT_CONFIG[/bold], then ./perfkit.toml.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Endpoint: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="ENDPOINT",
        help=f"Where the coordinator is.  [dim]\\[default: {DEFAULT_BIND}][/dim]",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Bind: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="ENDPOINT",
        help="Where the coordinator listens; port * is any free one.  "
        f"[dim]\\[default: {DEFAULT_BIND}][/dim]",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Insecure: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Listen beyond this machine. There are no keys: whoever reaches it can submit work.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Spec: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The cluster's parts and knobs by name.  [dim]\\[default: baseline][/dim]",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Knobs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KNOB=VALUE",
        help="Turn a knob of the spec, e.g. limits.heartbeat_s=0.5; repeatable.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A model to serve: magika, digits, minilm; repeatable.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Capacity: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Tasks at once, per worker.  [dim]\\[default: 1][/dim]",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Handlers: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="The registry of what a worker can do, besides models.  "
        "[dim]\\[default: cluster.work.workloads:HANDLERS][/dim]",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
Gpu: TypeAlias = Annotated[
    bool,
    typer.Option("--gpu", help="Announce this machine's AMD cards and tell how they are."),
]


def settings(config: Path | None, knobs: list[str] | None = None, **flags: object) -> Settings:
    """The settings of this call: the file, the environment of this process, and the flags given.

    A list that is empty is a repeatable flag that was not given.

    Raises:
        SettingError: one of them is wrong; see `perfkit.cli.config.load`.
    """
    given = {name: value if value != [] else None for name, value in flags.items()}
    return load(
        config, os.environ, {**given, "set": parse_knobs(knobs, "--set") if knobs else None}
    )
