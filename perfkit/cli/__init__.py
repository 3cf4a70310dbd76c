"""The command line: ``perfkit cluster``, ``perfkit bench``, ``perfkit gpu``, ``perfkit report``.

Help must appear at once, so this package loads neither ZeroMQ nor anything larger; each command
imports its own. `output` says how commands print and end, `streams` where their text goes.
"""

from __future__ import annotations

from typing import Annotated

import typer

from perfkit.cli import (
    baseline,
    bench,
    cluster,
    compare,
    inspect,
    lab,
    report,
    serve,
    soak,
    specs,
)
from perfkit.cli.cards import gpu, kernels
from perfkit.cli.models import commands as model_commands
from perfkit.cli.profiling import commands as profiling_commands
from perfkit.cli.terminal.command import add_command, examples
from perfkit.cli.terminal.streams import Command
from perfkit.cli.tuning import doctor, tune

__all__ = ["app"]

app = typer.Typer(
    name="perfkit",
    cls=Command,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("a cluster in this terminal …", "perfkit cluster up --workers 2 --model magika"),
        ("… and work from another", "perfkit cluster submit --model magika README.md"),
        ("a model of your own", "perfkit model add iris iris.onnx"),
        ("a model behind an HTTP API", "perfkit serve --model digits"),
        ("how fast is it?", "perfkit bench throughput --spec baseline --workers 2"),
        ("is B faster than A?", "perfkit compare baseline optimized --experiment latency"),
        ("which spec is the fastest for my work?", "perfkit tune throughput --out tuned.json"),
        ("what should I change on this machine?", "perfkit doctor"),
        ("does it leak?", "perfkit soak --minutes 10 --spec optimized"),
        ("explore in JupyterLab", "perfkit lab"),
        ("your own code", "perfkit profile cpu script.py"),
        ("the whole story, as HTML", "perfkit report"),
    ),
)
app.add_typer(cluster.app, name="cluster")
app.add_typer(model_commands.app, name="model")
app.add_typer(serve.app, name="serve")
app.add_typer(inspect.app, name="inspect")
app.add_typer(profiling_commands.app, name="profile")
app.add_typer(baseline.app, name="baseline")
add_command(app, "bench", bench.bench, *bench.EXAMPLES)
add_command(app, "compare", compare.compare, *compare.EXAMPLES)
add_command(app, "specs", specs.specs, *specs.EXAMPLES)
add_command(app, "soak", soak.soak, *soak.EXAMPLES)
add_command(app, "tune", tune.tune, *tune.EXAMPLES)
add_command(app, "doctor", doctor.doctor, *doctor.EXAMPLES)
add_command(app, "gpu", gpu.gpu, *gpu.EXAMPLES)
add_command(app, "kernels", kernels.kernels, *kernels.EXAMPLES)
add_command(app, "lab", lab.lab, *lab.EXAMPLES)
add_command(app, "report", report.report, *report.EXAMPLES)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"perfkit {version('perfkit')}")
        except PackageNotFoundError:
            typer.echo("perfkit, version unknown: it is not installed but runs from a folder")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and end."),
    ] = False,
) -> None:
    """Run an inference cluster, measure it, and prove what makes it faster.

    Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted. More: perfkit report --help
    """
