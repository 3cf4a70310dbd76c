"""The status of a cluster: as a table, as JSON, watched, and without a coordinator."""

import io
import json
import re
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import Result

from cluster.shells.client import Client
from cluster.vocabulary.printable import printable
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import BatchSize, Gpu, GpuLoad, KindBatches, Load
from perfkit.cli import status as module
from perfkit.cli.status import ANSWER_WITHIN_S, WORKERS_SHOWN, status_view
from perfkit.cli.terminal.output import SafeConsole
from tests.perfkit.statuses import HOSTILE, status, worker

Call = Callable[..., Result]

NOWHERE = "tcp://127.0.0.1:1"


def seen(shown: Status, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(status_view(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_worker_is_a_row_sorted_by_name() -> None:
    lines = seen(status(worker("w-2", draining=True), worker("w-1"))).splitlines()
    assert lines[1].split() == ("w-1 h 7 1 of 2 1,234 unknown 0.1 s ago digits, echo".split())
    assert lines[2].startswith("w-2 draining")


def test_names_and_hosts_do_not_steer_the_terminal() -> None:
    facts = status(
        worker(HOSTILE, host=HOSTILE, kinds=[HOSTILE], load=Load(gpu_trouble=HOSTILE)),
        policy=HOSTILE,
        counters={HOSTILE: 1},
    )
    console = SafeConsole(file=io.StringIO(), width=400, force_terminal=True)
    console.print(status_view(facts))
    assert isinstance(console.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # the console's own styles
    assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f\u202e]", shown)
    assert shown.count(printable(HOSTILE)) == 3  # worker, host and offers


def test_a_worker_with_a_hostile_name_is_shown_as_text_and_whole_in_json(
    start_up: Any, start: Any, perfkit: Call
) -> None:
    up = start_up("--workers", 0)
    started = start("cluster", "worker", "--endpoint", up.endpoint, "--name", HOSTILE)
    assert json.loads(started.stdout.readline())["worker"] == HOSTILE
    shown = perfkit("cluster", "status", "--endpoint", up.endpoint)
    assert printable(HOSTILE) in shown.stdout
    as_json = perfkit("cluster", "status", "--endpoint", up.endpoint, "--json").stdout
    assert json.loads(as_json)["workers"][0]["worker"] == HOSTILE
    for text in (shown.stdout, as_json):
        assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f\u202e]", text)


def test_a_worker_with_cards_shows_them_and_their_trouble() -> None:
    gpus = [Gpu("navi3", 24 << 30), Gpu("navi2", 10 << 30, is_apu=True), Gpu(None, 8 << 30)]
    hot = GpuLoad(7 << 30, 37.4, 99.0, 83.4, trouble="c is overheated", own_memory_bytes=1 << 30)
    load = Load(gpus=(hot, GpuLoad(asleep=True)))
    both = Load(gpus=(hot,), gpu_trouble="c is overheated")
    shown = status(
        worker("w-1", gpus=gpus, load=load),
        worker("w-2", gpus=gpus[:1], load=both),
        worker("w-3"),
    )
    lines = [line.rstrip() for line in seen(shown, 160).splitlines()]
    one = "navi3: 37 %, 7.0 GiB free, 99 °C, 83 W, uses 1.0 GiB, in trouble"
    assert lines[1].endswith(one)
    assert [line.strip() for line in lines[2:4]] == ["navi2: asleep", "card: nothing known"]
    assert lines[4].endswith(one)
    assert lines[5].endswith("–")
    assert lines[6:8] == [
        "w-1 gets no work for one card: c is overheated",
        "w-2 gets no work: c is overheated",
    ]


def test_a_narrow_terminal_cuts_no_number() -> None:
    text = seen(status(worker("worker-1", pid=4_194_304, finished=1_234_567)), width=80)
    assert "4194304" in text
    assert "1,234,567" in text


def test_tasks_are_counted_by_priority_and_counters_of_zero_are_left_out() -> None:
    queued = {"urgent": 0, "high": 2, "low": 1_000}
    counters = {"done": 1_000, "failed": 0, "bytes_in": 2_048}
    text = seen(status(queued=queued, assigned=3, delayed=4, counters=counters))
    assert "1,002 queued (2 high, 1,000 low) · 3 assigned · 4 waiting for a retry" in text
    assert "1,000 done · bytes in 2.0 KiB" in text
    assert "failed" not in text
    assert "so far  nothing" in seen(status())
    formed = KindBatches("digits", [BatchSize(100, 100, 0.1), BatchSize(), BatchSize(50, 200, 0.2)])
    text = seen(status(batches=[formed, KindBatches("idle", [])]))
    assert "batches digits: 150 runs, 2.0 items and 2 ms each\nso far" in text


def test_no_workers_and_more_than_fit_are_said() -> None:
    assert "no workers: start one with `perfkit cluster worker`" in seen(status())
    many = [worker(f"w-{number}") for number in range(WORKERS_SHOWN + 5)]
    assert "… and 5 more" in seen(status(*many))


def test_the_status_of_a_running_cluster_for_people_and_programs(
    perfkit: Call, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFKIT_ENDPOINT", running.endpoint)

    def told() -> dict[str, int]:
        nonlocal facts
        facts = json.loads(perfkit("cluster", "status", "--json").stdout)
        return {worker["worker"]: worker["pid"] for worker in facts["workers"]}

    facts: dict[str, Any] = {}
    # Another test may have had a worker killed: its supervisor starts it again.
    while (pids := told()).keys() != {worker["name"] for worker in running.facts["workers"]}:
        pass
    shown = perfkit("cluster", "status", "--endpoint", running.endpoint)
    assert shown.exit_code == 0
    assert running.endpoint in shown.stdout
    for name, pid in pids.items():
        assert f"{name} " in shown.stdout
        assert str(pid) in shown.stdout
        assert psutil.pid_exists(pid)
    assert facts["endpoint"] == running.endpoint
    assert {"magika", "digits"} == set(facts["workers"][0]["models"])


def test_top_moves_with_the_work_in_a_terminal_and_ends_with_a_key(
    running: Any, terminal: Any
) -> None:
    seen = terminal("cluster", "top", "--endpoint", running.endpoint, "--interval", "0.5")
    seen.wait_for("q ends it")
    with Client(running.endpoint) as client:
        assert len([future.result() for future in client.submit_batch("echo", [b""] * 100)]) == 100
        done = client.status().counters["done"]
    seen.wait_for(f"· done {done:,}")
    assert seen.press("q") == 0
    assert "Traceback" not in seen.rest()


def test_top_outlives_its_coordinator_and_ends_with_ctrl_c(start_up: Any, terminal: Any) -> None:
    up = start_up("--workers", "0")
    seen = terminal("cluster", "top", "--endpoint", up.endpoint, "--interval", "0.5")
    seen.wait_for("workers none")
    up.stop()
    seen.wait_for("no answer for")
    assert seen.interrupt() == 130
    assert "Traceback" not in seen.rest()


@pytest.mark.parametrize("once", [[], ["--once"]])
def test_top_is_one_frame_where_there_is_no_terminal(
    perfkit: Call, running: Any, once: list[str]
) -> None:
    shown = perfkit("cluster", "top", "--endpoint", running.endpoint, *once)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    for text in ("queued", "done per second", "stalest worker", "worker-0", "worker-1"):
        assert shown.stdout.count(text) >= 1


@pytest.mark.parametrize(
    "command", [["status"], ["top"], ["submit", "--kind", "echo"]], ids=" ".join
)
def test_without_a_coordinator_the_error_says_what_to_do(
    perfkit: Call, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ANSWER_WITHIN_S < 5.0
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.05)
    ended = perfkit("cluster", *command, "--endpoint", NOWHERE)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"perfkit: no coordinator answers at {NOWHERE}; start one with `perfkit cluster up`, "
        "or say with --endpoint where it is\n"
    )
