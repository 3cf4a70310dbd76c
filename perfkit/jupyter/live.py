"""`live(cluster)`: one display that shows a cluster while other cells run.

A thread asks for the status once a second and replaces what the display shows. Messages of a thread
belong to the cell that runs just then; a front end finds the display by its id, whatever cell made
it. nbclient, and so papermill, reads a display's updates only while a cell runs; so each cell's end
brings a frame too, and the executed notebook keeps the last one.

Sources: https://jupyter-client.readthedocs.io/en/stable/messaging.html#update-display-data,
`ZMQDisplayPublisher` of ipykernel, `NotebookClient.process_message` of nbclient.
"""

from __future__ import annotations

import atexit
import contextvars
import math
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError
from perfkit.evidence.painting import Picture
from perfkit.evidence.results import encode_fields
from perfkit.evidence.showing import Showable
from perfkit.evidence.tables import data_frame
from perfkit.jupyter.live_html import as_html
from perfkit.profile.activity.board import Board, board_of
from perfkit.profile.activity.lines import as_text
from perfkit.profile.activity.looks import (
    ANSWER_WITHIN_S,
    GIVE_UP_S,
    INTERVAL_S,
    SPAN_S,
    Activity,
    Ask,
    Moment,
    ask_client,
    ask_coordinator,
)

if TYPE_CHECKING:
    import pandas as pd

#: A cell's end waits no longer for its frame.
LAST_FRAME_S = 0.5


def live(
    cluster: LocalCluster | Client | str,
    *,
    interval_s: float = INTERVAL_S,
    span_s: float = SPAN_S,
) -> LiveView:
    """Show a cluster here and keep it up to date while other cells run; returns the view.

    `cluster` is a running `LocalCluster`, a `Client`, or a coordinator's endpoint. Curves show the
    last `span_s`. The view ends with the cluster, by `stop()`, at the end of a `with` block, or
    when another takes its place. Outside of a notebook nothing is displayed: print the view.

    Raises ClusterError for a cluster that does not run, Unreachable if no coordinator answers,
    ValueError for an interval below half a second.
    """
    return LiveView(cluster, interval_s=interval_s, span_s=span_s).start()


