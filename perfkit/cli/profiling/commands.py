"""``perfkit profile``: where the time and the memory of your own code go, and a look at a .prof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from perfkit.cli.terminal.command import Subcommand, Subgroup, examples, prose
from perfkit.cli.terminal.output import errors_as_lines, note, out
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.evidence.showing import Showable

app = typer.Typer(
    cls=Subgroup,
    no_args_is_help=True,
    help="Profile your own script or function, compare two, or look at a saved profile.",
)


class ScriptCommand(Subcommand):
    """A command whose words after the script are the script's own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as they are: a script's ``--json`` is not ours."""
        return TyperCommand.parse_args(self, ctx, args)


def _command(name: str, *pairs: tuple[str, str]) -> Callable[[Callable[..., None]], None]:
    def add(function: Callable[..., None]) -> None:
        app.command(
            name,
            cls=ScriptCommand,
            context_settings={"allow_interspersed_args": False},
            help=prose(function),
            epilog=examples(*pairs),
        )(errors_as_lines()(function))

    return add


FORMATS = (".json", ".csv", ".html", ".svg", ".txt", ".prof")


def _check_save(context: typer.Context, target: Path | None) -> Path | None:
    """Refuse a file that can't be written, before the work is done."""
    if target is None:
        return None
    formats = FORMATS if context.info_name == "cpu" else FORMATS[:-1]
    if target.suffix.lower() not in formats:
        message = f"{target} ends in none of {', '.join(formats)}"
    elif target.is_dir() or not target.parent.is_dir():
        message = f"{target} is no file in a folder that is there"
    else:
        return target
    raise typer.BadParameter(message, param_hint="'--save'")


Work: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="SCRIPT.py, or a function that takes no arguments: MODULE:FUNCTION, FILE.py:FUNCTION.",
    ),
]
Arguments: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGS]…", help="A script's own arguments.")
]
Saved: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        callback=_check_save,
        help="Also save it: .json, .csv, .html, .svg or .txt, and .prof of the processor's time.",
    ),
]


@_command(
    "cpu",
    ("where does the time go?", "perfkit profile cpu train.py --epochs 2"),
    ("… of one function", "perfkit profile cpu work.py:main"),
    (
        "… and look at it",
        "perfkit profile cpu --save t.prof train.py; perfkit profile view t.prof",
    ),
)
def cpu(target: Work, arguments: Arguments = None, save: Saved = None) -> None:
    """Run a script or a function under cProfile and show the functions with the most own time.

    Options stand before the target; what follows a script is its own. Ends with the script's own
    exit code.
    """
    from perfkit.cli.profiling.targets import find_target, users_code
    from perfkit.profile.cpu import profile_cpu

    work = find_target(target, arguments or ())
    instrument = profile_cpu(work.name)
    with users_code() as ended, instrument:
        work.run()
    _deliver(instrument.result, save, ended.code)


@_command(
    "memory",
    ("what does it add to memory?", "perfkit profile memory train.py"),
    ("by line of code", "perfkit profile memory --lines train.py"),
)
def memory(
    target: Work,
    arguments: Arguments = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Also the lines that allocated, by tracemalloc: slower.")
    ] = False,
    save: Saved = None,
) -> None:
    """Run a script or a function and show what it did to the memory of its process.

    Options stand before the target; what follows a script is its own. Ends with the script's own
    exit code.
    """
    from perfkit.cli.profiling.targets import find_target, users_code
    from perfkit.profile.memory import track_memory

    work = find_target(target, arguments or ())
    instrument = track_memory(work.name, tracemalloc=lines)
    with users_code() as ended, instrument:
        work.run()
    _deliver(instrument.result, save, ended.code)


@_command(
    "lines",
    ("line by line", "perfkit profile lines work.py:main"),
    ("… through what it calls", "perfkit profile lines --also parse --also encode work.py:main"),
    ("every function of a script", "perfkit profile lines --no-memory train.py --epochs 2"),
)
def lines(
    target: Work,
    arguments: Arguments = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another function of its module; of a script, this one and not all; repeatable.",
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Run it once more for memory by line.")
    ] = True,
    save: Saved = None,
) -> None:
    """Run a script or a function and show the time and the memory of each of its lines.

    Options stand before the target; what follows a script is its own. Ends with the script's own
    exit code.
    """
    from perfkit.bench.calls.lines import profile_lines
    from perfkit.cli.profiling.targets import find_target, users_code

    work = find_target(target, arguments or ())
    functions = work.functions(also or ())
    try:
        report = profile_lines(functions, work.run, work.name, memory=memory)
    except ValueError as error:
        raise SettingError(str(error)) from None
    with users_code() as ended:
        if report.error is not None:
            raise report.error
    _deliver(report, save, ended.code)


