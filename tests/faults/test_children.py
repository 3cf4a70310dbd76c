"""Processes end with their parent at once, hold up nobody, and see the world as a program does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster import LocalCluster

TIMEOUT_S = 20
HANDLERS = """
    import json, os, signal, subprocess, sys, threading, time
    from cluster import Handlers

    HANDLERS = Handlers()

    @HANDLERS.register("hold")
    def hold(payload):
        print("held", flush=True)
        child = subprocess.Popen(["sleep", "300"])
        open(payload.decode(), "w").write(str(child.pid))
        os.rename(payload.decode(), payload.decode() + ".done")
        sum(range(10**12))

    @HANDLERS.register("look")
    def look(payload):
        child = subprocess.run(["cat", "/proc/self/status"], capture_output=True).stdout
        masks = dict(line.split(b":") for line in child.splitlines() if line.startswith(b"Sig"))
        held = int(masks[b"SigIgn"], 16) | int(masks[b"SigBlk"], 16)
        return json.dumps({
            "stdin": os.readlink("/proc/self/fd/0"),
            "leads": os.getpgrp() == os.getpid(),
            "read": sys.stdin.read(),
            "default": not any(held >> n - 1 & 1 for n in (signal.SIGTERM, signal.SIGINT)),
        }).encode()

    @HANDLERS.register("linger")
    def linger(payload):
        threading.Thread(target=time.sleep, args=(300,)).start()
        return str(subprocess.Popen(["sleep", "300"]).pid).encode()
"""
PROGRAM = """
import json, sys
from cluster import LocalCluster
with LocalCluster(2, handlers=sys.argv[1]) as local, local.client() as client:
    client.submit("hold", sys.argv[2].encode())
    ids = [local.coordinator_pid, local.crew.pid, *(worker.pid for worker in local.workers)]
    print(json.dumps(ids), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def handlers(module):
    return f"{module(HANDLERS)}:HANDLERS"


def gone(numbers, timeout_s=TIMEOUT_S):
    """Whether all of these processes end in time."""
    left = [psutil.Process(pid) for pid in numbers if psutil.pid_exists(pid)]
    return not psutil.wait_procs(left, timeout=timeout_s)[1]


@pytest.mark.parametrize("victim", ["program", "supervisor"])
def test_a_killed_parent_takes_its_workers_along_in_the_middle_of_a_call(
    handlers, tmp_path, until, victim
):
    note = tmp_path / "child"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, handlers, str(note)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        ids = json.loads(program.stdout.readline())
        child = int(until(Path(f"{note}.done").exists) and Path(f"{note}.done").read_text())
        os.kill(program.pid if victim == "program" else ids[1], signal.SIGKILL)
        assert gone([*(ids if victim == "program" else ids[2:]), child], 5)
        program.kill()


def test_a_child_of_a_forked_program_does_not_keep_the_cluster_alive(handlers, tmp_path, until):
    forking = PROGRAM.replace(
        "    sys.stdin.read()", "    import os\n    os.fork()\n    sys.stdin.read()"
    )
    note = tmp_path / "child"
    with subprocess.Popen(
        [sys.executable, "-c", forking, handlers, str(note)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        ids = json.loads(program.stdout.readline())
        until(Path(f"{note}.done").exists)
        (copy,) = until(
            lambda: [c for c in psutil.Process(program.pid).children() if c.pid not in ids]
        )
        program.kill()
        try:
            assert gone(ids, 5)
        finally:
            copy.kill()


def test_a_worker_has_no_input_its_own_group_and_its_children_default_signals(handlers):
    with LocalCluster(1, handlers=handlers) as local, local.client() as client:
        seen = json.loads(client.submit("look").result(TIMEOUT_S))
    assert seen == {"stdin": "/dev/null", "leads": True, "read": "", "default": True}


def test_threads_and_children_of_handlers_do_not_hold_a_worker_up(handlers):
    with LocalCluster(1, handlers=handlers) as local, local.client() as client:
        child = int(client.submit("linger").result(TIMEOUT_S))
        (worker,) = local.workers
        worker.terminate()
        assert worker.wait(TIMEOUT_S) == 0
        assert gone([child])


def test_a_worker_of_a_pipe_has_no_input_either_and_ends_its_children(handlers, local_endpoint):
    command = [sys.executable, "-m", "cluster.process", "worker", "--handlers", handlers]
    endpoint, client = local_endpoint
    with subprocess.Popen(
        [*command, "--endpoint", endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        worker.stdout.readline()
        seen = json.loads(client.submit("look").result(TIMEOUT_S))
        child = int(client.submit("linger").result(TIMEOUT_S))
        worker.stdin.close()
        assert worker.wait(TIMEOUT_S) == 0
    assert seen == {"stdin": "/dev/null", "leads": True, "read": "", "default": True}
    assert gone([child])


@pytest.fixture
def local_endpoint():
    with LocalCluster(0) as local, local.client() as client:
        yield local.endpoint, client


def test_modules_of_the_working_folder_shadow_nothing_and_its_handlers_are_found(
    tmp_path, monkeypatch
):
    for name in ("cluster", "msgpack", "zmq", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "jobs.py").write_text(
        "from cluster.work.handlers import Handlers\n"
        "HANDLERS = Handlers()\n"
        "HANDLERS.register('reverse')(lambda payload: payload[::-1])\n"
    )
    monkeypatch.chdir(tmp_path)
    with LocalCluster(1, handlers="jobs:HANDLERS") as local, local.client() as client:
        assert client.submit("reverse", b"ab").result(TIMEOUT_S) == b"ba"
    assert subprocess.run([sys.executable, "-m", "perfkit", "cluster", "--help"]).returncode == 0
