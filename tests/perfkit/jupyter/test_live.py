"""The live view of a real cluster: in plain Python, and in a kernel, read as nbclient reads it."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from cluster.local import LocalCluster
from cluster.vocabulary.errors import ClusterError, Unreachable
from perfkit.jupyter.live import LiveView, live
from tests.waiting import until

SOON_S = 30.0


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "live"]


def queued(view: LiveView) -> list[int | None]:
    return [moment.queued for moment in list(view.activity.moments)]


def test_a_view_sees_the_queue_rise_and_fall_and_a_worker_die(cluster: LocalCluster) -> None:
    client = cluster.client()
    with live(cluster, interval_s=0.5) as view:
        (process,) = cluster.workers
        assert "worker-0" in str(view)
        os.kill(process.pid, signal.SIGSTOP)
        futures = client.submit_batch("echo", [b"x"] * 500)
        until(lambda: (queued(view)[-1] or 0) > 400)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: ("worker deaths", "1") in view.board.facts)
        assert len([future.result(SOON_S) for future in futures]) == 500
        until(lambda: queued(view)[-1] == 0)
        until(lambda: any("started workers again once" in it for it in view.board.remarks))
        assert max(moment.done_per_s or 0.0 for moment in list(view.activity.moments)) > 0
        assert list(view.to_frame()["queued"])[-1] == 0
    assert threads() == []
    assert "stopped at" in str(view)
    assert "stopped at" in view._repr_html_()


def test_a_view_ends_with_its_cluster_and_gives_way_to_another(tmp_path: Path) -> None:
    with LocalCluster(0) as cluster:
        first = live(cluster.client(), interval_s=0.5)
        second = live(cluster, interval_s=0.5)
        assert "stopped at" in first.ended
        assert len(threads()) == 1
        assert "policy" in second.save(tmp_path / "frame.html").read_text()
        assert "queued" in second.plot().alt
    until(lambda: "ended at" in second.ended)
    until(lambda: threads() == [])
    second.stop()
    assert "ended at" in repr(second)


def test_what_cannot_be_shown_is_refused_with_a_reason(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="not running; use it in a with block"):
        live(LocalCluster(1))
    wrong: Any = 5
    with pytest.raises(
        ClusterError, match=r"live\(\) shows a LocalCluster, a Client or .* not int"
    ):
        live(wrong)
    with pytest.raises(ValueError, match="at least"):
        live(cluster, interval_s=0.01)
    assert threads() == []


def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.jupyter.live.ANSWER_WITHIN_S", 0.1)
    with pytest.raises(Unreachable, match="no coordinator answers"):
        live("tcp://127.0.0.1:1")
    assert threads() == []


CELLS = [
    "import threading\n"
    "from cluster.local import LocalCluster\n"
    "from perfkit.jupyter.live import live\n"
    "cluster = LocalCluster(1).start()\n"
    "view = live(cluster, interval_s=0.5)\n"
    "view",
    "with cluster.client() as client:\n"
    "    done = [f.result() for f in client.submit_batch('echo', [b'x'] * 1_234)]\n"
    "first = len(view.activity.moments)\n"
    "while len(view.activity.moments) < first + 2:\n"
    "    threading.Event().wait(0.05)",
    "import os, signal\n"
    "try:\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "    threading.Event().wait(30)\n"
    "except KeyboardInterrupt:\n"
    "    print('interrupted', view.board.is_fresh)",
    "cluster.stop()",
    "print([t.name for t in threading.enumerate() if t.name == 'live'])",
]


def test_an_executed_notebook_keeps_the_last_frame_in_one_display(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(it) for it in CELLS])
    frames: list[tuple[int, str]] = []

    class Reader(NotebookClient):
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] == "update_display_data":
                frames.append((cell_index, msg["content"]["data"]["text/plain"]))
            return super().process_message(msg, cell, cell_index)

    Reader(book, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown, working, interrupted, ended, last = (cell.outputs for cell in book.cells)
    (frame,) = shown  # the view as the last expression adds no second display
    assert "done 1,234" in frame.data["text/plain"]
    assert "ended at" in frame.data["text/plain"]
    assert "ended at" in frame.data["text/html"]
    assert 'class="curve" src="data:image/svg' in frame.data["text/html"]
    assert len(nbformat.writes(book)) < 60_000
    # From the thread while the cell ran, and at its end.
    assert sum(index == 1 for index, _ in frames) >= 3
    assert (working, ended) == ([], [])
    assert "interrupted True" in interrupted[0].text
    assert last[0].text == "[]\n"
