"""The coordinator serves peers that keep to the protocol, also among others that do not."""

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest
import zmq
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, ClusterSpec, Handlers, Priority, Worker
from cluster.transport.hello import ANSWERS, Announcement
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, TaskFailed, TaskTimedOut
from cluster.vocabulary.task import ProcessState
from cluster.work.workloads import HANDLERS

TIMEOUT_S = 10
GARBAGE = [
    b"\xc1",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x91" * 10_000,
    b"\xdd\xff\xff\xff\xff",
    b"\x92\x03\x91\x92\x04\xa2\xff\xfe",
    msgpack.packb({"v": 1, "type": "client_left", "client": "c"}),
    msgpack.packb({"v": 2, "type": "client_left"}),
    msgpack.packb({"v": 2, "type": "welcome", "worker": "w"}),
]


def port_of(endpoint):
    return int(endpoint.rpartition(":")[2])


def listens(endpoint):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port_of(endpoint))) == 0


def introduction(name="stranger", incarnation=1, **changes):
    fields = {"capacity": 1, "credit": 2, "kinds": ["odd"]} | changes
    return on.WorkerJoined(name, incarnation, **fields)


def test_one_that_is_left_to_the_collector_gives_its_descriptors_back(spec):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ClusterCoordinator(spec)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# Hostile peers


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: garbage[:8].hex() or "empty")
def test_garbage_is_counted_and_answered_and_the_others_are_served(serve, stranger, garbage):
    served = serve()
    peer, goer = (stranger(served.coordinator.endpoint) for _ in range(2))
    goer.socket.linger = 1000
    for one in (peer, goer):
        one.send(garbage)
    goer.socket.close()
    answer = peer.hear(Announcement)
    assert answer.spec == served.coordinator.spec
    assert answer.complaint.startswith("refused: ")
    assert served.client.status().counters["malformed"] >= 1
    assert served.client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_message_of_many_frames_is_refused_as_one(serve, stranger):
    served = serve()
    peer = stranger(served.coordinator.endpoint)
    ((first,),) = peer.codec.encode([on.ClientLeft("stranger")])
    peer.send(first, *GARBAGE * 20)
    assert re.search(r"this has 161|160 frames follow", peer.hear(Announcement).complaint)
    assert served.client.status().counters["malformed"] == 1


@pytest.mark.parametrize(("question", "answer"), ANSWERS.items())
def test_a_peer_that_asks_for_a_sign_of_life_or_a_receipt_gets_it(
    serve, stranger, question, answer
):
    peer = stranger(serve().coordinator.endpoint)
    peer.send(question)
    assert peer.socket.poll(TIMEOUT_S * 1000)
    assert peer.socket.recv_multipart() == [answer]


def test_a_flood_of_garbage_stops_nobody(serve, stranger, until):
    served = serve()
    peers = [stranger(served.coordinator.endpoint) for _ in range(5)]
    futures = []
    for _ in range(20):
        for peer in peers:
            for garbage in GARBAGE:
                peer.send(garbage)
        futures.append(served.client.submit("echo", b"x"))
    assert [future.result(TIMEOUT_S) for future in futures] == [b"x"] * 20
    sent = 20 * 5 * len(GARBAGE)
    assert until(lambda: served.client.status().counters["malformed"] == sent)


def test_a_frame_over_the_bound_ends_its_senders_connection_only(serve, limited, stranger):
    served = serve(spec=limited(message_bytes=100_000))
    peer = stranger(served.coordinator.endpoint)
    monitor = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peer.send(b"x" * 1_000_000)
    dropped = monitor.poll(TIMEOUT_S * 1000)
    peer.socket.disable_monitor()
    assert dropped
    assert served.client.submit("echo", b"x" * 40_000).result(TIMEOUT_S) == b"x" * 40_000
    assert "malformed" not in served.client.status().counters


def test_a_storm_of_names_is_bounded(serve, limited, stranger):
    served = serve(spec=limited(clients=4, workers=3))
    assert served.client.submit("echo", b"x").result(TIMEOUT_S) == b"x"
    peer = stranger(served.coordinator.endpoint)
    for number in range(500):
        peer.say(on.ClientHeartbeat(f"c{number}", 0), on.StatusRequested(f"s{number}", number))
        peer.say(introduction(f"w{number}"))
    while peer.hear(do.Report).request != 499:
        pass
    peer.say(on.TasksSubmitted("one-too-many", 0, "echo", [b"x"]))
    assert "4 clients" in peer.hear(do.Refuse).reason
    status = served.client.status()
    assert status.clients == 4
    assert 1 <= len(status.workers) <= 3  # a busy machine may take silent ones for lost by now
    assert served.client.submit("echo", b"y").result(TIMEOUT_S) == b"y"


