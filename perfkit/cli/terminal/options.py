"""The options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cluster.spec import ClusterSpec
from perfkit.cli.terminal.config import DEFAULT_BIND, Settings, load
from perfkit.cli.terminal.output import note
from perfkit.optimized.knobs import SettingError, build_spec, check_known, parse_pairs

if TYPE_CHECKING:
    from perfkit.evidence.results import Result


class OutputLevel(StrEnum):
    """What of the workers' output is shown."""

    INFO = "info"
    WARNING = "warning"
    OFF = "off"


SPEC_HELP = "The cluster's parts and knobs, by name or in a file of perfkit tune."
_KNOB_HELP = "Set a knob of the spec, e.g. limits.heartbeat_s=0.5; repeatable."


def setting(text: str, *names: str, default: object = None, **more: Any) -> Any:
    """An option that the file and the environment can give too; the help shows its default."""
    shown = "" if default is None else f"  [dim]\\[default: {default}][/dim]"
    panel = "Settings (perfkit.toml, PERFKIT_… and these flags; the later wins)"
    return typer.Option(*names, help=text + shown, rich_help_panel=panel, **more)


Config: TypeAlias = Annotated[
    Path | None,
    setting(
        "Settings as TOML; without it [bold]PERFKIT_CONFIG[/bold], else perfkit.toml of your "
        "configuration folder and of this one.",
        metavar="FILE",
    ),
]
Endpoint: TypeAlias = Annotated[
    str | None,
    setting("Where the coordinator is.", metavar="ENDPOINT", default=DEFAULT_BIND),
]
Bind: TypeAlias = Annotated[
    str | None,
    setting(
        "Where the coordinator listens; port * is any free one.",
        metavar="ENDPOINT",
        default=DEFAULT_BIND,
    ),
]
Insecure: TypeAlias = Annotated[
    bool | None,
    setting(
        "Listen beyond this machine. There are no keys: anyone who reaches it can submit work.",
        "--insecure",
    ),
]
Spec: TypeAlias = Annotated[str | None, setting(SPEC_HELP, metavar="NAME|FILE", default="baseline")]
Knobs: TypeAlias = Annotated[list[str] | None, setting(_KNOB_HELP, "--set", metavar="KNOB=VALUE")]
Models: TypeAlias = Annotated[
    list[str] | None,
    setting(
        "A model to serve: magika, digits, minilm, one of your repository, or the path of an .onnx "
        "file or a model's folder; repeatable.",
        "--model",
        metavar="NAME|PATH",
    ),
]
Repository: TypeAlias = Annotated[
    str | None,
    setting(
        "The folder of your own models.  [dim]\\[default: ~/.local/share/perfkit/models][/dim]",
        metavar="DIR",
    ),
]
Capacity: TypeAlias = Annotated[int | None, setting("Tasks at once, per worker.", default=1)]
Handlers: TypeAlias = Annotated[
    str | None,
    setting(
        "The registry of what a worker can do, besides models.",
        metavar="MODULE:NAME",
        default=Settings().handlers,
    ),
]
Gpu: TypeAlias = Annotated[
    bool, typer.Option("--gpu", help="Report this machine's AMD cards with each heartbeat.")
]

LogLevel: TypeAlias = Annotated[
    OutputLevel,
    typer.Option(help="Workers' output to show: all, standard error alone, or none."),
]
LogFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        help="Append the workers' output here.  "
        "[dim]\\[default: ~/.local/state/perfkit/workers.log][/dim]",
    ),
]

# Commands that measure start clusters of their own and read no settings.
SpecName: TypeAlias = Annotated[str, typer.Option(metavar="NAME|FILE", help=SPEC_HELP)]
SpecKnobs: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help=_KNOB_HELP)
]
WorkerCount: TypeAlias = Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")]


def json_option(text: str, *, folder: str = "") -> Any:
    """``--json [FILE]``: alone, or with ``-``, it prints JSON and nothing else.

    A command that can write a `folder` says when, and calls `check_file` otherwise.
    """
    return typer.Option(
        "--json",
        metavar="[FILE]",
        dir_okay=bool(folder),
        allow_dash=True,
        callback=None if folder else check_file,
        help=f"{text}; print it, or save it in FILE{folder and f' ({folder})'}.",
    )


