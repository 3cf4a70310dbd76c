"""Who is connected to a coordinator, and whom it cuts off.

ZeroMQ drops no peer on request, and holds a message that is not complete yet out of sight and
without a bound. But its monitor tells the descriptor of each connection, and each frame tells the
descriptor that it came from. Shutting that down ends the connection.

Incomplete messages are judged by what the kernel has received on a connection since its last
complete message (Linux, TCP), and by this process's memory: an empty frame of 2 bytes takes 64. An
ipc socket tells no such numbers; its folder lets in the same user only.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections import Counter
from contextlib import suppress
from struct import Struct

import zmq

from cluster.spec import ClusterSpec
from cluster.vocabulary.limits import Limits

WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPT_FAILED
#: A monitor's first frame: the event and its value, zmq_socket_monitor(3). pyzmq's own reader
#: imports asyncio and ssl, which take 5 MB.
MONITOR_EVENT = Struct("=Hi")
#: descriptors kept for newcomers that are told why they can't stay, and for everything else
RESERVE = 96
#: descriptors of a client (its own and one for questions) and of a worker with one slot
PER_CLIENT = PER_WORKER = 2
SWEEP_S = 0.05
#: between sweeps while memory grows: what arrives meanwhile adds to the bound
HURRIED_SWEEP_S = 0.02
#: how many times longer a coordinator that is behind waits for a hello
BEHIND_PATIENCE = 10
SUSPICIOUS_BYTES = 1 << 20
CALM_BYTES = 32 << 20
NO_LINGER = struct.pack("ii", 1, 0)
#: where struct tcp_info (linux/tcp.h) holds tcpi_bytes_received
TCP_INFO_BYTES, RECEIVED_AT = 136, 128


class Visitor:
    """One connection; ``route`` is None until it has said something."""

    __slots__ = (
        "base_bytes",
        "fd",
        "inode",
        "is_refused",
        "messages",
        "messages_seen",
        "routes",
        "since",
    )

    def __init__(self, fd: int, inode: int, now: float) -> None:
        self.fd, self.inode, self.since = fd, inode, now
        self.routes: list[bytes] = []
        self.messages = self.messages_seen = self.base_bytes = 0
        self.is_refused = False


class Gate:
    """The connections of a bound ROUTER. ``limits`` bounds incomplete messages, and descriptors
    bound the connections.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes], spec: ClusterSpec
    ) -> None:
        raise_descriptor_limit(spec.limits)
        self.visitors: dict[bytes, Visitor] = {}
        self.cuts: Counter[str] = Counter()
        self.most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - count_descriptors() - RESERVE
        #: whether a connection could not be accepted for want of descriptors
        self.is_full = False
        self._open: dict[int, Visitor] = {}
        self._hello_s = spec.sockets.hello_s
        #: when messages last waited unread: a hello may have been among them
        self._behind_at = 0.0
        #: how long to wait before the next sweep
        self.sweep_s = SWEEP_S
        self._message_bytes = spec.limits.message_bytes
        self._swept_at = 0.0
        self._calm_bytes = resident_bytes()
        self._calm_passed = 0
        address = f"inproc://gate-{id(self)}"
        self._router = router
        router.monitor(address, WATCHED)
        self.events = context.socket(zmq.PAIR)
        self.events.set(zmq.RCVHWM, 0)  # a full queue would block ZeroMQ's own thread
        self.events.set(zmq.LINGER, 0)
        self.events.connect(address)

    def fileno(self) -> int:
        """The descriptor that tells of news."""
        return int(self.events.getsockopt(zmq.FD))

    def close(self) -> None:
        """Stop watching."""
        self._router.disable_monitor()
        self.events.close()

    def update(self, now: float) -> None:
        """Take in who has come and gone."""
        with suppress(zmq.Again):
            while True:
                told, _ = self.events.recv_multipart(zmq.DONTWAIT)
                event, fd = MONITOR_EVENT.unpack(told)
                if event == zmq.EVENT_ACCEPT_FAILED:
                    self.is_full = True
                    continue
                self._forget(fd)
                if event == zmq.EVENT_ACCEPTED:
                    with suppress(OSError):  # gone already
                        visitor = self._open[fd] = Visitor(fd, os.fstat(fd).st_ino, now)
                        visitor.is_refused = len(self._open) > self.most

    def meet(self, route: bytes, fd: int, now: float) -> Visitor | None:
        """A connection that says something for the first time; None if it is gone already."""
        if fd not in self._open:
            self.update(now)
        visitor = self._open.get(fd)
        if visitor is not None:
            visitor.routes.append(route)
            self.visitors[route] = visitor
        return visitor

    def is_due(self, now: float) -> bool:
        """Whether it is time to sweep."""
        return bool(self._open) and now - self._swept_at >= self.sweep_s

    def sweep(self, now: float, passed_bytes: int, *, behind: bool) -> None:
        """Cut who is silent, refused, or holds too much memory by an incomplete message;
        ``passed_bytes`` have been read and sent, which may wait for a slow reader. ``behind``:
        messages wait unread.
        """
        self.update(now)
        self._swept_at = now
        if behind:
            self._behind_at = now
        hello_s = self._hello_s
        if now - self._behind_at <= hello_s:
            hello_s *= BEHIND_PATIENCE
        for visitor in list(self._open.values()):
            if visitor.is_refused and (visitor.routes or len(self._open) > self.most + RESERVE / 2):
                self.cut(visitor.fd, "refused")
            elif not visitor.routes and now - visitor.since > hello_s:
                self.cut(visitor.fd, "silent")
        self._judge_incomplete(passed_bytes)

    def cut(self, fd: int, cause: str) -> None:
        """End a connection, if the descriptor is still that connection's."""
        visitor = self._open.get(fd)
        if visitor is None:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            if os.fstat(connection.fileno()).st_ino == visitor.inode:
                self.cuts[cause] += 1
                # The other side hears of it at once, however much of its data is unread.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, fd: int) -> None:
        visitor = self._open.pop(fd, None)
        for route in visitor.routes if visitor is not None else ():
            self.visitors.pop(route, None)

    def _judge_incomplete(self, passed_bytes: int) -> None:
        resident = resident_bytes()
        self._calm_bytes = min(self._calm_bytes, resident)
        self.sweep_s = HURRIED_SWEEP_S
        if resident - self._calm_bytes < CALM_BYTES:
            self._calm_passed, self.sweep_s = passed_bytes, SWEEP_S
            return
        held = {visitor: incomplete_bytes(visitor) for visitor in self._open.values()}
        suspects = [visitor for visitor, size in held.items() if size >= SUSPICIOUS_BYTES]
        if not suspects:
            self._calm_bytes, self._calm_passed, self.sweep_s = resident, passed_bytes, SWEEP_S
            return
        explained = sum(held.values()) + 2 * (passed_bytes - self._calm_passed)
        if resident - self._calm_bytes - explained > self._message_bytes:
            self.cut(suspects[0].fd, "incomplete")
        for visitor in suspects:
            if held[visitor] > 2 * self._message_bytes:
                self.cut(visitor.fd, "incomplete")


def incomplete_bytes(visitor: Visitor) -> int:
    """What a connection has received since its last complete message was read, about; 0 if the
    system doesn't tell.
    """
    try:
        with socket.socket(fileno=os.dup(visitor.fd)) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        (received,) = struct.unpack_from("=Q", info, RECEIVED_AT)
    except (OSError, AttributeError, struct.error):
        return 0
    if visitor.messages != visitor.messages_seen:
        visitor.messages_seen, visitor.base_bytes = visitor.messages, received
    return int(received) - visitor.base_bytes


def resident_bytes() -> int:
    """The memory of this process; 0 if the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def count_descriptors() -> int:
    """The descriptors that this process has open, about."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 64


def raise_descriptor_limit(limits: Limits) -> None:
    """Allow this process as many descriptors as its clients and workers may need, or as many as
    the system lets it have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.clients * PER_CLIENT + limits.workers * PER_WORKER + count_descriptors()
    wanted += 2 * RESERVE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