class LiveView(Showable):
    """A display that a thread keeps up to date, see `live`. As the last expression of another cell
    it is shown there too.
    """

    #: One for each endpoint: a cell that is run again replaces its view.
    _running: ClassVar[dict[str, LiveView]] = {}

    def __init__(
        self, cluster: LocalCluster | Client | str, *, interval_s: float, span_s: float
    ) -> None:
        self.endpoint = cluster if isinstance(cluster, str) else getattr(cluster, "endpoint", "")
        self.activity = Activity(self._asker(cluster), interval_s=interval_s, span_s=span_s)
        self.ended = ""
        self._ended_s = math.inf
        self._id = f"perfkit-live-{uuid.uuid4().hex}"
        self._shown_in: int | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Show the first frame and begin to update it; raises as `live`."""
        self.activity.look(ANSWER_WITHIN_S)
        if self.activity.error is not None:
            raise self.activity.error
        if (other := self._running.pop(self.endpoint, None)) is not None:
            other.stop()
        self._running[self.endpoint] = self
        self._display()
        if (shell := _shell()) is not None:
            shell.events.register("post_execute", self._after_cell)
        atexit.register(self.stop)
        # An empty context: what a thread displays then belongs to the cell that runs.
        run = contextvars.Context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="live", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and show the last frame; safe to call twice."""
        self._end("stopped")
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(ANSWER_WITHIN_S + 1.0)

    @property
    def board(self) -> Board:
        """What the view shows now, as plain data."""
        return board_of(
            self.activity, self.endpoint, min(time.monotonic(), self._ended_s), self.ended
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for each look: seconds of the monotonic clock, tasks by state, the rate done."""
        return data_frame(self._looks(), Moment._fields)

    def encode(self) -> str:
        """The newest status and every look as JSON."""
        board = self.board
        fields = {"endpoint": self.endpoint, "state": board.state, "looks": self._looks()}
        return encode_fields(fields | {"status": self.activity.status})

    def plot(self) -> Picture:
        """The tasks that wait and the rate done over the last minutes."""
        from perfkit.report.figures.panels import Panel, panels

        units = {"queued": "tasks", "done per second": "tasks"}
        curves = self.board.curves
        if not curves:
            return super().plot()
        first_s = curves[0].series[0][0]
        shown = [
            Panel(curve.name, units[curve.name],
                  {curve.name: [(at_s - first_s, value) for at_s, value in curve.series]})
            for curve in curves
        ]  # fmt: skip
        return panels(shown, title=f"cluster at {self.endpoint}")

    def _looks(self) -> list[dict[str, Any]]:
        return [moment._asdict() for moment in list(self.activity.moments)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return as_text(self.board)

    def _repr_html_(self) -> str:
        return as_html(self.board)

    def _ipython_display_(self) -> None:
        """Show it here too, unless it has just been shown by this cell."""
        shell = _shell()
        if shell is None:
            print(self)
        elif self._shown_in != shell.execution_count:
            self._display()

    def _asker(self, cluster: LocalCluster | Client | str) -> Ask:
        if isinstance(cluster, Client):
            return ask_client(cluster)
        if isinstance(cluster, str):
            return ask_coordinator(cluster, is_over=self._is_stopping)
        if not isinstance(cluster, LocalCluster):
            raise ClusterError(
                "live() shows a LocalCluster, a Client or an endpoint such as "
                f"'tcp://127.0.0.1:5577', not {type(cluster).__name__}"
            )
        process = cluster.coordinator
        return ask_coordinator(
            cluster.endpoint,
            cluster.spec,
            lambda: self._is_stopping() or not process.alive(),
        )

    def _is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.wait(self.activity.pause_s):
            self._frame(ANSWER_WITHIN_S)

    def _after_cell(self) -> None:
        """A frame within the cell that ends, for those who read no other message."""
        if not self._stopping.is_set():
            self._frame(LAST_FRAME_S)

    def _frame(self, timeout_s: float) -> None:
        """Look and show what there is; ends the view if the cluster has ended."""
        if not self._lock.acquire(timeout=timeout_s):
            return
        try:
            if self._stopping.is_set():
                return
            self.activity.look(timeout_s)
            if not self._stopping.is_set():
                self._update()
        finally:
            self._lock.release()
        if self.activity.is_over or self.activity.silent_s > GIVE_UP_S:
            self._end("ended")

    def _end(self, how: str) -> None:
        """Show the last frame; only the first call does anything."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._ended_s = time.monotonic()
        self.ended = f"{how} at {time.strftime('%H:%M:%S')}"
        if self._running.get(self.endpoint) is self:
            del self._running[self.endpoint]
        shell = _shell()
        if shell is not None and self._after_cell in shell.events.callbacks["post_execute"]:
            shell.events.unregister("post_execute", self._after_cell)
        atexit.unregister(self.stop)
        # A frame that is being made was begun before: it must not come last.
        if self._lock.acquire(timeout=ANSWER_WITHIN_S + 1.0):
            self._update()
            self._lock.release()

    def _bundle(self) -> dict[str, Any]:
        board = self.board
        return {"text/html": as_html(board), "text/plain": as_text(board)}

    def _display(self) -> None:
        if (shell := _shell()) is not None:
            from IPython.display import display

            self._shown_in = shell.execution_count
            display(self._bundle(), raw=True, display_id=self._id)

    def _update(self) -> None:
        if _shell() is not None:
            from IPython.display import update_display

            update_display(self._bundle(), raw=True, display_id=self._id)


def _shell() -> Any:
    """The notebook's shell; None in a terminal and plain Python, which replace no output."""
    try:
        from IPython.core.getipython import get_ipython
    except ModuleNotFoundError:
        return None
    shell: Any = get_ipython()
    return shell if hasattr(shell, "kernel") else None
