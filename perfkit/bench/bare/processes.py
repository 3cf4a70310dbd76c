"""The processes of the bare brokers: ``python -m perfkit.bench.bare.processes ROLE``.

Each is a loop as short as its job allows. It waits in a poller and then reads everything that has
arrived, as a broker with other duties must. It ends with its standard input, like the cluster's
processes, and without cleaning up. Garbage collection is off, because nothing here makes a cycle.
"""

from __future__ import annotations

import gc
import os
import time
import zlib
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import zmq

from cluster.process import announce
from cluster.protocol.codec import Codec
from cluster.spec import load_part
from cluster.supervision.ending import stop_with_parent
from cluster.transport.channel import MORE, NOW
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on

Socket = zmq.Socket[bytes]
# Payloads are inline, because frames and sends cost more than bytes.
#: Tasks in a frame, from a client to the broker and from the broker to a worker.
TASKS_PER_FRAME = 100

#: The client's own number of a task, its priority, its kind and its payload.
Task: TypeAlias = tuple[int, int, str, bytes]
#: The broker's number of a task, its kind and its payload.
Job: TypeAlias = tuple[int, str, bytes]
#: A task's number (the client's or the broker's) and its result.
Outcome: TypeAlias = tuple[int, bytes]

pack = msgspec.msgpack.Encoder().encode
unpack_tasks = msgspec.msgpack.Decoder(list[Task]).decode
unpack_jobs = msgspec.msgpack.Decoder(list[Job]).decode
unpack_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode

PRIORITIES = 4
#: Messages that a busy process reads before it waits again.
DRAIN = 64
ANYWHERE = "tcp://127.0.0.1:*"
#: A worker sends this once for each message that it may hold: it is free, without a result.
NOTHING = b""


def open_socket(kind: int) -> Socket:
    """A socket without bounds: the client keeps a window."""
    made: Socket = zmq.Context.instance().socket(kind)
    made.set_hwm(0)
    made.linger = 0
    return made


def listen(kind: int) -> Socket:
    """A socket at a free port of this machine, announced to the parent process."""
    made = open_socket(kind)
    made.bind(ANYWHERE)
    announce(endpoint=made.get_string(zmq.LAST_ENDPOINT).rstrip("\0"))
    return made


