"""A whole cluster of real processes: what it promises in fair weather, when a part of it dies, and
that nothing of it is left behind however it ends.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from cluster import Client, ClusterSpec, LocalCluster, Priority
from cluster.vocabulary.cards import card_environment
from cluster.vocabulary.errors import ClientClosed, ClusterError, TaskDeadLettered, Unreachable
from cluster.vocabulary.task import Gpu, GpuLoad
from perfkit.gpu.device.made_up import plant
from perfkit.optimized.specs import OPTIMIZED

TIMEOUT_S = 20
#: for what does not depend on the parts of a spec
one_spec = pytest.mark.parametrize("spec", [OPTIMIZED], ids=["optimized"], indirect=True)
#: appends a line when a task is begun, so that what ran where, and how often, can be counted
NOTING = """
    import os, time
    from cluster import Handlers

    HANDLERS = Handlers()

    @HANDLERS.register("note")
    def note(payload):
        path, seconds, name = payload.decode().split("|")
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {name}\\n")
        time.sleep(float(seconds))
        return name.encode()

    @HANDLERS.register("die")
    def die(payload):
        os.kill(os.getpid(), 9)

    @HANDLERS.register("chat")
    def chat(payload):
        print("x" * 200_000)
        return payload
"""

#: makes the probe of the made-up cards in the module's folder
PROBING = """
    from functools import partial
    from pathlib import Path
    from perfkit.gpu.probe import GpuProbe

    PROBE = partial(GpuProbe, Path(__file__).parent / "drm")
"""


def noted(path):
    """(pid, name) of each task begun so far."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return [(int(pid), name) for pid, name in lines]


def listens(endpoint):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) == 0


def pids(local):
    return [local.coordinator_pid, *(worker.pid for worker in local.workers)]


def gone(numbers):
    """Whether all of these processes end in time."""
    left = [psutil.Process(pid) for pid in numbers if psutil.pid_exists(pid)]
    return not psutil.wait_procs(left, timeout=TIMEOUT_S)[1]


# Fair weather


def test_the_example_of_the_readme():
    with LocalCluster(n_workers=2) as local, local.client() as client:
        assert client.submit("echo", b"x", priority=Priority.HIGH).result(timeout=5) == b"x"
        assert list(client.map("echo", [b"a", b"b"])) == [b"a", b"b"]
        client.submit("sleep", b"", requirements=None, timeout_s=2.0)
        local.workers[0].kill()
        print(client.status())
        assert client.submit("echo", b"y").result(timeout=5) == b"y"
        ids, endpoint = pids(local), local.endpoint
    assert gone(ids)
    assert not listens(endpoint)


def test_it_is_ready_when_every_worker_is_registered(local):
    status = local.status()
    assert sorted(worker.worker for worker in status.workers) == ["worker-0", "worker-1"]
    assert {worker.pid for worker in status.workers} == {worker.pid for worker in local.workers}
    assert all(worker.alive() for worker in [*local.workers, local.coordinator])
    assert status.counters["workers_joined"] == 2


@one_spec
def test_a_worker_can_be_added_while_the_others_are_busy(spec, module, tmp_path, until):
    name = module(NOTING)
    with LocalCluster(1, spec, handlers=f"{name}:HANDLERS") as local, local.client() as client:
        tasks = [client.submit("note", b"%s/ran|0.1|t" % bytes(tmp_path)) for _ in range(40)]
        until(lambda: noted(tmp_path / "ran"))
        added = local.add_worker()
        assert not all(task.done() for task in tasks)
        assert wait(tasks, TIMEOUT_S).not_done == set()
        assert {pid for pid, _ in noted(tmp_path / "ran")} == {added.pid, local.workers[0].pid}


@one_spec
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_worker_is_restarted_under_its_name_and_leaves_no_descriptor(spec, end, until):
    with LocalCluster(2, spec) as local, local.client() as client:
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        before = len(os.listdir("/proc/self/fd"))
        old = local.workers[0]
        getattr(old, end)()
        new = local.restart_worker(old)
        assert not old.alive()
        assert local.workers[0] is new
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        present = {worker.worker: worker.pid for worker in client.status().workers}
        assert present == {"worker-0": new.pid, "worker-1": local.workers[1].pid}
        # The socket of a question is closed a moment after it.
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_workers_are_bound_to_a_card_each_and_keep_it_when_they_are_started_again(until):
    cards = [card_environment(f"0000:0{number}:00.0") for number in (3, 4)]
    with LocalCluster(3, environments=cards) as local:
        workers = local.workers
        workers[1].kill()
        until(lambda: local.workers[1].pid != workers[1].pid)
        told = [Path(f"/proc/{it.pid}/environ").read_bytes().split(b"\0") for it in local.workers]
    bound = [sorted(it.decode() for it in one if it.startswith(b"PERFKIT_CARD")) for one in told]
    assert bound == [["PERFKIT_CARD=0000:03:00.0"], ["PERFKIT_CARD=0000:04:00.0"], []]


