"""A long cell says how long it runs and how far it is, in one display, to a person who watches."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

#: In the kernel: it loads the extension twice, as a kernel of the lab and its notebook do.
SETUP = """
%load_ext perfkit.jupyter.progress
%load_ext perfkit
from perfkit.bench.workloads.rounds import prefixed
from perfkit.jupyter import progress
import threading
progress.AFTER_S, progress.UPDATE_EVERY_S = 0.02, 0.001
pause = threading.Event()
"""
LONG = """
said = prefixed(None, "throughput")
pause.wait(0.2)
said("block 2 of 8")
pause.wait(0.2)
"""
TASKS = """
from cluster import LocalCluster
progress.UPDATE_EVERY_S = 0.05
with LocalCluster(1) as cluster, cluster.client() as client:
    for _ in range(20):
        assert client.submit("sleep", b"0.01").result(10) == b"0.01"
from cluster.shells.refusals import WATCHERS
assert WATCHERS
"""

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a cell in a real kernel, as a front end with a person or without; gives its displays."""
    manager, client = start_new_kernel(startup_timeout=60)

    def run(cell: str, person: bool = True) -> list[dict[str, Any]]:
        displays: list[dict[str, Any]] = []

        def note(message: dict[str, Any]) -> None:
            if message["msg_type"] in ("display_data", "update_display_data"):
                displays.append(message)

        reply = client.execute_interactive(
            cell, allow_stdin=person, output_hook=note, stdin_hook=print, timeout=60
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        return displays

    run(SETUP)
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def texts(displays: list[dict[str, Any]]) -> list[str]:
    return [it["content"]["data"]["text/plain"] for it in displays]


def test_a_long_cell_has_one_line_which_ends_with_its_time(run: Run) -> None:
    displays = run(LONG)
    shown = texts(displays)
    assert shown[0].startswith("runs for ")
    assert any(text.endswith(": throughput: block 2 of 8") for text in shown)
    assert shown[-1].startswith("took ")
    assert [it["msg_type"] for it in displays][:2] == ["display_data", "update_display_data"]
    assert {it["msg_type"] for it in displays[1:]} == {"update_display_data"}
    assert len({it["content"]["transient"]["display_id"] for it in displays}) == 1


def test_of_a_cell_with_tasks_it_says_how_fast_they_are_done(run: Run) -> None:
    assert any("tasks done per second" in text for text in texts(run(TASKS)))
    run("progress.AFTER_S = 60.0")
    assert run("assert not WATCHERS") == [], "a short cell shows nothing"
    run("progress.AFTER_S = 0.02")


def test_in_batch_nothing_is_shown(run: Run) -> None:
    assert run(LONG, person=False) == []