def test_a_worker_too_many_is_told_why(serve, limited, stranger):
    served = serve(spec=limited(workers=1))
    peer = stranger(served.coordinator.endpoint)
    peer.say(introduction())
    assert "there is room for 1 worker only" in peer.hear(do.Disconnect).reason


def test_results_for_a_lease_one_does_not_hold_are_dropped(serve, stranger):
    served = serve()
    peer = stranger(served.coordinator.endpoint)
    peer.say(on.TasksFinished("nobody", 7, 1, 0, [b"forged"]))
    assert "join again" in peer.hear(do.Disconnect).reason
    peer.say(introduction())
    epoch = peer.hear(do.Welcome).epoch
    peer.say(on.TasksFinished("stranger", epoch, 1, 0, [b"forged"]))
    peer.say(on.TasksFinished("stranger", epoch, 2**63, 2**63, [b"forged"] * 3))
    peer.say(on.TasksReleased("stranger", epoch, 1, 0))
    peer.say(on.WorkerHeartbeat("stranger", epoch, [1, 2**63]))
    assert {peer.hear(do.Cancel).lease, peer.hear(do.Cancel).lease} == {1, 2**63}
    counters = served.client.status().counters
    assert (counters["late_results"], counters["stale_messages"]) == (1 + 1 + 3, 1)
    assert served.client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_a_worker_that_answers_with_nonsense_harms_its_own_tasks_only(serve, stranger):
    served = serve()
    peer = stranger(served.coordinator.endpoint)
    peer.say(introduction())
    future = served.client.submit("odd", b"x")
    lease = peer.hear(do.Assign)
    worker, epoch, id = "stranger", lease.epoch, lease.lease
    peer.say(on.TasksFinished(worker, epoch, id, 5, [b"beyond"]))
    peer.say(on.TasksFinished(worker, epoch, id, 0, [b"too", b"many"]))
    peer.say(on.TasksFinished(worker, epoch, id, 0, []))
    peer.say(on.TasksReleased(worker, epoch, id, 9))
    peer.say(on.TasksFinished(worker, epoch, id, 0, [b"x"], [], float("nan"), float("-inf")))
    assert future.result(TIMEOUT_S) == b"x"
    peer.say(on.TasksFinished(worker, epoch, id, 0, [b"twice"]))
    peer.say(on.StatusRequested("stranger", 1))
    assert peer.hear(do.Report).answer.counters["done"] == 1
    assert served.client.submit("echo", b"y").result(TIMEOUT_S) == b"y"


def test_a_client_that_asks_for_what_is_not_its_own_gets_nothing(serve, stranger):
    served = serve()
    peer = stranger(served.coordinator.endpoint)
    peer.say(on.TasksCancelled("stranger", 3, [1, 2, 3]), on.ClientLeft("stranger"))
    peer.say(on.TasksSubmitted("stranger", 0, "echo", []))
    assert "no task" in peer.hear(do.Refuse).reason
    peer.say(on.ClientHeartbeat("stranger", 2**63, [2**63, 5], [(4, 2**63)]))
    assert peer.hear(do.Greet).client == "stranger"
    peer.say(on.PolicyChanged("stranger", 9, "chaos"))
    assert "no policy 'chaos'" in peer.hear(do.Report).error
    assert served.client.submit("echo", b"x").result(TIMEOUT_S) == b"x"


def test_late_results_of_a_worker_that_was_given_up_are_dropped(serve, limited, stranger):
    spec = limited(heartbeat_s=0.2, liveness_s=0.8)
    handlers = Handlers()
    handlers.register("odd")(lambda payload: b"from the other")
    coordinator = serve(handlers, spec, workers=0).coordinator
    peer = stranger(coordinator.endpoint)
    peer.say(introduction())
    peer.hear(do.Welcome)
    peer.say(on.TasksSubmitted("stranger", 0, "odd", [b"x"]))
    lease = peer.hear(do.Assign)
    # from here on it is silent for longer than its liveness
    peer.say(on.StatusRequested("stranger", 1))
    while peer.hear(do.Report).answer.workers:
        peer.say(on.StatusRequested("stranger", 1))
    late = on.TasksFinished("stranger", lease.epoch, lease.lease, 0, [b"late"])
    peer.say(late)
    assert peer.hear(do.Disconnect).epoch == lease.epoch
    peer.say(introduction())
    again = peer.hear(do.Assign)
    assert again.epoch > lease.epoch
    peer.say(late, on.TasksFinished("stranger", again.epoch, again.lease, 0, [b"in time"]))
    assert peer.hear(do.Deliver).outcomes == [b"in time"]
    peer.say(on.StatusRequested("stranger", 2))
    counters = peer.hear(do.Report).answer.counters
    assert (counters["late_results"], counters["done"], counters["workers_lost"]) == (2, 1, 1)