def waiting_for(socket: Socket) -> Callable[[], object]:
    """A function that returns when a socket can be read; making its poller takes time."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    return poller.poll


def packed_broker(options: Namespace) -> None:
    """Enter every task in a table and a priority bucket, hand batches to the worker that was free
    first, and forward packed results to their clients.
    """
    router = listen(zmq.ROUTER)
    receive, send, wait = router.recv_multipart, router.send, waiting_for(router)
    workers: set[bytes] = set()
    free: deque[bytes] = deque()
    table: dict[int, tuple[bytes, int]] = {}
    buckets: list[deque[Job]] = [deque() for _ in range(PRIORITIES)]
    number = 0
    while True:
        wait()
        results: dict[bytes, list[Outcome]] = {}
        try:
            for _ in range(DRAIN):
                sender, frame = receive(NOW)
                if frame == NOTHING:
                    workers.add(sender)
                    free.append(sender)
                elif sender in workers:
                    free.append(sender)
                    for job, result in unpack_outcomes(frame):
                        client, task = table.pop(job)
                        results.setdefault(client, []).append((task, result))
                else:
                    for task, priority, kind, payload in unpack_tasks(frame):
                        table[number] = (sender, task)
                        buckets[priority].append((number, kind, payload))
                        number += 1
                # Inside the loop: a free worker must not wait for the rest of the messages.
                while free and any(buckets):
                    send(free.popleft(), MORE)
                    send(pack(next_jobs(buckets)), NOW)
        except zmq.Again:
            pass
        for client, outcomes in results.items():
            send(client, MORE)
            send(pack(outcomes), NOW)


def next_jobs(buckets: Sequence[deque[Job]]) -> list[Job]:
    """The jobs of the next frame, the most urgent first."""
    jobs: list[Job] = []
    for bucket in buckets:
        take = bucket.popleft
        jobs += [take() for _ in range(min(TASKS_PER_FRAME - len(jobs), len(bucket)))]
        if len(jobs) == TASKS_PER_FRAME:
            break
    return jobs


def packed_worker(options: Namespace) -> None:
    """Echo every payload of a batch."""
    dealer = join(options)
    receive, send, wait = dealer.recv, dealer.send, waiting_for(dealer)
    while True:
        wait()
        send(pack([(job, payload) for job, _, payload in unpack_jobs(receive(NOW))]), NOW)


def forwarder(options: Namespace) -> None:
    """Forward each message to the worker that was free first, and each result to its client.

    A client's message is [client, payload], a worker's [worker, client, payload]. ``uncopied``
    payloads are forwarded as the library holds them, which pays for large ones. It reads at most
    ``drain`` messages per wake-up: looking for a second one that never comes costs time.
    """
    copy, drain = not options.uncopied, options.drain
    router = listen(zmq.ROUTER)
    receive, send, wait = router.recv_multipart, router.send, waiting_for(router)
    free: deque[bytes] = deque()
    waiting: deque[tuple[bytes, bytes]] = deque()
    while True:
        wait()
        try:
            for _ in range(drain):
                frames: list[Any] = receive(NOW, copy=copy)
                payload = frames[-1]
                sender, client = frames[0], frames[-2]
                if not copy:
                    sender, client = bytes(sender), bytes(client)
                if len(frames) == 2:
                    waiting.append((client, payload))
                else:
                    free.append(sender)
                    if client != NOTHING:
                        send(client, MORE)
                        send(payload, NOW, copy=copy)
                if free and waiting:
                    client, payload = waiting.popleft()
                    send(free.popleft(), MORE)
                    send(client, MORE)
                    send(payload, NOW, copy=copy)
        except zmq.Again:
            pass


def echo_worker(options: Namespace) -> None:
    """Echo each payload."""
    copy, drain = not options.uncopied, options.drain
    dealer = join(options, NOTHING)
    receive, send, wait = dealer.recv_multipart, dealer.send, waiting_for(dealer)
    while True:
        wait()
        try:
            for _ in range(drain):
                client, payload = receive(NOW, copy=copy)
                send(client, MORE)
                send(payload, NOW, copy=copy)
        except zmq.Again:
            pass


def message_broker(options: Namespace) -> None:
    """Pass each task to the one worker and its result to its client, in the cluster's own messages.

    Everything is decoded and encoded as the coordinator's is, and nothing is scheduled.
    """
    codec: Codec = load_part(options.codec)()
    router = listen(zmq.ROUTER)
    receive, wait = router.recv_multipart, waiting_for(router)
    early: deque[list[bytes]] = deque()
    while (message := receive())[-1] != NOTHING:
        early.append(message)
    worker = message[0]
    tasks: dict[int, tuple[bytes, str, int]] = {}
    while True:
        if not early:
            wait()
        sender, *frames = early.popleft() if early else receive(NOW)
        for event in codec.events(frames):
            if isinstance(event, on.TasksSubmitted):
                lease = len(tasks) + 1
                tasks[lease] = sender, event.client, event.submission
                assign = do.Assign("worker", 1, lease, event.kind, 0, event.payloads)
                send_all(router, codec.encode([assign]), worker)
            elif isinstance(event, on.TasksFinished):
                route, client, submission = tasks.pop(event.lease)
                accept = do.Accept(client, submission, event.lease)
                deliver = do.Deliver(client, submission, event.start, event.outcomes)
                send_all(router, codec.encode([accept, deliver]), route)


def message_worker(options: Namespace) -> None:
    """Echo each task, in the cluster's own messages."""
    codec: Codec = load_part(options.codec)()
    dealer = join(options)
    receive, wait = dealer.recv_multipart, waiting_for(dealer)
    while True:
        wait()
        for action in codec.actions(receive(NOW)):
            if isinstance(action, do.Assign):
                now, outcomes = time.monotonic(), [*map(bytes, action.payloads)]
                place = action.epoch, action.lease, action.start
                done = on.TasksFinished("worker", *place, outcomes, [], now, now)
                send_all(dealer, codec.encode([done]))


def send_all(socket: Socket, messages: Sequence[Sequence[bytes]], *route: bytes) -> None:
    """Send multipart messages, each behind a route."""
    for frames in messages:
        for frame in (*route, *frames[:-1]):
            socket.send(frame, MORE)
        socket.send(frames[-1], NOW)


def join(options: Namespace, *address: bytes) -> Socket:
    """Connect to a broker and grant it this many messages."""
    dealer = open_socket(zmq.DEALER)
    dealer.connect(options.endpoint)
    for _ in range(options.credit):
        dealer.send_multipart([*address, NOTHING])
    announce(endpoint=options.endpoint)
    return dealer


def sink(options: Namespace) -> None:
    """Receive the announced number of messages, report the last one, then send their checksums."""
    pair = listen(zmq.PAIR)
    while True:
        count = int(pair.recv())
        taken = [pair.recv(copy=False) for _ in range(count)]
        pair.send(NOTHING)
        pair.send(msgspec.msgpack.encode([zlib.crc32(frame.buffer) for frame in taken]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one role until standard input ends."""
    parser = ArgumentParser(prog="python -m perfkit.bench.bare.processes", description=__doc__)
    roles = {
        "packed-broker": packed_broker,
        "packed-worker": packed_worker,
        "forwarder": forwarder,
        "echo-worker": echo_worker,
        "message-broker": message_broker,
        "message-worker": message_worker,
        "sink": sink,
    }
    parser.add_argument("role", choices=roles)
    parser.add_argument("--endpoint", default="", help="where a worker's broker listens")
    parser.add_argument("--credit", type=int, default=1, help="messages a worker may hold")
    parser.add_argument("--drain", type=int, default=DRAIN, help="messages read per wake-up")
    parser.add_argument("--codec", help="the part that encodes the cluster's messages")
    parser.add_argument("--uncopied", action="store_true", help="do not copy payloads")
    args = parser.parse_args(arguments)
    stop_with_parent(lambda: os._exit(0))
    gc.disable()
    roles[args.role](args)


if __name__ == "__main__":
    main()