@one_spec
def test_every_worker_has_the_probe_and_gets_no_work_while_its_card_is_overheated(
    spec, module, tmp_path, until
):
    device = plant(tmp_path / "drm")
    probe = f"{module(PROBING, 'probe_of_local')}:PROBE"
    with LocalCluster(1, spec, probe=probe) as local, local.client() as client:
        local.add_worker()
        local.workers[0].kill()
        local.restart_worker(local.workers[0])
        until(lambda: all(w.load.gpus for w in client.status().workers))
        for worker in client.status().workers:
            assert worker.gpus == [Gpu("polaris", 8 << 30)]
            assert worker.load.gpus == (GpuLoad(7 << 30, 37.0, 61.0, 83.021),)
            assert worker.load.gpu_trouble is None
        assert client.submit("echo", b"cool").result(TIMEOUT_S) == b"cool"
        (device / "hwmon/hwmon2/temp1_input").write_text("97000\n")
        until(lambda: all(w.load.gpu_trouble for w in client.status().workers))
        for hot in client.status().workers:
            assert hot.load.gpu_trouble == "0000:0a:00.0 is overheated: edge 97 °C, critical 94 °C"
        task = client.submit("echo", b"hot")
        until(lambda: sum(client.status().queued.values()) == 1)
        assert not task.done()


@one_spec
def test_it_runs_over_ipc_and_waits_for_a_first_worker(spec):
    with LocalCluster(0, replace(spec, transport="ipc")) as local, local.client() as client:
        assert local.endpoint.startswith("ipc://")
        path = Path(local.endpoint.removeprefix("ipc://"))
        assert [it.stat().st_mode & 0o777 for it in (path.parent, path)] == [0o700, 0o700]
        assert path.exists()
        future = client.submit("echo", b"x")
        assert local.status().workers == []
        local.add_worker()
        assert future.result(TIMEOUT_S) == b"x"
        ids = pids(local)
    assert gone(ids)
    assert not path.parent.exists()


def test_the_coordinators_profile_is_written_when_it_ends(tmp_path):
    import pstats

    path = tmp_path / "coordinator.prof"
    with LocalCluster(1, cprofile=path) as local, local.client() as client:
        assert list(client.map("echo", [b"x"] * 50)) == [b"x"] * 50
    functions = {name for _, _, name in pstats.Stats(str(path)).stats}
    assert {"turn", "handle", "_assign"} <= functions


def test_a_handler_that_prints_a_lot_does_not_block_its_worker(module):
    name = module('print("not the line you wait for")\n{"pid": 1}' + NOTING.replace("\n    ", "\n"))
    with LocalCluster(1, handlers=f"{name}:HANDLERS") as local, local.client() as client:
        assert client.submit("chat", b"x").result(TIMEOUT_S) == b"x"


# What can't be started, and what is not running


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"handlers": "no_such_module:HANDLERS"}, "No module named 'no_such_module'"),
        ({"handlers": "cluster.work.workloads:NOTHING"}, "has no 'NOTHING'"),
        ({"handlers": "cluster.core.policy:POLICIES"}, "is a dict, not a Handlers registry"),
        ({"capacity": 5000}, "with capacity 5000"),
    ],
)
def test_a_worker_that_does_not_come_up_is_an_error_in_its_own_words(options, words):
    before = psutil.Process().children()
    local = LocalCluster(1, **options)
    with pytest.raises(ClusterError, match="worker-0 ended with code 2") as failed:
        local.start()
    assert words in str(failed.value)
    assert local.workers == []
    assert psutil.Process().children() == before


def test_the_status_of_a_cluster_whose_coordinator_has_ended_says_so_at_once():
    with LocalCluster(0) as local:
        local.coordinator.kill()
        with pytest.raises(ClusterError, match="the coordinator has ended; stop"):
            local.status()
        local.stop()
        local.start()
        assert local.status().workers == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_workers": "4"}, "a cluster can't have '4' workers"),
        ({"n_workers": -1}, "a cluster can't have -1 workers"),
        ({"spec": "optimized"}, "a spec is a ClusterSpec, such as perfkit.OPTIMIZED, not 'optimi"),
        ({"models": "digits"}, r"models are a list of names: models=\['digits'\]"),
    ],
)
def test_a_wrong_argument_of_a_cluster_is_said_before_anything_starts(options, words):
    with pytest.raises(ClusterError, match=words):
        LocalCluster(**options)