def test_what_can_not_be_sent_to_a_worker_that_vanished_goes_to_another(
    serve, limited, stranger, until
):
    served = serve(spec=limited(liveness_s=60.0))
    peer = stranger(served.coordinator.endpoint)
    peer.say(introduction(capacity=1000, credit=1000))
    peer.hear(do.Welcome)
    peer.socket.close()

    def returned():
        served.client.submit("odd", b"x")
        return served.client.status().counters["returned"]

    assert until(returned) == 1
    other = stranger(served.coordinator.endpoint)
    other.say(introduction("other"))
    assert other.hear(do.Assign).payloads == [b"x"]
    assert "workers_lost" not in served.client.status().counters, "it may have said goodbye"


def test_a_supervisor_vouches_for_a_silent_worker_and_is_told_to_kill_one_that_overran(
    serve, limited, stranger
):
    served = serve(spec=limited(client_liveness_s=60.0))
    worker, host = (stranger(served.coordinator.endpoint) for _ in range(2))
    worker.say(introduction(pid=7))
    worker.hear(do.Welcome)
    future = served.client.submit("odd", b"x", timeout_s=1.0)
    worker.hear(do.Assign)
    report = on.HostReported("h", [("stranger", 7, ProcessState.RUNNING)])
    while not host.socket.poll(200):
        host.say(report)
    kill = host.hear(do.Kill)
    assert (kill.host, kill.worker, kill.pid) == ("h", "stranger", 7)
    assert isinstance(future.exception(1.0), TaskTimedOut)
    assert "workers_lost" not in served.client.status().counters
    host.say(on.HostReported("h", [("stranger", 7, ProcessState.KILLED)]))
    host.say(on.StatusRequested("h", 1))
    status = host.hear(do.Report).answer
    assert (status.counters["kills"], status.counters["workers_left"]) == (1, 1)
    assert [shown.host for shown in status.hosts] == ["h"]


def test_a_restart_waits_for_the_first_report_of_a_supervisor(serve, stranger):
    served = serve()
    worker, host = (stranger(served.coordinator.endpoint) for _ in range(2))
    worker.say(introduction(pid=7))
    worker.hear(do.Welcome)
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(served.client.restart, "stranger")
        with pytest.raises(TimeoutError):
            restart.result(0.3)
        host.say(on.HostReported("h", [("stranger", 7, ProcessState.RUNNING)]))
        order = host.hear(do.Restart)
        assert (order.host, order.worker, order.pid) == ("h", "stranger", 7)
        host.say(on.HostReported("h", [("stranger", 7, ProcessState.KILLED)]))
        host.say(introduction(pid=8, incarnation=2))
        shown = {it.worker: it for it in restart.result(TIMEOUT_S).workers}["stranger"]
    assert (shown.pid, shown.supervisor) == (8, "")


# Answers that wait for company


def test_an_acceptance_travels_with_the_result_and_goes_alone_if_there_is_none(
    serve, spec, stranger
):
    served = serve(spec=replace(spec, answer_after_s=0.1))
    peer = stranger(served.coordinator.endpoint)
    peer.say(on.TasksSubmitted("c", 0, "echo", [b"x"]))
    accepted, delivered = peer.hear(), peer.hear()
    assert isinstance(accepted, do.Accept)
    assert delivered.outcomes == [b"x"]
    peer.say(on.TasksSubmitted("c", 1, "nobody does this", [b"y"]))
    assert peer.hear(do.Accept).submission == 1


# Embedded in a program


def test_a_program_embeds_a_coordinator_and_is_its_own_client(serve):
    handlers = Handlers()
    handlers.register("echo")(lambda payload: payload)

    @handlers.register("fail")
    def fail(payload):
        raise ValueError("no")

    coordinator = serve(handlers).coordinator
    task = coordinator.submit_task(b"x", priority=Priority.HIGH)
    other = coordinator.submit_task(b"y", kind="fail", timeout_s=5.0)
    waiting = coordinator.submit_task(b"z", kind="nobody offers this")
    assert coordinator.get_result(task, timeout=TIMEOUT_S) == b"x"
    with pytest.raises(KeyError):
        coordinator.get_result(task)
    with pytest.raises(TaskFailed, match="ValueError: no"):
        coordinator.get_result(other, timeout=TIMEOUT_S)
    with pytest.raises(TimeoutError):
        coordinator.get_result(waiting, timeout=0.01)


