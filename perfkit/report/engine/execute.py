"""Runs one notebook through papermill and says how it ended, whatever happened.

Top-down: start a kernel of our own, let papermill inject the parameters and run the cells, watch
the time of each, and turn the four ways it can end (done, a cell failed, the kernel died, a cell
ran out of time) into one value. The executed notebook is on disk after each, so that a failed run
still has its page.

papermill runs in a thread of its own: nbclient takes over Ctrl-C in the main thread and would show
it as a kernel that died.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfkit.report.engine.kernel import GRACE_S, KernelSession, environment_for
from perfkit.report.engine.outcome import Failure, Status
from perfkit.report.engine.parameters import load_cells
from perfkit.report.engine.progress import Progress

START_TIMEOUT_S = 60
_INJECTED = "injected-parameters"
_PAPERMILL_MARK = "papermill-error-cell-tag"
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Execution:
    """How one notebook ended. `cells` counts code cells with source, the injected one left out."""

    status: Status
    duration_s: float
    cells: int
    cells_run: int
    failure: Failure | None


def execute_notebook(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    *,
    workdir: Path,
    cell_timeout_s: float | None,
    progress: Progress,
    grace_s: float = GRACE_S,
) -> Execution:
    """Run `source` with `parameters` and write the executed notebook to `output`.

    The kernel works in `workdir`, so that relative paths a notebook is given stay inside the run.
    `cell_timeout_s` limits each cell (None: no limit); a cell over it gets `grace_s` to clean up.
    A notebook that fails is a returned Execution, not an exception; KeyboardInterrupt and
    SystemExit end the kernel and pass through.
    """
    name = source.stem
    watch = _CellWatch(name, _count_cells(load_cells(source)), progress)
    began = time.perf_counter()
    progress.notebook_started(name, watch.total)
    with KernelSession(environment_for(name), cell_timeout_s, grace_s) as session:
        error = _in_thread(source, output, parameters, workdir, watch, session)
    watch.close()
    duration_s = time.perf_counter() - began
    status = _status(error, session)
    failure = None
    if status is not Status.DONE:
        failure = _failure(status, error, _read_back(output), watch, cell_timeout_s)
    progress.notebook_finished(name, status.value, duration_s)
    return Execution(status, duration_s, watch.total, watch.finished, failure)


class _CellWatch:
    """Follows nbclient from cell to cell: titles from headings, numbers, times."""

    def __init__(self, name: str, total: int, progress: Progress) -> None:
        self._name = name
        self._progress = progress
        self._began: float | None = None
        self.total = total
        self.number = 0
        self.finished = 0
        self.title = name
        self.cell_index: int | None = None

    def reached(self, cell: Any) -> None:
        if cell.cell_type == "markdown" and (headings := _HEADING.findall(cell.source)):
            self.title = plain_heading(headings[-1])

    def started(self, cell: Any, cell_index: int) -> None:
        self.cell_index = cell_index
        if _INJECTED not in cell.metadata.get("tags", []):
            self.number += 1
            self._began = time.perf_counter()
            self._progress.cell_started(self._name, self.number, self.total, self.title)

    def ended(self, ok: bool) -> None:
        if self._began is not None:
            self.finished += ok
            self.close()

    def close(self) -> None:
        """Report the running cell, if there is one, as finished: its kernel is gone."""
        if self._began is not None:
            elapsed_s = time.perf_counter() - self._began
            self._began = None
            self._progress.cell_finished(self._name, self.number, self.total, self.title, elapsed_s)


def _in_thread(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    workdir: Path,
    watch: _CellWatch,
    session: KernelSession,
) -> Exception | None:
    """What papermill raised, if anything."""
    raised: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            _papermill(source, output, parameters, workdir, watch, session)
        except Exception as error:
            raised.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name=f"papermill-{output.stem}", daemon=True)
    thread.start()
    try:
        done.wait()
    except BaseException:
        session.abort()
        done.wait()
        raise
    finally:
        thread.join()
    return raised[0] if raised else None


def _papermill(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    workdir: Path,
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
        ok = execute_reply["content"]["status"] == "ok" and not session.timed_out
        watch.ended(ok)
        # A cell may swallow the interrupt and end well; its time is up all the same.
        if session.timed_out:
            raise CellTimeoutError("the cell went on after its time was up")

    logging.getLogger("papermill").addHandler(logging.NullHandler())
    loop = ensure_event_loop()
    try:
        papermill.execute_notebook(
            _literal(source),
            _literal(output),
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=START_TIMEOUT_S,
            kernel_manager_class=session.manager_class(),
            extra_arguments=["--IPKernelApp.extra_extensions=perfkit.report.engine.pager"],
            resources={"metadata": {"path": str(workdir)}},
            on_cell_start=on_cell_start,
            on_cell_execute=on_cell_execute,
            on_cell_executed=on_cell_executed,
        )
    finally:
        loop.close()


def _status(error: Exception | None, session: KernelSession) -> Status:
    from nbclient.exceptions import DeadKernelError

    if session.timed_out:
        return Status.TIMED_OUT
    if error is None:
        return Status.DONE
    return Status.KERNEL_DIED if isinstance(error, DeadKernelError) else Status.FAILED


def _failure(
    status: Status,
    error: Exception | None,
    executed: list[dict[str, Any]],
    watch: _CellWatch,
    cell_timeout_s: float | None,
) -> Failure:
    index, traceback = watch.cell_index, ""
    error_name, message = type(error).__name__, plain_text(str(error or ""))
    for position, cell in enumerate(executed):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                index, traceback = position, plain_text("\n".join(output["traceback"]))
                error_name, message = output["ename"], plain_text(output["evalue"])
    if status is Status.TIMED_OUT:
        error_name = "timed out"
        message = f"the cell took longer than {cell_timeout_s:g} s and was stopped"
    elif status is Status.KERNEL_DIED:
        error_name, message = "kernel died", "its process ended in the middle of the cell"
    return Failure(index, watch.title, error_name, message, traceback)


def _read_back(output: Path) -> list[dict[str, Any]]:
    """The cells of the executed notebook, saved again without papermill's own error cells.

    papermill inserts two cells with inline styles to point at an error; the report's template has
    a better place for it, and cell numbers should stay those of the notebook.
    """
    executed = json.loads(output.read_text(encoding="utf-8"))
    cells = executed["cells"]
    executed["cells"] = [
        cell for cell in cells if _PAPERMILL_MARK not in cell["metadata"].get("tags", [])
    ]
    if len(executed["cells"]) != len(cells):
        output.write_text(json.dumps(executed, indent=1, ensure_ascii=False), encoding="utf-8")
    kept: list[dict[str, Any]] = executed["cells"]
    return kept


def _count_cells(cells: Iterable[Mapping[str, Any]]) -> int:
    return sum(
        cell["cell_type"] == "code"
        and bool("".join(cell["source"]).strip())
        and _INJECTED not in cell.get("metadata", {}).get("tags", [])
        for cell in cells
    )


def _literal(path: Path) -> str:
    """A path that papermill takes as it is: it fills `{name}` from the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def plain_heading(markdown: str) -> str:
    """A heading's words without emphasis, code marks and link targets."""
    unlinked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"[*`]+", "", unlinked).strip()


def plain_text(text: str) -> str:
    """`text` without terminal colours."""
    return _ANSI.sub("", text)