def test_a_coordinator_that_does_not_come_up_is_an_error_in_its_own_words():
    spec = ClusterSpec(name="broken", policy="chaos")
    with pytest.raises(ClusterError, match=r"(?s)coordinator ended with code 2.*policy 'chaos'"):
        LocalCluster(1, spec).start()


def test_a_worker_that_takes_too_long_is_given_up(module, monkeypatch):
    monkeypatch.setattr("cluster.local.READY_TIMEOUT_S", 0.8)
    monkeypatch.setattr("cluster.local.STOP_TIMEOUT_S", 0.2)
    name = module("import threading; threading.Event().wait(60)")
    before = psutil.Process().children()
    with pytest.raises(ClusterError, match="was not ready in time"):
        LocalCluster(1, handlers=f"{name}:HANDLERS").start()
    assert psutil.Process().children() == before


def test_workers_that_load_models_get_more_time(monkeypatch):
    monkeypatch.setattr("cluster.local.READY_TIMEOUT_S", 0.0)
    with LocalCluster(1, models=["digits"]) as local:
        assert local.status().workers[0].models == ["digits"]


def test_a_cluster_that_does_not_run_says_so():
    for wrong in ({"n_workers": -1}, {"capacity": 0}):
        with pytest.raises(ClusterError):
            LocalCluster(**wrong)
    local = LocalCluster(0)
    local.stop()
    for use in (
        local.client,
        local.async_client,
        local.status,
        local.add_worker,
        lambda: local.coordinator_pid,
    ):
        with pytest.raises(ClusterError, match="the cluster is not running"):
            use()
    with local:
        with pytest.raises(ClusterError, match="running already"):
            local.start()
        client, other = local.client(), Client(local.endpoint)
        future = client.submit("echo")
        local.stop()
        local.stop()
    assert isinstance(future.exception(), ClientClosed)
    with pytest.raises(ClusterError, match="closed"):
        client.status()
    other.close()


# Nothing is left behind


