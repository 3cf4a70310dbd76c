"""``perfkit report``: run notebooks into a self-contained report.

What happens is `perfkit.report.run_report`; this is how it is asked for in a terminal, in the words
that every report stores as the command to run it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from perfkit.cli.config import SettingError
from perfkit.cli.output import complain, errors_as_lines

EXAMPLES = (
    ("what the cluster does here, a few minutes", "perfkit report"),
    ("what each optimisation is worth", "perfkit report notebooks/02_hot_paths.ipynb"),
    (
        "one of them, with more tasks",
        "perfkit report notebooks/01_baseline.ipynb -p tasks=5000 -p seed=7",
    ),
    ("the long version, for the record", "perfkit report --profile full --cell-timeout 3600"),
    ("in CI: bad news is a failure", "perfkit report --gate || exit $?"),
)


def report(
    notebooks: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="NOTEBOOK",
            help="What to run, in order; else the quick ones of ./notebooks or of the package.",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="quick|full", help="How thorough; notebooks know what it means.")
    ] = "quick",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME=VALUE", help="A parameter of the notebooks; repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Reports go here, a folder for each.")
    ] = Path("reports"),
    cell_timeout: Annotated[
        float,
        typer.Option("--cell-timeout", min=0, metavar="S", help="Seconds for a cell; 0: no limit."),
    ] = 600.0,
    gate: Annotated[
        bool, typer.Option("--gate", help="Let every finding decide the exit code, not only gates.")
    ] = False,
) -> None:
    """Run notebooks into a report and print the path of its index.

    Exit codes: [bold]0[/bold] done · [bold]1[/bold] a cell failed · [bold]2[/bold] wrong
    arguments, nothing was run · [bold]3[/bold] a regression · [bold]4[/bold] inconclusive ·
    [bold]5[/bold] a kernel died · [bold]6[/bold] a cell took too long · [bold]130[/bold]
    interrupted

    A notebook that fails still has its page, with the error on top; the others run all the same.
    """
    from perfkit.report import ReportError, run_report

    with errors_as_lines(ReportError):
        chosen = notebooks or default_notebooks()
        values = _parameters(parameter or [])
        try:
            ran = run_report(
                chosen, profile, values, out, cell_timeout_s=cell_timeout or None, gate=gate
            )
        except ModuleNotFoundError as error:
            complain(f"reports need the extra [lab]: pip install 'perfkit[lab]' ({error})")
            raise typer.Exit(1) from None
    for notebook in ran.notebooks:
        if notebook.failure is not None:
            complain(f"{notebook.name} {notebook.status.value} {notebook.failure.sentence}")
    typer.echo(ran.index_path)
    raise typer.Exit(int(ran.exit_code))


def default_notebooks(here: Path = Path()) -> list[Path]:
    """The numbered notebooks in ``here/notebooks``, or else those that were installed.

    A notebook whose metadata says so (``"perfkit": {"report": "on request"}``) is left out: it
    takes minutes of its own, and whoever wants it names it.

    Raises:
        SettingError: there are none in either place.
    """
    import perfkit

    installed = Path(perfkit.__file__).parent / "_notebooks"
    for folder in (here / "notebooks", installed):
        if found := [path for path in sorted(folder.glob("0*.ipynb")) if not _on_request(path)]:
            return found
    raise SettingError("there is no notebook in ./notebooks and none was installed; name one")


def _on_request(notebook: Path) -> bool:
    try:
        metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
        return bool(metadata["perfkit"]["report"] == "on request")
    except (OSError, ValueError, KeyError, TypeError):
        return False  # what is wrong with it is said when it is run


def _parameters(pairs: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise SettingError(f"-p {pair!r} is no parameter; write it as NAME=VALUE")
        found[name.strip()] = value
    return found
