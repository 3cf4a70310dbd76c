"""A role as a process: one line when it is ready, one line when it can't be, and a graceful end."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cluster import Client
from cluster.process import main
from cluster.spec import BASELINE, encode_spec

TIMEOUT_S = 20


@pytest.fixture
def start():
    """Start a role as a process that ends with the test."""
    started = []

    def run(*arguments, stdin=subprocess.PIPE):
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.process", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["coordinator", "--spec", "{"], "not a cluster spec"),
        (["coordinator", "--spec", '{"name": "x", "policy": "chaos"}'], "no policy 'chaos'"),
        (["coordinator", "--bind", "tcp://0.0.0.0:*"], "--insecure"),
        (["coordinator", "--bind", "127.0.0.1"], "is no endpoint"),
        (["coordinator", "--bind", "tcp://127.0.0.1:none"], "cannot listen at"),
        (["worker", "--endpoint", "nowhere", "--alone"], "cannot connect to 'nowhere'"),
        (["worker", "--endpoint", "tcp://127.0.0.1:9", "--handlers", "x"], "'module:attribute'"),
        (["worker", "--endpoint", "tcp://127.0.0.1:9", "--handlers", "sys:path"], "is a list"),
        (["worker", "--endpoint", "tcp://127.0.0.1:9", "--capacity", "0"], "capacity 0"),
        (["worker", "--endpoint", "tcp://127.0.0.1:9", "--model", "no-such"], "no-such"),
    ],
    ids=lambda value: " ".join(value)[-30:],
)
def test_what_it_is_given_wrong_is_said_in_one_line(arguments, words, capsys, restored_signals):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{arguments[0]}: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.fixture
def restored_signals():
    """A role takes SIGTERM and SIGINT over; give them back to pytest."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "arguments",
    [[], ["manager"], ["worker"], ["coordinator", "--capacity", "1"], ["worker", "--x"]],
)
def test_arguments_it_does_not_know_end_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m cluster.process" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_coordinator_and_a_worker_end_gracefully_on_a_signal(start, number):
    coordinator, announced = start("coordinator", "--spec", encode_spec(BASELINE))
    assert announced["pid"] == coordinator.pid
    worker, welcome = start("worker", "--endpoint", announced["endpoint"], "--name", "one")
    assert welcome == {"pid": worker.pid, "worker": "one"}
    with Client(announced["endpoint"]) as client:
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        worker.send_signal(number)
        assert worker.wait(TIMEOUT_S) == 0
        assert client.status().counters["workers_left"] == 1
    coordinator.send_signal(number)
    assert coordinator.wait(TIMEOUT_S) == 0
    assert (worker.stderr.read(), coordinator.stderr.read()) == ("", "")


def test_roles_end_when_their_parent_closes_their_input(start):
    coordinator, announced = start("coordinator")
    worker, _ = start("worker", "--endpoint", announced["endpoint"], "--capacity", "3")
    for process in (worker, coordinator):
        process.stdin.close()
        process.stdin = None
        assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("models", [[], ["digits"]])
def test_a_service_does_without_an_input(start, models):
    if models:
        pytest.importorskip("onnxruntime")
    coordinator, announced = start("coordinator", "--alone", stdin=subprocess.DEVNULL)
    options = [option for model in models for option in ("--model", model)]
    place = "--endpoint", announced["endpoint"]
    start("worker", *place, "--alone", *options, stdin=subprocess.DEVNULL)
    with Client(announced["endpoint"]) as client:
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        assert client.status().workers[0].models == models
    assert coordinator.poll() is None
    coordinator.terminate()
    assert coordinator.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("trim_bytes", [0, 1 << 20])
def test_a_coordinator_that_trims_its_heap_has_only_one(start, trim_bytes):
    spec = encode_spec(msgspec.structs.replace(BASELINE, trim_bytes=trim_bytes))
    process, said = start("coordinator", "--spec", spec)
    assert said["pid"] == process.pid
    told = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert (b"PYTHONMALLOC=malloc" in told) == bool(trim_bytes)