PROGRAM = """
import json, sys
from cluster import LocalCluster
with LocalCluster(2) as local, local.client() as client:
    assert client.submit("echo", b"x").result(10) == b"x"
    ids = [local.coordinator_pid, *(worker.pid for worker in local.workers)]
    print(json.dumps([local.endpoint, ids]), flush=True)
    sys.stdin.read()
    raise RuntimeError("in the block")
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL, None], ids=str)
def test_a_program_that_raises_or_is_interrupted_or_killed_leaves_nothing_behind(end):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        endpoint, ids = json.loads(program.stdout.readline())
        assert listens(endpoint)
        program.stdin.close() if end is None else program.send_signal(end)
        program.wait(TIMEOUT_S)
        assert gone(ids)
        words = program.stderr.read().decode()
    assert program.returncode != 0
    assert ("KeyboardInterrupt" in words) == (end == signal.SIGINT)
    assert ("in the block" in words) == (end is None)
    assert not listens(endpoint)


def test_a_cluster_stops_though_an_interrupt_came_while_it_looked_after_a_process():
    local = LocalCluster(0).start()
    (pid, lock) = local.coordinator_pid, local.coordinator._waitpid_lock
    lock.acquire()  # an interrupt between this and the next line of Popen.poll leaves it so
    local.stop()
    assert not psutil.pid_exists(pid)


def test_a_child_that_does_not_stop_in_time_is_killed(monkeypatch, until):
    monkeypatch.setattr("cluster.local.STOP_TIMEOUT_S", 0.3)
    with LocalCluster(1) as local, local.client() as client:
        client.submit("sleep", b"30")
        until(lambda: client.status().assigned)
        ids = pids(local)
    assert gone(ids)


# When a part dies


def test_killing_a_worker_among_2000_tasks_loses_none_and_delays_none_by_a_second(spec, until):
    payloads = [b"0.0005%04d" % number for number in range(2000)]
    settled = []

    def settle(future):
        settled.append((future, time.monotonic()))

    with LocalCluster(2, spec) as local, local.client() as client:
        futures = [client.submit("sleep", payload) for payload in payloads]
        for future in futures:
            future.add_done_callback(settle)
        until(lambda: len(settled) > 200)
        local.workers[0].kill()
        assert len(settled) < 2000
        assert [future.result(TIMEOUT_S) for future in futures] == payloads
        counters = client.status().counters
    ended_at = dict(settled)
    assert len(settled) == len(ended_at) == 2000
    assert (counters["accepted"], counters["done"]) == (2000, 2000)
    assert counters["workers_lost"] == 1
    # Tasks are served in order, so one that was delayed ends later than those behind it.
    ends = [ended_at[future] for future in futures]
    assert max(end - min(ends[at : at + 20]) for at, end in enumerate(ends)) < 1.0


def test_the_tasks_of_a_killed_worker_are_done_elsewhere_within_a_second(
    spec, module, tmp_path, until
):
    handlers = f"{module(NOTING)}:HANDLERS"
    with LocalCluster(3, spec, handlers=handlers) as local, local.client() as client:
        victim = local.workers[0]
        # one for each worker, so that nothing queues
        ends, ran = {}, tmp_path / "ran"
        payloads = [f"{ran}|0.2|{number}".encode() for number in range(3)]
        futures = [client.submit("note", payload) for payload in payloads]
        for number, future in enumerate(futures):
            future.add_done_callback(
                lambda _, number=number: ends.update({number: time.monotonic()})
            )
        until(lambda: len(noted(ran)) == 3)
        held = [int(name) for pid, name in noted(ran) if pid == victim.pid]
        assert len(held) == 1
        killed_at = time.monotonic()
        victim.kill()
        assert [future.result(TIMEOUT_S) for future in futures] == [b"0", b"1", b"2"]
        until(lambda: len(ends) == 3)
        again = [pid for pid, name in noted(ran) if int(name) in held]
        assert len(again) == 2
        assert ends[held[0]] - killed_at - 0.2 < 1.0  # 0.2 s is what the task itself takes
        assert client.status().counters["lost"] == 1


def test_a_task_that_kills_its_workers_is_dead_lettered_with_its_story(spec, module, until):
    handlers = f"{module(NOTING)}:HANDLERS"
    with LocalCluster(4, spec, handlers=handlers) as local, local.client() as client:
        with pytest.raises(TaskDeadLettered) as buried:
            client.submit("die").result(TIMEOUT_S)
        assert str(buried.value).count("assigned → assigned") == 3
        until(lambda: len(client.status().workers) == 4)
        assert local.crew.restarts == 3


def test_a_suspended_worker_loses_its_lease_and_joins_again(spec, module, tmp_path, until):
    handlers = f"{module(NOTING)}:HANDLERS"
    ran = tmp_path / "ran"
    with LocalCluster(2, spec, handlers=handlers) as local, local.client() as client:
        future = client.submit("note", f"{ran}|0.1|task".encode())
        (first, _) = until(lambda: noted(ran))[0]
        worker = next(worker for worker in local.workers if worker.pid == first)
        worker.suspend()
        assert future.result(TIMEOUT_S) == b"task"
        assert [pid == first for pid, _ in noted(ran)] == [True, False]
        worker.resume()
        status = until(lambda: len((status := client.status()).workers) == 2 and status)
        assert status.counters["workers_joined"] == 3
        counters = client.status().counters
        # It reports what it finished late, unless it hears first that its epoch is over.
        assert counters["late_results"] <= 1
        assert counters["done"] == 1
        assert client.submit("note", f"{ran}|0|again".encode()).result(TIMEOUT_S) == b"again"


@one_spec
def test_a_terminated_worker_finishes_its_task_and_leaves_the_rest(spec, module, tmp_path, until):
    handlers = f"{module(NOTING)}:HANDLERS"
    ran = tmp_path / "ran"
    with LocalCluster(2, spec, handlers=handlers) as local, local.client() as client:
        names = [str(number) for number in range(20)]
        futures = [client.submit("note", f"{ran}|0.05|{name}".encode()) for name in names]
        until(lambda: len(noted(ran)) >= 4)
        leaver = local.workers[0]
        leaver.terminate()
        assert leaver.wait(TIMEOUT_S) == 0
        begun = [name for pid, name in noted(ran) if pid == leaver.pid]
        assert [future.result(TIMEOUT_S) for future in futures] == [n.encode() for n in names]
        counters = client.status().counters
    assert sorted(name for _, name in noted(ran)) == sorted(names)
    assert begun
    assert (counters["workers_left"], counters["done"]) == (1, 20)
    assert "workers_lost" not in counters


def test_a_worker_computes_longer_than_its_liveness_and_is_not_lost(local, client):
    before = client.status().counters["workers_lost"]
    assert local.spec.limits.liveness_s < 1.5
    assert client.submit("spin", b"1.5").result(TIMEOUT_S) == b"1.5"
    assert client.status().counters["workers_lost"] == before


@one_spec
def test_a_killed_coordinator_is_unreachable_and_its_workers_still_stop(spec):
    with LocalCluster(1, spec) as local, local.client() as client:
        assert client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
        local.coordinator.kill()
        with pytest.raises(Unreachable, match=local.endpoint):
            client.status(timeout=0.3)
        future = client.submit("echo", b"y")
        ids = [worker.pid for worker in local.workers]
    assert isinstance(future.exception(), ClientClosed)
    assert gone(ids)
