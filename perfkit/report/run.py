"""Makes a report: check the arguments, run the notebooks, write the pages, publish the folder.

Everything that can be wrong with what the caller asked for is found before the first kernel
starts. After that nothing a notebook does keeps the report from being written: a failed notebook
has its page, the notebooks after it run, and the run's exit code says what happened.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from perfkit.evidence.text import duration
from perfkit.report.engine import headlines as findings
from perfkit.report.engine.execute import execute_notebook
from perfkit.report.engine.folder import RunFolder, run_folder
from perfkit.report.engine.outcome import ExitCode, Failure, ReportError, Status, most_severe
from perfkit.report.engine.parameters import Parameter, load_cells, read_parameters, resolve
from perfkit.report.engine.progress import Progress, progress_for
from perfkit.report.engine.result import NotebookRun, ReportRun
from perfkit.report.page.html import PageFacts, notebook_title, render_notebook
from perfkit.report.page.index import IndexFacts, render_index

SCHEMA = 1
RESULTS = "results"
DEFAULT_OUT_ROOT = Path("reports")
DEFAULT_CELL_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """A checked request: what to run, with what, and how to ask for it again."""

    notebooks: tuple[Path, ...]
    titles: Mapping[str, str]
    declared: Mapping[str, Mapping[str, Parameter]]
    injected: Mapping[str, Mapping[str, object]]
    profile: str
    cell_timeout_s: float | None
    gate: bool
    command: tuple[str, ...]
    environment: Mapping[str, Any]
    started: datetime

    @property
    def commit(self) -> str:
        """The short commit of the code that runs, `nocommit` outside a checkout."""
        return str(self.environment.get("git_commit") or "nocommit")[:10]

    @property
    def started_utc(self) -> str:
        return self.started.strftime("%Y-%m-%d %H:%M:%S")

    @property
    def run_name(self) -> str:
        return f"{self.started:%Y%m%dT%H%M%SZ}-{self.commit}-{self.profile}"

    def effective(self, name: str) -> dict[str, object]:
        defaults = {key: parameter.default for key, parameter in self.declared[name].items()}
        return {**defaults, **self.injected[name]}


def run_report(
    notebooks: Sequence[Path | str],
    profile: str = "quick",
    parameters: Mapping[str, object] | None = None,
    out_root: Path | str = DEFAULT_OUT_ROOT,
    *,
    cell_timeout_s: float | None = DEFAULT_CELL_TIMEOUT_S,
    gate: bool = False,
    command: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ReportRun:
    """Run `notebooks` in order and publish `out_root/<utc>-<commit>-<profile>/`.

    `parameters` reach every notebook that declares them; text is converted to the declared type.
    `profile` and the folder for results (`out_dir`) are injected where declared. The kernels work
    in the run's folder, so `out_dir` is the relative path `results`. `cell_timeout_s` limits each
    cell; None is no limit. With `gate` every headline's verdict decides the exit code, not only
    those recorded as gates. `command` is the argv stored for running this again; None builds it.
    `progress` None draws bars in a terminal and writes lines elsewhere.

    Raises ReportError (ParameterError among them) before any kernel starts when an argument is
    wrong; its `exit_code` is BAD_ARGUMENTS. A notebook that fails is no exception: see
    `ReportRun.exit_code`. On KeyboardInterrupt or SIGTERM nothing stays under the final name.
    """
    root = Path(out_root)
    plan = _plan(notebooks, profile, parameters or {}, root, cell_timeout_s, gate, command)
    listener = progress if progress is not None else progress_for()
    began = time.perf_counter()
    with _sigterm_raises(), run_folder(root, plan.run_name) as folder:
        _write_json(folder.working / "environment.json", plan.environment)
        (folder.working / RESULTS).mkdir()
        listener.run_started([path.stem for path in plan.notebooks])
        try:
            ran = tuple(_run_notebook(plan, path, folder, listener) for path in plan.notebooks)
        finally:
            listener.run_finished()
        return _publish(plan, folder, ran, time.perf_counter() - began)


def rerun_command(
    notebooks: Sequence[Path | str],
    profile: str,
    parameters: Mapping[str, object],
    out_root: Path | str = DEFAULT_OUT_ROOT,
    *,
    cell_timeout_s: float | None = DEFAULT_CELL_TIMEOUT_S,
    gate: bool = False,
) -> tuple[str, ...]:
    """The argv of `perfkit report` that asks for the same again; defaults are left out.

    A `cell_timeout_s` of None is written as 0. Parameter values are Python literals, text as it is.
    """
    argv = ["perfkit", "report", *(_shown(Path(path)) for path in notebooks), "--profile", profile]
    for name, value in parameters.items():
        argv += ["-p", f"{name}={value}"]
    if Path(out_root) != DEFAULT_OUT_ROOT:
        argv += ["--out", _shown(Path(out_root))]
    if cell_timeout_s != DEFAULT_CELL_TIMEOUT_S:
        argv += ["--cell-timeout", f"{cell_timeout_s or 0:g}"]
    return (*argv, "--gate") if gate else tuple(argv)


def _shown(path: Path) -> str:
    """A path as it is worth keeping: relative to the working directory where it lies below it."""
    absolute = path.absolute()
    here = Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else path).as_posix()


def _plan(
    notebooks: Sequence[Path | str],
    profile: str,
    parameters: Mapping[str, object],
    out_root: Path,
    cell_timeout_s: float | None,
    gate: bool,
    command: Sequence[str] | None,
) -> _Plan:
    paths = tuple(Path(notebook) for notebook in notebooks)
    _check_arguments(paths, profile, cell_timeout_s)
    declared = {path.stem: read_parameters(path) for path in paths}
    injected = resolve(declared, parameters, {"profile": profile, "out_dir": RESULTS})
    pinned = dict(parameters)
    seeds = {found["seed"].default for found in declared.values() if "seed" in found}
    if "seed" not in pinned and len(seeds) == 1:
        pinned["seed"] = seeds.pop()
    again = command or rerun_command(
        paths, profile, pinned, out_root, cell_timeout_s=cell_timeout_s, gate=gate
    )
    return _Plan(
        notebooks=paths,
        titles={path.stem: notebook_title(load_cells(path), path.stem) for path in paths},
        declared=declared,
        injected=injected,
        profile=profile,
        cell_timeout_s=cell_timeout_s,
        gate=gate,
        command=tuple(again),
        environment=_fingerprint(),
        started=datetime.now(UTC),
    )


def _check_arguments(paths: tuple[Path, ...], profile: str, cell_timeout_s: float | None) -> None:
    if not paths:
        raise ReportError("name at least one notebook to run")
    stems = [path.stem for path in paths]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ReportError(f"two notebooks are called {twice[0]}; run them in two reports")
    if reserved := sorted({"index"} & set(stems)):
        raise ReportError(f"a notebook can't be called {reserved[0]}: its page would be the index")
    if not profile or not profile.replace("-", "").replace("_", "").isalnum():
        raise ReportError(f"profile {profile!r} is no plain word, and it names the run's folder")
    if cell_timeout_s is not None and not cell_timeout_s > 0:
        raise ReportError(f"the limit for a cell is {cell_timeout_s} s; it must be above 0")


def _run_notebook(plan: _Plan, source: Path, folder: RunFolder, progress: Progress) -> NotebookRun:
    name = source.stem
    executed = folder.working / f"{name}.ipynb"
    ended = execute_notebook(
        source.resolve(),
        executed.resolve(),
        plan.injected[name],
        workdir=folder.working.resolve(),
        cell_timeout_s=plan.cell_timeout_s,
        progress=progress,
    )
    _make_portable(executed, source, folder.working.resolve())
    run = NotebookRun(
        name=name,
        title=plan.titles[name],
        source=_shown(source),
        html=f"{name}.html",
        notebook=executed.name,
        status=ended.status,
        duration_s=round(ended.duration_s, 3),
        cells=ended.cells,
        cells_run=ended.cells_run,
        parameters=plan.effective(name),
        failure=ended.failure,
    )
    return _write_page(plan, run, folder.working)


def _write_page(plan: _Plan, run: NotebookRun, folder: Path) -> NotebookRun:
    """Writes the notebook's page; what is wrong with the page makes the notebook a failed one."""
    page = render_notebook(folder / run.notebook, _page_facts(plan, run))
    if page.problems and run.status is Status.DONE:
        failure = Failure(None, run.title, "page", "; ".join(page.problems))
        run = replace(run, status=Status.FAILED, failure=failure)
        page = render_notebook(folder / run.notebook, _page_facts(plan, run))
    (folder / run.html).write_text(page.text, encoding="utf-8")
    return run