def check_file(target: Path | None) -> Path | None:
    """Refuse a file that is not there to be written: a result must not replace a user's own file,
    and a misspelt folder is no reason to make one.
    """
    if target is None or str(target) == "-":
        return target
    if target.is_dir():
        raise typer.BadParameter(f"{target} is a folder; name a file", param_hint="'--json'")
    if target.exists() and not target.is_file():
        return target  # a device or a pipe
    if target.suffix != ".json":
        message = f"{target} does not end in .json; --json - prints"
        raise typer.BadParameter(message, param_hint="'--json'")
    if not target.parent.is_dir():
        message = f"there is no folder {target.parent}; make it first"
        raise typer.BadParameter(message, param_hint="'--json'")
    return target


ResultFile: TypeAlias = Annotated[Path | None, json_option("The result with every raw figure")]

Exports: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--export",
        metavar="FORMAT=FILE",
        help="Also save for a dashboard: pytest-benchmark, asv, bmf (Bencher's); repeatable.",
    ),
]


def settings(config: Path | None, knobs: list[str] | None = None, **flags: object) -> Settings:
    """The settings of this call, from the file, the environment of this process, and the flags.

    Raises:
        SettingError: one of them is wrong; see `perfkit.cli.terminal.config.load`.
    """
    flags["set"] = parse_pairs(knobs or [], "--set")
    # An empty list or mapping is a repeatable flag that was not given.
    given = {name: value for name, value in flags.items() if value not in (None, [], {})}
    return load(config, os.environ, given, note)


def find_repository(named: str | None, *, must_exist: bool = True) -> Path:
    """The folder of the user's own models: the one named here, or by default. A named one is that
    of all processes that are started from here.

    Raises:
        SettingError: a named one that must exist is no folder.
    """
    from cluster.models.repository.folders import VARIABLE, default_repository

    if named is not None:
        if must_exist and not Path(named).is_dir():
            raise SettingError(f"--repository: there is no folder {named}")
        os.environ[VARIABLE] = os.path.abspath(named)
    return default_repository()


def find_models(settings: Settings) -> None:
    """Look for the models of some settings before a process is started for them.

    Raises:
        SettingError: there is no such model, or no such repository.
    """
    find_repository(settings.repository)
    if settings.models:
        from cluster.models.inference import ModelError, model_kinds

        try:
            model_kinds(settings.models)
        except ModelError as error:
            raise SettingError(str(error)) from None


def spec_with(name: str, knobs: list[str] | None) -> ClusterSpec:
    """The named spec with the knobs of ``--set``; SettingError as in `build_spec`."""
    return build_spec(name, parse_pairs(knobs or [], "--set"))


def given(context: typer.Context) -> set[str]:
    """The parameters that the command line gave, by their names in the function."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def export_files(pairs: list[str] | None) -> dict[str, Path]:
    """The files of ``--export FORMAT=FILE`` by format; SettingError for an unknown format."""
    from perfkit.evidence.exports import FORMATS

    found = parse_pairs(pairs or [], "--export")
    for name in found:
        check_known("format", name, FORMATS, "--export: ")
    return {name: Path(file) for name, file in found.items()}


def write_exports(results: Sequence[Result], files: Mapping[str, Path]) -> None:
    """Write results in each format; raises ResultError if one can't hold them."""
    from perfkit.evidence.exports import FORMATS
    from perfkit.evidence.results import write

    for name, file in files.items():
        write(FORMATS[name](results), file)
        note(f"saved as {name} to {file}")


def refuse(context: typer.Context, names: str, reason: str) -> None:
    """Raise SettingError if an option was given that has no meaning here.

    ``names`` are those of the command's parameters, apart by blanks.
    """
    found = given(context)
    for parameter in context.command.params:
        if parameter.name in found and parameter.name in names.split():
            raise SettingError(f"{parameter.opts[0]} {reason}")
