"""Runs one notebook through papermill and says how it ended.

A kernel of our own is started, papermill injects the parameters and runs the cells, the time of
each is taken, and the four ways to end (done, a cell failed, the kernel died, a cell ran out of
time) become one value. papermill saves the notebook after each cell, so a failed run still has its
page.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.report.engine.kernel import GRACE_S, KernelSession, kernel_session
from perfkit.report.engine.notebook import (
    INJECTED,
    Notebook,
    headings,
    import_jsonschema,
    shortened,
    shown_path,
    tags,
)
from perfkit.report.engine.outcome import Failure, Status
from perfkit.report.engine.progress import ALIVE_S, Progress
from perfkit.report.engine.result import NotebookRun

if TYPE_CHECKING:
    from nbformat import NotebookNode

START_TIMEOUT_S = 60
#: A failure stands on several pages and in the terminal; the notebook has its whole text.
MESSAGE_MAX, TRACEBACK_MAX = 1_000, 16_000
LINE_MAX = 60
_EXTENSIONS = ("perfkit.report.engine.pager", "perfkit.report.engine.floods")
#: The tag of a cell whose error is expected.
_MAY_RAISE = "raises-exception"
_PAPERMILL_MARK = "papermill-error-cell-tag"
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class NotebookLeft(Exception):
    """A cell ended the notebook before its end."""


def execute_notebook(
    notebook: Notebook,
    output: Path,
    parameters: Mapping[str, object],
    *,
    cell_timeout_s: float | None,
    progress: Progress,
    grace_s: float = GRACE_S,
    alive_s: float = ALIVE_S,
) -> tuple[NotebookRun, NotebookNode]:
    """Run `notebook` with `parameters` and write it, executed, to `output`; returns its content.

    The kernel works in the folder of `output`, so that relative paths stay inside the run.
    `cell_timeout_s` limits each cell (None: no limit); a cell over it gets `grace_s` to clean up.
    `progress` hears every `alive_s` of a cell that runs long. A notebook that fails is a result,
    not an exception; KeyboardInterrupt and SystemExit end the kernel and pass through.
    """
    import_jsonschema()
    from papermill.exceptions import PapermillExecutionError

    watch = _CellWatch(notebook, progress)
    began = time.perf_counter()
    progress.notebook_started(notebook.name, notebook.code_cells)
    # In the main thread nbclient would take Ctrl-C over and show it as a kernel that died.
    with (
        kernel_session(notebook.name, cell_timeout_s, grace_s) as session,
        ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(_papermill, notebook.path, output, parameters, watch, session)
        try:
            while not wait([running], alive_s / 10).done:
                watch.still_runs(alive_s)
            error = running.exception()
        except BaseException:
            session.abort()
            raise
    watch.close()
    duration_s = time.perf_counter() - began
    content = _read_back(output, notebook.path)
    if isinstance(error, PapermillExecutionError) and _last_error(content) is None:
        error = None  # only cells that may raise have raised
    status = _status(error, session)
    progress.notebook_finished(notebook.name, status.value, duration_s)
    defaults = {name: parameter.default for name, parameter in notebook.parameters.items()}
    run = NotebookRun(
        name=notebook.name,
        title=notebook.title,
        source=shown_path(notebook.path),
        html=notebook.html,
        notebook=output.name,
        status=status,
        duration_s=round(duration_s, 3),
        cells=notebook.code_cells,
        cells_run=watch.finished,
        parameters={**defaults, **parameters},
        failure=_failure(status, error, content, watch, cell_timeout_s),
    )
    return run, content


class _CellWatch:
    """Follows nbclient from cell to cell: titles from headings, numbers, times.

    nbclient's thread tells of the cells, another asks whether one still runs.
    """

    def __init__(self, notebook: Notebook, progress: Progress) -> None:
        self._name = notebook.name
        self._total = notebook.code_cells
        self._progress = progress
        self._lock = threading.Lock()
        self._began: float | None = None
        self._told = 0.0
        self._number = 0
        self._line = ""
        self.finished = 0
        self.title = notebook.name
        self.cell_index: int | None = None

    def reached(self, cell: Any) -> None:
        if cell.cell_type == "markdown" and (found := headings(cell.source)):
            self.title = found[-1]

    def started(self, cell: Any, cell_index: int) -> None:
        self.cell_index = cell_index
        if INJECTED not in tags(cell):
            with self._lock:
                self._number += 1
                self._began = self._told = time.perf_counter()
                self._line = shortened_line(cell.source)
                self._progress.cell_started(self._name, self._number, self._total, self.title)

    def still_runs(self, alive_s: float) -> None:
        """Report the running cell, if nothing was told of it for `alive_s`."""
        with self._lock:
            now_s = time.perf_counter()
            if self._began is not None and now_s - self._told >= alive_s:
                self._told, running_s = now_s, now_s - self._began
                self._progress.cell_running(
                    self._name, self._number, self._total, self._line, running_s
                )

    def ended(self, ok: bool) -> None:
        if self._began is not None:
            self.finished += ok
            self.close()

    def close(self) -> None:
        """Report the running cell, if there is one, as finished: its kernel is gone."""
        with self._lock:
            if self._began is not None:
                elapsed_s = time.perf_counter() - self._began
                self._began = None
                self._progress.cell_finished(self._name, self._number, elapsed_s)


def shortened_line(source: str) -> str:
    """The first line of a cell that says something, cut to fit a terminal's line."""
    lines = (line.strip() for line in source.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return first if len(first) <= LINE_MAX else f"{first[: LINE_MAX - 1]}…"


def _papermill(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    watch: _CellWatch,
    session: KernelSession,
) -> None:
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    def on_cell_start(cell: Any, cell_index: int) -> None:
        watch.reached(cell)

    def on_cell_execute(cell: Any, cell_index: int) -> None:
        if session.aborted:
            raise DeadKernelError("the run was given up")
        watch.started(cell, cell_index)
        session.cell_started()

    def on_cell_executed(cell: Any, cell_index: int, execute_reply: Any) -> None:
        session.cell_finished()
        reply = execute_reply["content"]
        may_raise = _MAY_RAISE in tags(cell)
        left = "" if may_raise else _leaves(reply)
        watch.ended((reply["status"] == "ok" or may_raise) and not session.timed_out and not left)
        # A cell may swallow the interrupt and end well; its time is still up.
        if session.timed_out:
            raise CellTimeoutError("the cell went on after its time was up")
        if left:
            raise NotebookLeft(f"the cell left the notebook by {left}")

    logging.getLogger("papermill").addHandler(logging.NullHandler())
    loop = ensure_event_loop()
    try:
        papermill.execute_notebook(
            _literal(source.resolve()),
            _literal(output.resolve()),
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=START_TIMEOUT_S,
            kernel_manager_class=session.manager_class(),
            extra_arguments=[f"--IPKernelApp.extra_extensions={name}" for name in _EXTENSIONS],
            resources={"metadata": {"path": str(output.parent.resolve())}},
            on_cell_start=on_cell_start,
            on_cell_execute=on_cell_execute,
            on_cell_executed=on_cell_executed,
        )
    finally:
        loop.close()


def _leaves(reply: Mapping[str, Any]) -> str:
    """How a cell ended its notebook, with any exit code; empty if it did not."""
    if reply.get("ename") == "SystemExit":
        return f"SystemExit: {reply.get('evalue') or 0}"
    asked = any(part.get("source") == "ask_exit" for part in reply.get("payload") or ())
    return "exit()" if asked else ""


def _status(error: BaseException | None, session: KernelSession) -> Status:
    from nbclient.exceptions import DeadKernelError

    if session.timed_out:
        return Status.TIMED_OUT
    if error is None:
        return Status.DONE
    return Status.KERNEL_DIED if isinstance(error, DeadKernelError) else Status.FAILED


def _failure(
    status: Status,
    error: BaseException | None,
    content: NotebookNode,
    watch: _CellWatch,
    cell_timeout_s: float | None,
) -> Failure | None:
    if status is Status.DONE:
        return None
    index, traceback = watch.cell_index, ""
    name, message = type(error).__name__, str(error or "")
    if found := _last_error(content):
        index, output = found
        traceback = "\n".join(output.traceback)
        name, message = output.ename, output.evalue
    if isinstance(error, NotebookLeft):
        name, message = type(error).__name__, str(error)
    if status is Status.TIMED_OUT:
        name = "timed out"
        message = f"the cell took longer than {cell_timeout_s:g} s and was stopped"
    elif status is Status.KERNEL_DIED:
        name, message = "kernel died", "its process ended in the middle of the cell"
    plain_message, plain_traceback = (
        _TERMINAL_CODE.sub("", shortened(text, limit))
        for text, limit in ((message, MESSAGE_MAX), (traceback, TRACEBACK_MAX))
    )
    return Failure(index, watch.title, name, plain_message, plain_traceback)


def _last_error(content: NotebookNode) -> tuple[int, Any] | None:
    """The last error output with the position of its cell; cells that may raise do not count."""
    errors = [
        (position, output)
        for position, cell in enumerate(content.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error" and _MAY_RAISE not in tags(cell)
    ]
    return errors[-1] if errors else None


def _read_back(output: Path, source: Path) -> NotebookNode:
    """The executed notebook, saved again as it can be published.

    papermill inserts two cells that point at an error; the page has a better place for it, and
    cell numbers should stay those of the notebook. The name of the folder that the run works in is
    taken out, because the folder is renamed.
    """
    import nbformat

    folder = json.dumps(str(output.parent.resolve()), ensure_ascii=False)[1:-1]
    text = output.read_text(encoding="utf-8").replace(f"{folder}/", "").replace(folder, ".")
    content: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    content.metadata.papermill.update(input_path=shown_path(source), output_path=output.name)
    content.cells = [cell for cell in content.cells if _PAPERMILL_MARK not in tags(cell)]
    nbformat.write(content, output)  # type: ignore[no-untyped-call]
    return content


def _literal(path: Path) -> str:
    """A path that papermill takes as it is; otherwise it fills `{name}` from the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")