def _page_facts(plan: _Plan, run: NotebookRun) -> PageFacts:
    shown = {key: value for key, value in run.parameters.items() if key != "out_dir"}
    return PageFacts(
        run_name=plan.run_name,
        facts=(
            ("Started (UTC)", plan.started_utc),
            ("Profile", plan.profile),
            ("Commit", plan.commit),
            ("Took", duration(run.duration_s)),
            ("Parameters", ", ".join(f"{k}={v}" for k, v in shown.items()) or "none"),
        ),
        siblings=tuple((f"{path.stem}.html", plan.titles[path.stem]) for path in plan.notebooks),
        file_name=run.html,
        status=run.status.value,
        failure=run.failure,
    )


def _publish(
    plan: _Plan,
    folder: RunFolder,
    ran: tuple[NotebookRun, ...],
    duration_s: float,
) -> ReportRun:
    problems = [f"{run.title}: {run.failure.sentence}" for run in ran if run.failure]
    try:
        found = findings.load(folder.working / RESULTS)
        code = most_severe([*(r.exit_code for r in ran), findings.exit_code(found, gate=plan.gate)])
    except ReportError as error:
        found, code = (), most_severe([*(r.exit_code for r in ran), ExitCode.CELL_FAILED])
        problems.append(str(error))
    report = ReportRun(
        path=folder.working,
        profile=plan.profile,
        started_utc=plan.started.isoformat(),
        duration_s=round(duration_s, 3),
        exit_code=code,
        notebooks=ran,
        headlines=found,
        command=plan.command,
    )
    facts = IndexFacts(
        run_name=plan.run_name,
        profile=plan.profile,
        started_utc=plan.started_utc,
        duration_s=duration_s,
        exit_code=code,
        commit=plan.commit,
        shell=shlex.join(plan.command),
        notebooks=ran,
        headlines=found,
        problems=tuple(problems),
        environment=plan.environment,
    )
    _write_json(folder.working / "run.json", _as_json(plan, report, problems))
    index = render_index(facts, folder.working)
    (folder.working / "index.html").write_text(index, encoding="utf-8")
    return replace(report, path=folder.publish())


