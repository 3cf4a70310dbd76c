"""Makes a report: plan it, run the notebooks, write the pages, publish the folder.

No failure of a notebook keeps the report from being written: a failed notebook has its page, the
notebooks after it run, and the run's exit code says what happened.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from perfkit.evidence.disturbance import measure_disturbance
from perfkit.report.engine import headlines, scorecard
from perfkit.report.engine.execute import execute_notebook
from perfkit.report.engine.folder import RunFolder, run_folder
from perfkit.report.engine.notebook import Notebook
from perfkit.report.engine.outcome import ExitCode, Failure, ReportError, Status, most_severe
from perfkit.report.engine.plan import (
    DEFAULT_CELL_TIMEOUT_S,
    DEFAULT_OUT_ROOT,
    RESULTS,
    Plan,
    make_plan,
)
from perfkit.report.engine.progress import Progress, progress_for
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.page.html import render_notebook
from perfkit.report.page.index import render_index
from perfkit.report.page.pieces import Thumbnail

SCHEMA = 1


def run_report(
    notebooks: Sequence[Path | str],
    profile: str = "quick",
    parameters: Mapping[str, object] | None = None,
    out_root: Path | str = DEFAULT_OUT_ROOT,
    *,
    cell_timeout_s: float | None = DEFAULT_CELL_TIMEOUT_S,
    gate: bool = False,
    progress: Progress | None = None,
    after: Callable[[Path], None] | None = None,
    after_argv: Sequence[str] = (),
) -> ReportRun:
    """Run `notebooks` in order and publish `out_root/<utc>-<commit>-<profile>/`.

    `parameters` reach every notebook that declares them; text is converted to the declared type.
    `profile` and the folder for results (`out_dir`) are injected where declared. The kernels work
    in the run's folder, so `out_dir` is the relative path `results`. `cell_timeout_s` limits each
    cell; None is no limit. With `gate` every headline's verdict decides the exit code, not only
    those recorded as gates.
    `progress` None draws bars in a terminal and writes lines elsewhere. `after` is called with the
    folder of the results once the notebooks have run, to add its own; `after_argv` are the words
    that ask for it in the command that repeats the run.

    Raises ReportError (ParameterError among them) before any kernel starts when an argument is
    wrong; its `exit_code` is BAD_ARGUMENTS. A notebook that fails is no exception: see
    `ReportRun.exit_code`. On KeyboardInterrupt or SIGTERM nothing stays under the final name.
    """
    root, paths = Path(out_root), [Path(notebook) for notebook in notebooks]
    plan = make_plan(paths, profile, parameters or {}, root, cell_timeout_s, gate)
    plan = replace(plan, command=(*plan.command, *after_argv))
    listener = progress if progress is not None else progress_for()
    began = time.perf_counter()
    with _sigterm_raises(), run_folder(root, plan.run_name) as folder:
        _write_json(folder.working / "environment.json", plan.environment)
        (folder.working / RESULTS).mkdir()
        listener.run_started([notebook.name for notebook in plan.notebooks])
        try:
            ran = [
                _run_notebook(plan, notebook, folder.working, listener)
                for notebook in plan.notebooks
            ]
        finally:
            listener.run_finished()
        if after is not None:
            after(folder.working / RESULTS)
        return _publish(plan, folder, ran, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Ran:
    """A notebook's run, the picture that stands for it, and what else ran at its end."""

    run: NotebookRun
    thumbnail: Thumbnail | None
    warnings: tuple[str, ...]


def _run_notebook(plan: Plan, notebook: Notebook, folder: Path, progress: Progress) -> _Ran:
    run, content = execute_notebook(
        notebook,
        folder / f"{notebook.name}.ipynb",
        plan.injected[notebook.name],
        cell_timeout_s=plan.cell_timeout_s,
        progress=progress,
    )
    words = measure_disturbance().words(plan.environment["cores_available"])
    after = (f"After {notebook.name}: {words}",) if words else ()
    warnings = (*filter(None, [plan.warning]), *after)
    found = _own_headlines(folder, notebook.name)
    page = render_notebook(content, run, plan, found, warnings)
    if page.problems and run.status is Status.DONE:
        failure = Failure(None, run.title, "page", "; ".join(page.problems))
        run = replace(run, status=Status.FAILED, failure=failure)
        page = render_notebook(content, run, plan, found, warnings)
    (folder / run.html).write_text(page.text, encoding="utf-8")
    return _Ran(run, page.thumbnail, after)


def _own_headlines(folder: Path, name: str) -> list[headlines.Headline]:
    """What a notebook recorded; nothing if a file can't be read, which the index says."""
    try:
        return [found for found in headlines.load(folder / RESULTS) if found.notebook == name]
    except ReportError:
        return []


def _publish(
    plan: Plan, folder: RunFolder, all_ran: Sequence[_Ran], duration_s: float
) -> ReportRun:
    ran = tuple(each.run for each in all_ran)
    problems = [f"{run.title}: {run.failure.sentence}" for run in ran if run.failure]
    codes = [run.exit_code for run in ran]
    found: tuple[headlines.Headline, ...] = ()
    card = None
    try:
        found = headlines.load(folder.working / RESULTS)
        codes.append(headlines.exit_code(found, gate=plan.gate))
        card = scorecard.load(folder.working / RESULTS)
    except ReportError as error:
        codes.append(ExitCode.CELL_FAILED)
        problems.append(str(error))
    report = ReportRun(
        path=folder.working,
        profile=plan.profile,
        started_utc=plan.started.isoformat(),
        duration_s=round(duration_s, 3),
        exit_code=most_severe(codes),
        notebooks=ran,
        headlines=found,
        command=plan.command,
        problems=tuple(problems),
        warnings=(
            *filter(None, [plan.warning]),
            *(warning for each in all_ran for warning in each.warnings),
        ),
    )
    _write_json(folder.working / "run.json", _as_json(plan, report))
    pictures = {each.run.name: each.thumbnail for each in all_ran if each.thumbnail}
    report.index_path.write_text(render_index(report, plan, pictures, card), encoding="utf-8")
    return replace(report, path=folder.publish())


def _as_json(plan: Plan, report: ReportRun) -> dict[str, Any]:
    seeds = {
        run.name: run.parameters["seed"] for run in report.notebooks if "seed" in run.parameters
    }
    return {
        "schema": SCHEMA,
        "run": plan.run_name,
        "status": report.exit_code.name.lower().replace("_", " "),
        "exit_code": report.exit_code,
        "profile": report.profile,
        "commit": plan.commit,
        "started_utc": report.started_utc,
        "duration_s": report.duration_s,
        "cell_timeout_s": plan.cell_timeout_s,
        "seed": next(iter(seeds.values())) if len(set(map(repr, seeds.values()))) == 1 else seeds,
        "command": {"argv": report.command, "shell": shlex.join(report.command)},
        "parameters": {run.name: run.parameters for run in report.notebooks},
        "notebooks": [{**asdict(run), "exit_code": run.exit_code} for run in report.notebooks],
        "headlines": report.headlines,
        "verdict": headlines.sentence(report.headlines),
        "problems": report.problems,
        "warnings": report.warnings,
        "python": sys.version.split()[0],
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM end the run as Ctrl-C does, so that its folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