def test_the_newest_results_are_kept(serve, monkeypatch):
    monkeypatch.setattr("cluster.shells.coordinator.MAX_KEPT_RESULTS", 2)
    coordinator = serve().coordinator
    tasks = [coordinator.submit_task(b"%d" % n) for n in range(3)]
    with pytest.raises(KeyError):
        coordinator.get_result(tasks[0])
    assert [coordinator.get_result(task, TIMEOUT_S) for task in tasks[1:]] == [b"1", b"2"]


def test_the_port_is_free_after_stop_and_can_be_taken_again():
    coordinator = ClusterCoordinator().start()
    endpoint = coordinator.endpoint
    assert listens(endpoint)
    coordinator.stop()
    coordinator.stop()
    assert not listens(endpoint)
    with ClusterCoordinator(bind=endpoint) as again:
        assert again.endpoint == endpoint
    with pytest.raises(ClusterError, match="has been stopped"):
        coordinator.start()


def test_a_coordinator_serves_in_the_callers_thread_until_another_stops_it():
    coordinator = ClusterCoordinator()
    served = []

    def use():
        with Client(coordinator.endpoint) as client:
            served.append(client.status())
        coordinator.stop()

    thread = threading.Thread(target=use)
    thread.start()
    coordinator.run()
    thread.join()
    assert served[0].policy == "least-loaded"
    assert not listens(coordinator.endpoint)


@pytest.mark.parametrize("start", [True, False])
def test_nothing_is_left_open_after_stop(start):
    def use():
        coordinator = ClusterCoordinator()
        if start:
            coordinator.start()
        coordinator.stop()
        assert not listens(coordinator.endpoint)

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        use()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_taken_port_is_an_error_in_words():
    with ClusterCoordinator() as one, pytest.raises(ClusterError, match="Address already") as taken:
        ClusterCoordinator(bind=one.endpoint)
    assert f"cannot listen at {one.endpoint}" in str(taken.value)


@pytest.mark.parametrize("bind", ["tcp://*:*", "tcp://0.0.0.0:*"])
def test_it_listens_to_other_machines_only_if_told_to(bind):
    with pytest.raises(ClusterError, match="--insecure"):
        ClusterCoordinator(bind=bind)
    with ClusterCoordinator(bind=bind, insecure=True) as coordinator:
        assert listens(coordinator.endpoint)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"policy": "chaos"}, "no policy 'chaos'; there are adaptive"),
        ({"policies": "cluster.core.policy:NOTHING"}, "has no 'NOTHING'"),
        ({"codec": "cluster.novelty:Codec"}, "cluster.novelty"),
    ],
)
def test_a_spec_with_an_unknown_part_is_an_error_in_words(changes, complaint):
    with pytest.raises(ClusterError) as refused:
        ClusterCoordinator(ClusterSpec(name="broken", **changes))
    assert complaint in str(refused.value)


def test_a_coordinator_that_comes_back_is_found_again_by_its_workers(spec, until):
    first = ClusterCoordinator(spec).start()
    worker = Worker(first.endpoint, HANDLERS, name="faithful", spec=spec)
    thread = threading.Thread(target=worker.run)
    thread.start()
    with Client(first.endpoint, spec=spec) as client:
        assert client.submit("echo", b"1").result(TIMEOUT_S) == b"1"
        first.stop()
        with ClusterCoordinator(spec, first.endpoint):
            assert client.submit("echo", b"2").result(TIMEOUT_S) == b"2"
            assert [w.worker for w in client.status().workers] == ["faithful"]
            worker.stop()
            thread.join(TIMEOUT_S)
            assert until(lambda: client.status().counters["workers_left"])


def test_a_signal_stops_a_coordinator_in_the_main_thread():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    coordinator = ClusterCoordinator()
    coordinator.stop_on_signals()

    def interrupt():
        with Client(coordinator.endpoint) as client:
            client.status()
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        coordinator.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    thread.join()
    assert not listens(coordinator.endpoint)


def test_a_coordinator_loads_neither_asyncio_nor_ssl_which_take_memory() -> None:
    code = "import sys, cluster.shells.coordinator; print({'asyncio', 'ssl'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
