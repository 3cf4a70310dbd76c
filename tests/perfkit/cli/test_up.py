"""A cluster in the foreground, and its roles one by one: started, shown, stopped, broken."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import Result

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.cluster import cards_for
from perfkit.cli.up import port_taken, stop_signals
from perfkit.gpu.device import discovery
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.probe import GpuProbe

Call = Callable[..., Result]


@pytest.fixture
def jobs(tmp_path: Path) -> None:
    """Handlers in the working folder."""
    (tmp_path / "jobs.py").write_text(
        "from cluster.work.handlers import Handlers\n"
        "HANDLERS = Handlers()\n"
        "HANDLERS.register('reverse')(lambda payload: payload[::-1])\n"
        "HANDLERS.register('print')(lambda payload: print('of a handler') or payload)\n"
    )


def test_settings_reach_workers_and_ctrl_c_stops_them_all(start_up: Any, tmp_path: Path) -> None:
    (tmp_path / "perfkit.toml").write_text("[cluster]\nworkers = 1\n[cluster.set]\ncredit = 3\n")
    up = start_up("--gpu")
    assert up.facts["spec"] == "baseline+credit-3"
    _, worker = up.pids()
    command = psutil.Process(worker).cmdline()
    assert command[command.index("--probe") + 1] == "perfkit.gpu.probe:GpuProbe"
    code, said = up.stop(signal.SIGINT)
    read, *_, last = said.splitlines()
    assert read == f"settings from {tmp_path}/perfkit.toml: workers = 1, set = {{'credit': 3}}"
    assert (code, last) == (0, "stopping the cluster …")
    assert ("no AMD card" in said) == (not GpuProbe().gpus())
    assert not any(map(psutil.pid_exists, up.pids()))


def test_each_worker_is_bound_to_a_card_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = "0000:03:00.0", "0000:0a:00.0"
    place = "DRIVER=amdgpu\nPCI_ID=1002:67DF\nPCI_SLOT_NAME={}\n"
    for number, pci in enumerate((one, two)):
        plant(tmp_path, {**POLARIS, "uevent": place.format(pci)}, card=f"card{number}")
    monkeypatch.setattr(discovery, "discover", partial(discovery.discover, tmp_path))
    assert [cards_for(True, workers) for workers in (1, 2, 3)] == [[one], [one, two], [one, two]]
    said = capsys.readouterr().err
    assert "1 of 2 cards have a worker; --workers 2 uses all" in said
    assert "2 of 3 workers have a card; the others use the CPU" in said
    assert cards_for(False, 2) == []
    monkeypatch.setenv("PERFKIT_CARD", two)
    assert cards_for(True, 2) == []


UP_WITH_CARDS = """
from pathlib import Path
from perfkit.cli.terminal.config import Settings
from perfkit.cli.up import run_up
found = Settings(workers=2, bind="tcp://127.0.0.1:*")
run_up(found, found.cluster_spec(), probe=None, cards=["0000:03:00.0"], log=Path("log"),
       show="off", as_json=Path("-"))
