"""The load generator as a process: ``python -m perfkit.bench.serving.generator``.

It reads a job from its standard input, puts the load on, and writes its report to its standard
output, until its input ends. Each message has its length in front, four bytes, little-endian. It
speaks HTTP/1.1 on plain sockets (uvloop, httptools), because a client library would cost more than
the server. It keeps each different answer once and judges them after the clock has stopped.
"""

from __future__ import annotations

import asyncio
import gc
import random
import struct
import sys
import time
from collections import Counter, deque
from typing import IO, Any

import msgspec

from perfkit.bench.serving.exchange import Job, Report, mistake_of

LENGTH = struct.Struct("<I")
NS_PER_MS = 1e6
#: An open loop opens more connections than its job names, rather than keep a request waiting.
CONNECTIONS_MAX = 256


def read_message(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end."""
    head = _exactly(pipe, LENGTH.size)
    return None if head is None else _exactly(pipe, *LENGTH.unpack(head))


def _exactly(pipe: IO[bytes], length: int) -> bytes | None:
    found = bytearray()
    while len(found) < length:
        part = pipe.read(length - len(found))  # an unbuffered pipe gives what it has
        if not part:
            return None
        found += part
    return bytes(found)


def write_message(pipe: IO[bytes], body: bytes) -> None:
    """Send one message."""
    pipe.write(LENGTH.pack(len(body)) + body)
    pipe.flush()


class Connection(asyncio.Protocol):
    """A connection with one request in flight."""

    def __init__(self, load: Load) -> None:
        import httptools

        self._load = load
        self._parser_of = httptools.HttpResponseParser
        self._transport: Any = None
        self._parser: Any = None
        self._body = bytearray()
        self._number: int | None = None
        self._began_ns = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = self._parser_of(self)

    def ask(self, number: int, began_ns: int) -> None:
        """Send request `number`, whose latency counts from `began_ns`."""
        self._number, self._began_ns = number, began_ns
        self._body.clear()
        self._transport.write(self._load.requests[number])

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except Exception as error:  # httptools raises its own kinds for a broken answer
            self._load.end(self, f"not HTTP: {error}")
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        number, self._number = self._number, None
        if number is None:
            return
        status, keeps = self._parser.get_status_code(), self._parser.should_keep_alive()
        body = bytes(self._body)
        if not keeps:
            self._transport.close()
        self._load.answered(self, number, self._began_ns, status, body, keeps)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._number is not None:
            self._number = None
            self._load.end(self, f"the server closed the connection{f': {error}' if error else ''}")

    def close(self) -> None:
        """Give up what is in flight."""
        self._number = None
        if self._transport is not None:
            self._transport.abort()


class Load:
    """One job while it runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.requests = job.requests
        self._loop = asyncio.get_running_loop()
        self._rng = random.Random(job.seed)
        self._next = self._rng.randrange(len(job.requests))
        #: They take turns: a server closes one that has long been idle.
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[int, int]] = deque()
        self._connections: list[Connection] = []
        self._in_flight = 0
        self._due = False
        self._began_ns = self._last_ns = 0
        self._latencies_ns: list[int] = []
        self._statuses: Counter[int] = Counter()
        self._answers: Counter[tuple[int, int, bytes]] = Counter()
        self._broken = 0
        self._mistake = ""
        self._done = self._loop.create_future()

    async def run(self) -> Report:
        """Put the load on, wait for the answers that are open, and judge them."""
        job = self.job
        try:
            for _ in range(job.connections):
                self._idle.append(await self._connect())
        except OSError as error:
            for connection in self._connections:
                connection.close()
            reason = f"nothing listens at 127.0.0.1:{job.port}: {error}"
            return Report(0, 0.0, [], {}, 0, job.connections, reason, 0.0)
        cpu_s, self._began_ns = time.process_time(), time.perf_counter_ns()
        began_ns = self._began_ns
        self._until_ns = began_ns + int(job.duration_s * 1e9)
        if job.rate_per_s is None:
            for _ in range(job.connections):
                self._ask(self._idle.pop())
        else:
            self._due = True  # until the last request has fallen due
            self._schedule(began_ns, job.rate_per_s)
        limit_s = job.duration_s + job.timeout_s
        await asyncio.wait([self._done], timeout=limit_s)
        cpu_share = (time.process_time() - cpu_s) / ((time.perf_counter_ns() - began_ns) / 1e9)
        if not self._done.done():
            self._broken += self._in_flight + len(self._waiting)
            self._note(f"no answer within {job.timeout_s:g} s")
        for connection in self._connections:
            connection.close()
        return self._report(cpu_share)

    async def _connect(self) -> Connection:
        _, connection = await self._loop.create_connection(
            lambda: Connection(self), "127.0.0.1", self.job.port
        )
        self._connections.append(connection)
        return connection

    def _schedule(self, began_ns: int, rate_per_s: float) -> None:
        """Let requests fall due one after another, with exponential gaps."""
        at_s = self._rng.expovariate(rate_per_s)

        def fall_due() -> None:
            nonlocal at_s
            now_ns = time.perf_counter_ns()
            while (due_ns := began_ns + int(at_s * 1e9)) <= now_ns and due_ns < self._until_ns:
                self._start(due_ns)
                at_s += self._rng.expovariate(rate_per_s)
            if due_ns < self._until_ns:
                self._loop.call_later((due_ns - time.perf_counter_ns()) / 1e9, fall_due)
            else:
                self._due = False
                self._finish()

        fall_due()

    def _start(self, due_ns: int) -> None:
        number = self._number()
        while self._idle:
            connection = self._idle.popleft()
            if not connection.lost:
                self._in_flight += 1
                connection.ask(number, due_ns)
                return
        self._waiting.append((number, due_ns))
        if sum(not one.lost for one in self._connections) < CONNECTIONS_MAX:
            self._loop.create_task(self._one_more())

    async def _one_more(self) -> None:
        try:
            self._free(await self._connect())
        except OSError as error:
            self._note(str(error))

    def _free(self, connection: Connection) -> None:
        """Give a connection the request that has waited longest."""
        if self._waiting:
            self._in_flight += 1
            connection.ask(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _ask(self, connection: Connection) -> None:
        self._in_flight += 1
        connection.ask(self._number(), time.perf_counter_ns())

    def _number(self) -> int:
        self._next = number = (self._next + 1) % len(self.requests)
        return number

    def answered(
        self,
        connection: Connection,
        number: int,
        began_ns: int,
        status: int,
        body: bytes,
        keeps: bool,
    ) -> None:
        """Note an answer, and ask again."""
        now_ns = time.perf_counter_ns()
        self._in_flight -= 1
        self._statuses[status] += 1
        self._answers[number, status, body] += 1
        self._latencies_ns.append(now_ns - began_ns)
        self._last_ns = now_ns
        if not keeps:
            self._loop.create_task(self._replace())
        elif self.job.rate_per_s is not None:
            self._free(connection)
        elif now_ns < self._until_ns:
            self._ask(connection)
        self._finish()

    async def _replace(self) -> None:
        """A new connection for one that the server does not keep open."""
        try:
            connection = await self._connect()
        except OSError as error:
            self.end(None, str(error))
            return
        if self.job.rate_per_s is not None:
            self._free(connection)
        elif time.perf_counter_ns() < self._until_ns:
            self._ask(connection)

    def end(self, connection: Connection | None, reason: str) -> None:
        """A request got no answer; a dead server must not be asked a million times."""
        self._broken += 1
        self._in_flight -= connection is not None
        self._note(reason)
        if self._broken >= max(8, self.job.connections):
            self._waiting.clear()
            self._until_ns, self._due = 0, False
        elif connection is not None:
            self._loop.create_task(self._replace())
        self._finish()

    def _note(self, reason: str) -> None:
        self._mistake = self._mistake or reason

    def _finish(self) -> None:
        is_open = self.job.rate_per_s is not None
        over = not self._due if is_open else time.perf_counter_ns() >= self._until_ns
        if over and not (self._in_flight or self._waiting or self._done.done()):
            self._done.set_result(None)

    def _report(self, cpu_share: float) -> Report:
        wrong, job = 0, self.job
        for (number, status, body), count in self._answers.items():
            if status != 200:
                self._note(f"status {status}: {body[:200].decode('utf-8', 'replace')}")
                continue
            mistake = mistake_of(body, job.expected[number], job.compared, job.cosine_min)
            if mistake is not None:
                wrong += count
                self._note(f"question {number}: {mistake}")
        return Report(
            answers=sum(self._answers.values()),
            took_s=max(0, self._last_ns - self._began_ns) / 1e9,
            latencies_ms=[took_ns / NS_PER_MS for took_ns in self._latencies_ns],
            statuses=dict(self._statuses),
            wrong=wrong,
            broken=self._broken,
            mistake=self._mistake,
            cpu_share=cpu_share,
        )


def main() -> None:
    """Run jobs until the standard input ends."""
    import uvloop

    gc.disable()  # a pause would count as the server's
    while (message := read_message(sys.stdin.buffer)) is not None:
        job = msgspec.msgpack.decode(message, type=Job)

        async def run(job: Job = job) -> Report:
            return await Load(job).run()

        report = uvloop.run(run())
        write_message(sys.stdout.buffer, msgspec.msgpack.encode(report))
        gc.collect()


if __name__ == "__main__":
    main()