def _as_json(plan: _Plan, report: ReportRun, problems: Sequence[str]) -> dict[str, Any]:
    seeds = {
        run.name: run.parameters["seed"] for run in report.notebooks if "seed" in run.parameters
    }
    return {
        "schema": SCHEMA,
        "run": plan.run_name,
        "status": report.exit_code.name.lower().replace("_", " "),
        "exit_code": int(report.exit_code),
        "profile": report.profile,
        "commit": plan.commit,
        "started_utc": report.started_utc,
        "duration_s": report.duration_s,
        "cell_timeout_s": plan.cell_timeout_s,
        "seed": next(iter(seeds.values())) if len(set(map(repr, seeds.values()))) == 1 else seeds,
        "command": {"argv": list(report.command), "shell": shlex.join(report.command)},
        "parameters": {run.name: run.parameters for run in report.notebooks},
        "notebooks": [{**asdict(run), "exit_code": int(run.exit_code)} for run in report.notebooks],
        "headlines": [asdict(found) for found in report.headlines],
        "problems": list(problems),
        "python": sys.version.split()[0],
    }


def _make_portable(executed: Path, source: Path, working: Path) -> None:
    """Takes the hidden folder's name out of an executed notebook: it is gone once published."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    content["metadata"]["papermill"].update(input_path=_shown(source), output_path=executed.name)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    inside = json.dumps(str(working), ensure_ascii=False)[1:-1]
    text = text.replace(f"{inside}/", "").replace(inside, ".")
    executed.write_text(text + "\n", encoding="utf-8")


def _fingerprint() -> dict[str, Any]:
    """The machine and the code that runs on it, as JSON has them."""
    import msgspec

    from perfkit.evidence.environment import fingerprint

    described: dict[str, Any] = msgspec.to_builtins(fingerprint())
    return described


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes a polite kill end the run as Ctrl-C does, with its folder removed."""
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