@_command(
    "latency",
    ("how long does a call take?", "perfkit profile latency work.py:main"),
    ("twenty runs of a script", "perfkit profile latency --calls 20 convert.py small.png"),
)
def latency(
    target: Work,
    arguments: Arguments = None,
    calls: Annotated[
        int | None, typer.Option(min=1, help="How many are timed.", show_default="for a second")
    ] = None,
    save: Saved = None,
) -> None:
    """Run a script or a function again and again and show how long a run takes.

    They run in this process, so that only the first one imports what they need; it is not counted.
    What they print is dropped. Options stand before the target; what follows a script is its own.
    Ends with 1, or the script's own exit code, if a run fails.
    """
    from perfkit.bench.calls.latency import measure_latency
    from perfkit.cli.profiling.targets import find_target, users_code

    work, report = find_target(target, arguments or ()), None
    with users_code(heard=False) as ended:
        report = measure_latency(work.run, work.name, calls=calls)
    _deliver(report, save, ended.code)


@_command(
    "compare",
    ("is the new one faster?", "perfkit profile compare work.py:old work.py:new"),
    ("two scripts with arguments", "perfkit profile compare 'old.py a.png' 'new.py a.png'"),
    ("in CI: slower is a failure", "perfkit profile compare --gate m:old m:new || exit $?"),
)
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="MODULE:FUNCTION, FILE.py:FUNCTION, or SCRIPT.py, with arguments in quotes.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; judged against A.")],
    blocks: Annotated[int, typer.Option(min=4, help="How often A, B and A again run.")] = 12,
    block_s: Annotated[
        float, typer.Option(min=0.000_1, max=60.0, help="Seconds that a block lasts.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Of the order of blocks and the interval.")] = 0,
    gate: Annotated[
        bool, typer.Option("--gate", help="Let the verdict decide the exit code.")
    ] = False,
    save: Saved = None,
) -> None:
    """Say whether function or script B is faster than A, slower, the same, or can't be told.

    They run in this process in blocks of A, B and A again, in a random order; the second A shows
    how much identical code varies on this machine. What they print is dropped. Specs of a cluster
    and saved results are for [bold]perfkit compare[/].

    Exit codes: [bold]0[/] there is any verdict · [bold]1[/] A or B failed, or a script's own code ·
    [bold]2[/] wrong arguments · with [bold]--gate[/] also [bold]3[/] slower, [bold]4[/]
    inconclusive
    """
    from perfkit.bench.calls.versus import compare_calls
    from perfkit.cli.profiling.targets import find_target, users_code, words
    from perfkit.cli.terminal.measuring import gate_code

    (first, *of_a), (second, *of_b) = words(a), words(b)
    works, found = (find_target(first, of_a), find_target(second, of_b)), None
    with users_code(heard=False) as ended:
        found = compare_calls(
            works[0].run, works[1].run, (a, b), blocks=blocks, block_s=block_s, seed=seed
        )
    gated = gate and found is not None
    _deliver(found, save, gate_code(found.comparison.verdict) if gated else ended.code)


@_command(
    "view",
    ("in a browser", "perfkit profile view results/coordinator-optimized-1.prof"),
    ("on a machine without one", "perfkit profile view --no-browser train.prof"),
)
def view(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .prof file of cProfile's.")],
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where to listen.", show_default="a free one")
    ] = 0,
) -> None:
    """Serve snakeviz for a saved profile on this machine, until Ctrl-C.

    Only this file is served, only to this machine, and the address is printed.
    """
    from perfkit.cli.profiling.viewer import serve
    from perfkit.profile.cpu import ProfileUnreadable, load_profile

    try:
        load_profile(file)
    except (FileNotFoundError, ProfileUnreadable) as error:
        raise SettingError(str(error)) from None
    serve(file.resolve(), port, opens=browser)


def _deliver(result: Showable | None, save: Path | None, code: int) -> None:
    """Show and save what was measured, and end with the code of the user's own code."""
    if result is not None:
        out().print(str(result), markup=False)
        if save is not None:
            note(f"saved: {result.save(save)}")
    elif not code:
        note("not measured: PERFKIT_PROFILE has switched the instruments off, or it called exit")
    raise typer.Exit(code)
