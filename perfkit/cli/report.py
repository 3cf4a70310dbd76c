"""``perfkit report``: run notebooks into a self-contained report.

`perfkit.report.run_report` does the work. Every report stores its command line, so that it can be
run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from perfkit.cli.baseline import gate_against
from perfkit.cli.terminal.output import complain
from perfkit.optimized.knobs import SettingError, parse_pairs

#: In the place of a notebook: the history of all runs.
INDEX = "index"
#: The notebook that shows what there is, and measures nothing for a report.
TOUR = "00_tour"
EXAMPLES = (
    ("what the cluster does here, a few minutes", "perfkit report"),
    ("what each optimisation is worth", "perfkit report --only 02"),
    (
        "one of them, with more tasks",
        "perfkit report notebooks/01_baseline.ipynb -p tasks=5000 -p seed=7",
    ),
    ("the long version, for the record", "perfkit report --profile full --cell-timeout 3600"),
    (
        "… and is the code slower?",
        "perfkit report --against reports/baselines/MACHINE.json",
    ),
    ("in CI: bad news is a failure", "perfkit report --gate || exit $?"),
    ("every figure over all runs in ./reports", "perfkit report index"),
)


Against: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="FILE",
        help="A saved baseline; measure the coordinator, and let slower code be a regression.",
    ),
]


def report(
    notebooks: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="NOTEBOOK",
            help="Run these, in order; without any, those of ./notebooks or the package. "
            "The word index writes the history of all runs instead.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PREFIX", help="Run those that begin so; repeatable."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(metavar="quick|full", help="How thorough: the notebooks' sizes."),
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
    against: Against = None,
) -> None:
    """Run notebooks into a report and print the path of its index page.

    Exit codes: [bold]0[/bold] done · [bold]1[/bold] a cell failed · [bold]2[/bold] wrong
    arguments, nothing was run · [bold]3[/bold] a missed goal or a regression · [bold]4[/bold]
    inconclusive · [bold]5[/bold] a kernel died · [bold]6[/bold] a cell took too long ·
    [bold]130[/bold] interrupted

    A notebook that fails still has its page, with the error on top, and the others still run.
    """
    from perfkit.report import run_report, write_history

    more = {} if against is None else gate_against(against)
    if notebooks == [Path(INDEX)]:
        print(write_history(out))
        return
    chosen = chosen_notebooks(notebooks or [], only or [])
    values = parse_pairs(parameter or [], "-p")
    try:
        ran = run_report(
            chosen, profile, values, out, cell_timeout_s=cell_timeout or None, gate=gate, **more
        )
    except ModuleNotFoundError as error:
        complain(f"reports need the extra [lab]: pip install 'perfkit[lab]' ({error})")
        raise typer.Exit(1) from None
    for notebook in ran.notebooks:
        if notebook.failure is not None:
            complain(f"{notebook.name} {notebook.status.value} {notebook.failure.sentence}")
    print(ran.index_path)
    raise typer.Exit(int(ran.exit_code))


def chosen_notebooks(named: Sequence[Path], only: Sequence[str]) -> Sequence[Path]:
    """Those that are named, else those that `only` chooses, else all but the tour.

    Raises:
        SettingError: both are given, or there is none to run.
    """
    if named and only:
        raise SettingError("--only chooses from the notebooks of a folder; leave out NOTEBOOK")
    if named or only:
        return named or only_notebooks(only)
    return [path for path in all_notebooks() if not path.stem.startswith(TOUR)]


def only_notebooks(prefixes: Sequence[str], here: Path = Path()) -> list[Path]:
    """The notebooks of `all_notebooks` whose names begin with one of `prefixes`, in their order.

    Raises:
        SettingError: a prefix fits none, or there are no notebooks.
    """
    known = all_notebooks(here)
    for prefix in prefixes:
        if not prefix or not any(path.stem.startswith(prefix) for path in known):
            names = ", ".join(path.stem for path in known)
            raise SettingError(f"--only: no notebook begins with {prefix!r}; there are {names}")
    return [path for path in known if path.stem.startswith(tuple(prefixes))]


def all_notebooks(here: Path = Path()) -> list[Path]:
    """The numbered notebooks in ``here/notebooks``, or else perfkit's own.

    Raises:
        SettingError: neither are there.
    """
    return _numbered(here / "notebooks") or own_notebooks()


def own_notebooks() -> list[Path]:
    """The numbered notebooks that were installed with perfkit, or those of its checkout.

    Raises:
        SettingError: neither folder has one.
    """
    import perfkit

    package = Path(perfkit.__file__).parent
    if found := _numbered(package / "_notebooks") or _numbered(package.parent / "notebooks"):
        return found
    raise SettingError("there is no notebook in ./notebooks, and none is installed; name one")


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("0*.ipynb"))
