"""``perfkit baseline``: keep a machine's figures, show them, and check this code against them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cluster.vocabulary.printable import count_of
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.command import add_command, examples
from perfkit.cli.terminal.measuring import deliver, machine_text, progress
from perfkit.cli.terminal.output import note, out, plain_table
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.bench.regression.check import Check
    from perfkit.evidence.baselines import Baseline

STYLES = {"regression": "bold red", "inconclusive": "yellow", "faster": "green", "same": "green"}
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="FILE",
        help="Another baseline than this machine's own, perhaps another machine's.",
    ),
]

app = typer.Typer(
    no_args_is_help=True,
    help="Keep this machine's figures, and find what has become slower.",
    epilog=examples(
        ("before a change: measure and keep", "perfkit baseline save"),
        ("after it: has anything become slower?", "perfkit baseline check || exit $?"),
        ("what is kept", "perfkit baseline show"),
    ),
)


def save(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN_FOLDER",
            help="A run of perfkit report; without it, the figures are measured now.",
        ),
    ] = None,
    counts: Annotated[
        bool,
        typer.Option("--counts", help="Only the counts that `make test` compares: counts.json."),
    ] = False,
) -> None:
    """Make figures the baseline of their machine: reports/baselines/MACHINE.json.

    The file holds the coordinator's processor time and its counts per task, with every raw sample
    and the environment. It replaces the machine's earlier one; commit it with the reason.
    """
    from perfkit.bench.regression.measure import accept_counts, measure_costs, results_of_run
    from perfkit.evidence.baselines import save_baseline
    from perfkit.evidence.results import ResultError

    if counts:
        if run is not None:
            raise SettingError("--counts: they are counted now, not read from a run")
        print(accept_counts())
        return
    if run is not None:
        try:
            results = results_of_run(run)
        except ResultError as error:
            raise SettingError(str(error)) from None
    else:
        with progress() as say:
            results = measure_costs(say=say)
    path = save_baseline(results)
    for result in results:
        load = result.parameters.get("load")
        out().print(f"  {result.spec}, {load}: {result.figure_text}", markup=False)
    print(path)


def show(against: Against = None, as_json: opt.ResultFile = None) -> None:
    """Print this machine's baseline, or another: figures, counts and the machine."""
    from perfkit.evidence.results import encode_fields

    path, baseline = read(against)
    fields = {"schema": baseline.schema, "results": baseline.results}
    deliver(lambda: encode_fields(fields), lambda: _show(path, baseline), as_json)


def check(against: Against = None, as_json: opt.ResultFile = None) -> None:
    """Measure the coordinator now and say, figure by figure, whether it has become slower.

    Saves nothing. Times gate on the baseline's own machine, counts on every machine, those that
    depend on Python with the same minor version of it.

    Exit codes: [bold]0[/] no regression · [bold]1[/] a result was wrong or a process failed ·
    [bold]2[/] there is no baseline, or it is broken · [bold]3[/] a regression ·
    [bold]4[/] inconclusive · [bold]130[/] interrupted
    """
    from perfkit.bench.regression.check import check as measure_and_judge
    from perfkit.report import ExitCode

    path, baseline = read(against)
    with progress() as say:
        found = measure_and_judge(baseline, say)
    deliver(found.encode, lambda: show_check(found, path), as_json)
    codes = {"regression": ExitCode.REGRESSION, "inconclusive": ExitCode.INCONCLUSIVE}
    raise typer.Exit(int(codes.get(found.table.verdict, ExitCode.DONE)))


def read(against: Path | None) -> tuple[Path, Baseline]:
    """The given baseline, or this machine's; raises SettingError if there is none to read."""
    from perfkit.evidence.baselines import baseline_path, load_baseline
    from perfkit.evidence.results import ResultError

    path = against or baseline_path()
    try:
        return path, load_baseline(path)
    except ResultError as error:
        raise SettingError(str(error)) from None


def gate_against(path: Path) -> dict[str, Any]:
    """What `run_report` needs to check against a baseline; raises SettingError if there is none."""
    from cluster.vocabulary.errors import ClusterError
    from perfkit.bench.regression.check import check as measure_and_judge
    from perfkit.bench.regression.measure import save_costs
    from perfkit.report import headlines

    _, baseline = read(path)

    def after(results: Path) -> None:
        try:
            with progress() as say:
                found = measure_and_judge(baseline, say)
        except ClusterError as error:
            title, verdict = "The check against the baseline failed", "inconclusive"
            headlines.record(results, title, None, "", verdict=verdict, note=f"{error}.", gate=True)
            return
        save_costs(found.results, results)
        for row in found.table:
            if row.ratio.low is not None or row.verdict in ("regression", "inconclusive"):
                headlines.record(
                    results,
                    f"{row.name}, against the baseline",
                    row.ratio.value,
                    "times the baseline",
                    row.ratio.low,
                    row.ratio.high,
                    verdict=row.verdict,
                    note=row.reason,
                    gate=row.gates,
                )

    return {"after": after, "after_argv": ("--against", str(path))}


def show_check(found: Check, path: Path) -> None:
    """Every time and every count that differs as a table, then the verdict in a sentence."""
    from perfkit.bench.regression.judge import texts

    console = out()
    table = plain_table(
        "figure", "baseline", "now", "now/baseline", "verdict", left=("figure", "verdict")
    )
    equal = 0
    for row in found.table:
        if row.ratio.value == 1 and row.ratio.low is None:
            equal += 1
            continue
        verdict = str(row.verdict)
        table.add_row(row.name, *texts(row), Text(verdict, STYLES.get(verdict, "dim")))
    console.print(table)
    if equal:
        console.print(f"  and {count_of(equal, 'unchanged count')}", style="dim")
    for difference in found.other_machine:
        note(f"another machine: {difference}; so only counts gate")
    for row in found.table:
        if row.verdict in ("regression", "inconclusive") or row.reason.startswith("not counted"):
            console.print(f"  {row.name}: {row.reason}", markup=False)
    verdict = str(found.table.verdict)
    console.print(Text(found.table.sentence, STYLES.get(verdict, "bold")))
    console.print(f"  against {path}", style="dim", markup=False)


def _show(path: Path, baseline: Baseline) -> None:
    from perfkit.evidence.text import quantity

    console, environment = out(), baseline.environment
    console.print(str(path), markup=False)
    console.print(f"  machine   {machine_text(environment)}", markup=False)
    commit = environment.git_commit or "unknown commit"
    console.print(f"  measured  {environment.utc}, {commit}", markup=False)
    for result in baseline.results:
        load = result.parameters.get("load")
        console.print(
            f"\n{result.spec}, {load}: {result.figure_text}, median of {len(result.samples)}",
            markup=False,
        )
        for name, value in result.counters.items():
            console.print(f"  {name:<28} {quantity(value)}", markup=False)


add_command(
    app,
    "save",
    save,
    ("measure now, half a minute", "perfkit baseline save"),
    ("accept what a task costs in messages, bytes, allocations", "perfkit baseline save --counts"),
    ("the figures of a report", "perfkit baseline save reports/20260314T091500Z-1a2b3c4d5e-quick"),
)
add_command(
    app,
    "show",
    show,
    ("this machine's", "perfkit baseline show"),
    ("another's", "perfkit baseline show --against reports/baselines/MACHINE.json"),
    ("for a program", "perfkit baseline show --json - | jq '.results[].value'"),
)
add_command(
    app,
    "check",
    check,
    ("has anything become slower?", "perfkit baseline check || exit $?"),
    ("counts against another machine", "perfkit baseline check --against MACHINE.json"),
)