"""


def test_it_says_which_card_each_worker_has(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UP_WITH_CARDS], stdout=subprocess.PIPE, cwd=tmp_path
    ) as up:
        assert up.stdout is not None
        one, two = json.loads(up.stdout.readline())["workers"]
        environment = psutil.Process(one["pid"]).environ()
        up.send_signal(signal.SIGTERM)
    assert (one["card"], environment["PERFKIT_CARD"]) == ("0000:03:00.0", "0000:03:00.0")
    assert "card" not in two
    assert up.returncode == 0


@pytest.mark.usefixtures("jobs")
def test_it_suggests_a_kind_that_its_workers_offer(start: Any) -> None:
    up = start("cluster", "up", "--handlers", "jobs:HANDLERS", "--bind", "tcp://127.0.0.1:*")
    told = [up.stdout.readline() for _ in range(6)]
    assert any(line.endswith("--kind print --payload hello\n") for line in told)
    up.send_signal(signal.SIGTERM)
    assert up.wait(30) == 0


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(perfkit: Call, running: Any) -> None:
    for command in (["up", "--workers", "0"], ["coordinator"]):
        ended = perfkit("cluster", *command, "--bind", running.endpoint)
        assert ended.exit_code == 1
        assert ended.stderr.splitlines()[-1] == (
            f"perfkit: {running.endpoint} is taken: is another cluster up? "
            "use --bind for another port"
        )


def test_other_errors_of_a_bind_stay_what_they_are() -> None:
    with pytest.raises(ClusterError, match="no such device"), port_taken("tcp://x:1"):
        raise ClusterError("no such device")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("up --model magka", "there is no model 'magka'; did you mean 'magika'?"),
        ("up --bind tcp://0.0.0.0:5577", "say --insecure if the network is yours alone"),
        ("up --bind 5577", "--bind: '5577' is not an endpoint"),
        ("up --capacity 0", "--capacity: expected int >= 1 (0 was given)"),
        ("worker --model magka", "did you mean 'magika'?"),
        ("worker --endpoint tcp://h:*", "--endpoint: 'tcp://h:*' is not an endpoint"),
        ("coordinator --bind tcp://0.0.0.0:1", "say --insecure"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    perfkit: Call, arguments: str, complaint: str
) -> None:
    ended = perfkit("cluster", *arguments.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("perfkit: ")
    assert complaint in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("role", ["up --bind tcp://127.0.0.1:*", "worker"])
def test_missing_handlers_end_it_with_their_error(perfkit: Call, role: str) -> None:
    ended = perfkit("cluster", *role.split(), "--handlers", "nowhere:H")
    assert ended.exit_code == 1
    assert "part 'nowhere:H': No module named 'nowhere'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dead_worker_is_reported_and_comes_back_and_a_dead_coordinator_ends_it(
    start_up: Any,
) -> None:
    up = start_up("--workers", "2")
    coordinator, worker, other = up.pids()
    os.kill(worker, signal.SIGKILL)
    line = up.process.stderr.readline()
    assert line == f"perfkit: worker-0 (pid {worker}) has died; 1 of 2 workers left\n"
    back = up.process.stderr.readline()
    assert re.fullmatch(r"worker-0 is started again \(pid \d+\); 1 restart so far\n", back)
    os.kill(coordinator, signal.SIGKILL)
    _, said = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    assert f"perfkit: the coordinator has died (pid {coordinator})" in said
    assert "Traceback" not in said
    assert not psutil.pid_exists(other)


def test_a_terminal_shows_how_to_submit_and_how_the_cluster_is(terminal: Any) -> None:
    up = terminal("cluster", "up", "--workers", "1", "--bind", "tcp://127.0.0.1:*", "--capacity", 2)
    told = up.wait_for("Ctrl-C stops it.")
    assert "Cluster up at tcp://127.0.0.1:" in told
    assert "perfkit cluster submit --endpoint tcp://127.0.0.1:" in told
    assert "--kind echo --payload hello" in told
    for _ in range(2):
        up.wait_for("worker-0")
    assert up.interrupt() == 0


def test_without_a_terminal_it_prints_lines(start: Any) -> None:
    flags = ("--workers", 1, "--model", "magika", "--bind", "tcp://127.0.0.1:*")
    up = start("cluster", "up", *flags)
    lines = [up.stdout.readline() for _ in range(6)]
    assert lines[0].startswith("Cluster up at tcp://127.0.0.1:")
    assert [line.split()[0] for line in lines[1:3]] == ["coordinator", "worker-0"]
    assert lines[4].endswith("--model magika README.md\n")
    assert lines[5] == "Ctrl-C stops it.\n"
    up.send_signal(signal.SIGTERM)
    assert up.wait(30) == 0


@pytest.mark.usefixtures("jobs")
def test_the_roles_run_alone_and_find_each_other_and_handlers(start: Any, perfkit: Call) -> None:
    coordinator = start("cluster", "coordinator", "--bind", "tcp://127.0.0.1:*")
    endpoint = json.loads(coordinator.stdout.readline())["endpoint"]
    reverse = ("cluster", "submit", "--kind", "reverse", "--payload", "abc", "--endpoint", endpoint)
    refused = perfkit(*reverse)
    assert refused.exit_code == 1
    assert "the cluster has no workers; start one with `perfkit cluster worker`" in refused.stderr
    flags = ("--name", "w", "--capacity", 2, "--gpu", "--handlers", "jobs:HANDLERS")
    worker = start("cluster", "worker", "--endpoint", endpoint, *flags)
    assert json.loads(worker.stdout.readline()) == {"pid": worker.pid, "worker": "w"}
    asked = perfkit("cluster", "status", "--endpoint", endpoint, "--json")
    assert [w["capacity"] for w in json.loads(asked.stdout)["workers"]] == [2]
    assert perfkit(*reverse).stdout.split()[-1] == "cba"
    for role in (worker, coordinator):
        role.send_signal(signal.SIGINT)
        _, said = role.communicate(timeout=30)
        assert (role.returncode, "Traceback" in said) == (0, False), said
        assert "Ctrl-C stops it" in said


@pytest.mark.usefixtures("jobs")
def test_what_handlers_print_is_shown_and_kept(start_up: Any, perfkit: Call) -> None:
    up = start_up("--workers", "1", "--handlers", "jobs:HANDLERS")
    ask = ("cluster", "submit", "--kind", "print", "--payload", "x", "--endpoint", up.endpoint)
    assert perfkit(*ask).exit_code == 0
    assert re.fullmatch(r"worker-0 \[\d+\.0\] of a handler\n", up.process.stderr.readline())
    assert "of a handler" in Path(up.facts["log"]).read_text()


@pytest.mark.usefixtures("jobs")
def test_workers_of_a_host_are_supervised(start: Any, perfkit: Call, tmp_path: Path) -> None:
    coordinator = start("cluster", "coordinator", "--bind", "tcp://127.0.0.1:*")
    endpoint = json.loads(coordinator.stdout.readline())["endpoint"]
    flags = ("--workers", 2, "--handlers", "jobs:HANDLERS", "--log-file", tmp_path / "log")
    crew = start("cluster", "worker", "--endpoint", endpoint, *flags)
    told = [json.loads(crew.stdout.readline()) for _ in range(2)]
    assert (
        crew.stderr.readline()
        == f"2 workers for the coordinator at {endpoint}; Ctrl-C stops them\n"
    )
    os.kill(told[0]["pid"], signal.SIGKILL)
    assert "has died; 1 of 2 workers left" in crew.stderr.readline()
    assert "is started again" in crew.stderr.readline()
    crew.send_signal(signal.SIGINT)
    _, said = crew.communicate(timeout=30)
    assert (crew.returncode, said.splitlines()[-1]) == (0, "stopping the workers …")
    assert not psutil.pid_exists(told[1]["pid"])
    assert "has died with code -9" in (tmp_path / "log").read_text()
    failed = perfkit(
        "cluster", "worker", "--endpoint", endpoint, "--workers", 1, "--handlers", "no:H"
    )
    assert failed.exit_code == 1
    assert "ended with code 2 before it was ready" in failed.stderr
    assert "No module named 'no'" in failed.stderr
    refused = perfkit("cluster", "worker", "--workers", 2, "--name", "w")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_the_second_ctrl_c_does_not_interrupt_the_stopping() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
