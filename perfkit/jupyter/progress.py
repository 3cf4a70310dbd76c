"""Shows that a long cell runs, for how long and how far it is, by one line below the cell.

A front end marks a running cell with ``[*]`` alone. Here a cell that takes longer than `AFTER_S`
gets a display of plain text, which is updated once a second and ends with the time that the cell
took. Experiments say how far they are, see `perfkit.evidence.progress`; of other cells it says how
many tasks this program's clients finish.

Only a cell that a person watches has it. A front end with a person in front of it lets the code ask
for input; nbclient, and so papermill and nbconvert, does not (the field ``allow_stdin`` of
https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute).
"""

from __future__ import annotations

import sys
import threading
import time
from contextvars import copy_context
from typing import Any, Self

from perfkit.evidence.progress import listen
from perfkit.evidence.text import duration

AFTER_S = 2.0
UPDATE_EVERY_S = 1.0


class CellProgress:
    """The line below the running cell of a shell, which a thread keeps up to date."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._line = ""

    def started(self, info: object) -> None:
        """A cell starts."""
        self._line, self._over, self._thread = "", threading.Event(), None
        if not is_watched(self._shell):
            return
        # The context names the cell that a display belongs to.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._show, self._over), name="progress", daemon=True
        )
        self._thread.start()

    def ended(self, result: object) -> None:
        """The cell has ended; returns when its line says how long it took."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def say(self, line: str) -> None:
        """Show this with the time from now on."""
        self._line = line

    def _show(self, over: threading.Event) -> None:
        from IPython.display import display

        began_s = time.monotonic()
        if over.wait(AFTER_S):
            return
        with TasksDone() as tasks:
            handle = display(self._text(began_s, tasks), raw=True, display_id=True)
            while not over.wait(UPDATE_EVERY_S):
                handle.update(self._text(began_s, tasks), raw=True)
        handle.update(_plain(f"took {duration(time.monotonic() - began_s)}"), raw=True)

    def _text(self, began_s: float, tasks: TasksDone) -> dict[str, str]:
        so_far = f"runs for {duration(time.monotonic() - began_s)}"
        more = self._line or tasks.news()
        return _plain(f"{so_far}: {more}" if more else so_far)


class TasksDone:
    """Counts the tasks of this program's clients that end during a `with` block."""

    def __init__(self) -> None:
        self._count = self._told = 0
        self._told_s = time.monotonic()
        self._heard: list[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._heard is not None:
            self._heard.remove(self)

    def opened(self, endpoint: str, submission: Any, now: float) -> bool:
        """Nothing of a submission is traced."""
        return False

    def settled(self, news: Any, now: float) -> None:
        """Count outcomes."""
        self._count += len(news.results)

    def ended(self, submission: Any, error: str) -> None:
        """Count the tasks that get no other outcome."""
        self._count += submission.missing

    def news(self) -> str:
        """How many ended in a second since this was last asked, in words; "" if none did."""
        clients = sys.modules.get("cluster.shells.refusals")
        if self._heard is None and clients is not None:  # the cell may have imported it just now
            self._heard = clients.WATCHERS
            self._heard.append(self)
        now_s, count = time.monotonic(), self._count
        rate = (count - self._told) / max(now_s - self._told_s, 1e-3)
        self._told, self._told_s = count, now_s
        return f"{rate:,.0f} tasks done per second" if rate >= 1 else ""


def is_watched(shell: Any) -> bool:
    """Whether a person sees the cell run that starts now, in a notebook."""
    kernel = getattr(shell, "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}


def load_ipython_extension(shell: Any) -> None:
    """Show the progress of the cells of `shell`, once; IPython calls this for an extension."""
    hooks = shell.events.callbacks["pre_run_cell"]
    if any(isinstance(getattr(hook, "__self__", None), CellProgress) for hook in hooks):
        return
    progress = CellProgress(shell)
    listen(progress.say)
    shell.events.register("pre_run_cell", progress.started)
    shell.events.register("post_run_cell", progress.ended)
