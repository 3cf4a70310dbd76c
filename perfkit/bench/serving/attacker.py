"""The attacker as a process of its own: ``python -m perfkit.bench.serving.attacker``.

It reads the requests first, as they are to be sent, then one job after another, from its standard
input, and writes what became of each job to its standard output, all as the load generator does.
It sends at a steady rate, whether or not others are answered, as strangers would.

With ``--sink`` it is the control instead: a server that swallows whatever is sent to it and refuses
it at once, with no work but that of its sockets. In life an attacker's processor and his network
are not the server's; here they are, and what they cost others shows in the control too.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from cluster.local import Process
from cluster.scratch import ScratchFolder
from perfkit.bench.serving.generator import read_message, write_message
from perfkit.bench.workloads.load import ExperimentError

MODULE = "perfkit.bench.serving.attacker"
READY_S = 20.0
ANSWER_S = 60.0
MIB = 1 << 20
#: Requests that are open at once, at most, and connections whose headers never end.
OPEN_MAX, SLOW = 64, 8
#: The sink's answer to everything.
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"


class Job(msgspec.Struct, frozen=True):
    """An attack on a port of this machine: how many requests, and how many of them a second."""

    port: int
    count: int
    rate_per_s: float
    seed: int


class Hostility(msgspec.Struct):
    """What became of hostile requests: how many were sent, their statuses, and a line about each
    that got no clear 4xx. Sending them took `took_s` and `cpu_s` of the attacker's processor.
    """

    sent: int = 0
    statuses: dict[int, int] = {}
    unclear: list[str] = []
    took_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: Hostility) -> None:
        """Count what became of others too."""
        self.sent += other.sent
        for status, count in other.statuses.items():
            self.count(status, count)
        self.unclear += other.unclear
        self.took_s += other.took_s
        self.cpu_s += other.cpu_s

    def count(self, status: int, count: int = 1) -> None:
        """Count answers with a status."""
        self.statuses[status] = self.statuses.get(status, 0) + count


class Attacker:
    """The attacker's process, during a with block; `requests` are what it sends, by their kind."""

    def __init__(self, requests: Mapping[str, bytes]) -> None:
        self._requests = dict(requests)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._process = stack.enter_context(_process("attacker"))
            self._send(self._requests)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, job: Job) -> Hostility:
        """What became of one attack; ExperimentError if the attacker died."""
        self._send(job)
        assert self._process.stdout is not None
        message = read_message(self._process.stdout)
        if message is None:
            code = self._process.wait()
            raise ExperimentError(f"the attacker ended with {code}{self._process.last_words()}")
        return msgspec.msgpack.decode(message, type=Hostility)

    def _send(self, what: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `run` finds that it has died
            write_message(self._process.stdin, msgspec.msgpack.encode(what))


@contextmanager
def sink() -> Iterator[tuple[Process, int]]:
    """The sink's process and its port."""
    with _process("sink", "--sink") as process:
        yield process, int(process.announcement(time.monotonic() + READY_S)["port"])


@contextmanager
def _process(name: str, *options: str) -> Iterator[Process]:
    with ScratchFolder(f"{name}-") as folder:
        process = Process(name, MODULE, options, Path(folder))
        try:
            yield process
        finally:
            process.kill()


async def attack(requests: Mapping[str, bytes], job: Job) -> Hostility:
    """Send requests of all kinds in random order, and SLOW that never end their headers."""
    found, kinds = Hostility(), list(requests.items())
    order = random.Random(job.seed).choices(kinds, k=max(0, job.count - SLOW))
    began_s, cpu_s = time.monotonic(), time.process_time()
    is_free = asyncio.Semaphore(OPEN_MAX)

    async def one(send: Awaitable[tuple[int, bytes]], name: str) -> None:
        found.sent += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                status, body = await send
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            found.unclear.append(f"{name}: {type(error).__name__} {error}")
        else:
            found.count(status)
            if not (400 <= status < 500 and body.strip()):
                found.unclear.append(f"{name}: status {status}, {body[:120]!r}")
        finally:
            is_free.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(SLOW, job.count)):
            await is_free.acquire()
            group.create_task(one(_never_end(job.port), "headers that never end"))
        for number, (name, request) in enumerate(order):
            await asyncio.sleep(began_s + number / job.rate_per_s - time.monotonic())
            await is_free.acquire()
            group.create_task(one(_exchange(job.port, request), name))
        found.took_s = time.monotonic() - began_s
    found.cpu_s = time.process_time() - cpu_s
    return found


async def _exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and the body that answer one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
    try:
        # The server may answer before it has read everything, and the rest is sent all the same.
        writer.write(request)
        answer = await _read(reader)
        with suppress(OSError):
            await writer.drain()
        return answer
    finally:
        writer.close()


async def _never_end(port: int) -> tuple[int, bytes]:
    """What the server says to headers of which a line comes each second, without end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(_read(reader))
    try:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
        while not answer.done():
            writer.write(b"X-Slow: yes\r\n")
            await asyncio.wait([answer], timeout=1.0)
        return answer.result()
    finally:
        answer.cancel()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line for line in lines if line.lower().startswith("content-length:")]
    length = int(lengths[0].split(":")[1]) if lengths else None
    body = await (reader.read(MIB) if length is None else reader.readexactly(length))
    return int(lines[0].split()[1]), body


class _Sink(asyncio.BufferedProtocol):
    """A connection of the sink."""

    _waste = bytearray(256 << 10)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._is_answered = False

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._waste

    def buffer_updated(self, nbytes: int) -> None:
        if not self._is_answered:
            self._is_answered = True
            self._transport.write(REFUSAL)  # type: ignore[attr-defined]


async def _swallow() -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"pid": os.getpid(), "port": port}), flush=True)
    await server.serve_forever()


def main() -> None:
    """Attack until the standard input ends, or swallow until killed."""
    import uvloop

    if "--sink" in sys.argv[1:]:
        uvloop.run(_swallow())
        return
    message = read_message(sys.stdin.buffer)
    requests = msgspec.msgpack.decode(message or b"\x80", type=dict[str, bytes])
    while (message := read_message(sys.stdin.buffer)) is not None:
        found = uvloop.run(attack(requests, msgspec.msgpack.decode(message, type=Job)))
        write_message(sys.stdout.buffer, msgspec.msgpack.encode(found))


if __name__ == "__main__":
    main()
