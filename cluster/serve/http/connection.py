"""A connection of uvicorn's that slow, huge and contradictory requests can't hold or confuse.

uvicorn's own has no bound on headers and no deadline before a request is complete. This adds both,
a cap on connections, on tiny chunks and on pipelined requests, and a hook for a client that leaves.
Requests that could be read in two ways (both Content-Length and Transfer-Encoding, two lengths, no
or two hosts) are refused: llhttp does most of that, see RFC 9112, sections 3.2 and 6.3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from math import inf
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cluster.serve.http.bodies import CONNECTION
from cluster.serve.http.cycle import Cycle
from cluster.serve.http.lingering import LingeringTransport
from cluster.vocabulary.printable import count_of

LOGGER = logging.getLogger(__name__)
#: uvicorn warns of each request that it can't parse, and a stranger could fill the disk with them
LOGGER.setLevel(logging.ERROR)
HEADER_BYTES_MAX = 64 << 10
#: RFC 9112, section 3, recommends at least 8,000
TARGET_BYTES_MAX = 8 << 10
HEADERS_MAX = 128
#: requests that may wait on one connection for the answer to the one before
PIPELINED_MAX = 32
#: Chunks may be tiny, but not all of them: the first number may, and one more for each CHUNK_BYTES.
CHUNKS_MAX, CHUNK_BYTES = 1_024, 256
#: what may come beside the body after the first read: headers, sizes of chunks, trailers
OVERHEAD_BYTES_MAX = 2 * HEADER_BYTES_MAX
ASGI = {"version": "3.0", "spec_version": "2.3"}


@lru_cache(maxsize=64)
def target(url: bytes) -> dict[str, Any]:
    """What a scope tells of a request's target; httptools' error for one that is none."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "path": unquote(path) if "%" in path else path,
        "raw_path": parsed.path,
        "query_string": parsed.query or b"",
    }


class Connection(HttpToolsProtocol):
    """One client's connection. The bounds are those of all connections of a process."""

    header_s: ClassVar[float] = 10.0
    body_s: ClassVar[float] = 60.0
    connections_max: ClassVar[int] = 1_024

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: when what is awaited must be there, on the loop's clock; None while nothing is
        self.due_s: float | None = None
        #: when to close it if nothing is asked, on the same clock
        self._idle_until_s = inf
        #: called once if the client leaves
        self.on_lost: Callable[[], None] | None = None
        self._refusal: tuple[int, str] | None = None
        self.logger = LOGGER
        self._header_bytes = 0
        self._overhead_bytes = 0
        self._chunks = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 at once if there are too many."""
        self._lingering = LingeringTransport(transport, self.loop)
        super().connection_made(self._lingering)  # type: ignore[arg-type]
        self.due_s = self.loop.time() + self.header_s
        if len(self.connections) > self.connections_max:
            self.refuse(
                503, f"the server has {count_of(self.connections_max, 'connection')} open already"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits that the client has left."""
        self.due_s = None
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        # Both refer to this connection: thousands of such circles would keep everybody waiting
        # when they are collected.
        self.cycle = None

    def data_received(self, data: bytes) -> None:
        """Parse what has come; the first byte of a request starts its deadline."""
        if self.transport.is_closing():
            return
        if self.due_s is None and not self._is_open():
            self.due_s = self.loop.time() + self.header_s
        was_receiving = self._lingering.is_receiving
        self._parse(data)
        # The parser tells of a header, or of what follows a chunk's size, when it has all of it.
        if was_receiving and self._lingering.is_receiving:
            self._overhead_bytes += len(data)
            if self._overhead_bytes - self._body_bytes > OVERHEAD_BYTES_MAX + self._body_bytes // 8:
                self.refuse(431, f"over {OVERHEAD_BYTES_MAX >> 10} KiB came beside the body")

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._answer_refusal()
        except httptools.HttpParserUpgrade as offer:
            # The client offers another protocol, as Java's does with each request: HTTP/1.1 goes
            # on (RFC 9110, 7.8). llhttp takes the body for the other protocol's, so the request is
            # parsed again without the offer.
            kept = [b"%s: %s\r\n" % it for it in self.headers if it[0] != b"upgrade"]
            line = b"%s %s HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parse(b"".join([line, *kept, b"\r\n", data[offer.args[0] :]]))

    def eof_received(self) -> None:
        """The client sends no more: within a request that is a mistake, and it may still read."""
        if self._lingering.is_receiving:
            self.refuse(400, "the connection was closed within the request")

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.due_s = self.loop.time() + self.header_s
        self._header_bytes = self._overhead_bytes = self._chunks = self._body_bytes = 0
        self._lingering.is_receiving = True

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if len(self.url) + len(url) > TARGET_BYTES_MAX:
            self._fail(414, f"the request's target has over {TARGET_BYTES_MAX >> 10} KiB")
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX:
            self._fail(431, f"the headers have over {HEADER_BYTES_MAX >> 10} KiB")
        if len(self.headers) >= HEADERS_MAX:
            self._fail(431, f"there are over {HEADERS_MAX} headers")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """All headers are there: check what llhttp lets pass, then start the request."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._fail(405, "CONNECT is for proxies, and this server is none")
            return
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._fail(505, f"this server speaks HTTP/1.1 and 1.0, not {version}")
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and version == "1.1"):
            self._fail(400, "a request has one Host header" + (", not several" if hosts else ""))
        if len(self.pipeline) >= PIPELINED_MAX:
            self._fail(400, f"over {PIPELINED_MAX} requests wait on this connection")
        self.due_s = self.loop.time() + self.body_s
        self._start(version)

    def _start(self, version: str) -> None:
        """Start a request as uvicorn does, with a `Cycle`, or let it wait for those before it."""
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
            "extensions": {CONNECTION: self},
            **target(self.url),
        }
        waits = self._is_open()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        self.cycle: Any = Cycle(self, scope, keep_alive)
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > CHUNKS_MAX + self._body_bytes // CHUNK_BYTES:
            self._fail(413, f"the body comes in over {CHUNKS_MAX} tiny chunks: send larger ones")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.tell()

    def on_message_complete(self) -> None:
        """The request is complete, so nothing is awaited of the client."""
        if self.parser.should_upgrade():
            return
        self.due_s = None
        self._lingering.is_receiving = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.tell()

    def on_response_complete(self) -> None:
        """An answer is complete: go on with a request that waits, or wait for one. uvicorn sets a
        timer for each answer, which `check_due` does without.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_until_s = self.loop.time() + self.timeout_keep_alive

    def pause_writing(self) -> None:
        """The client must read before more can be sent."""
        self.due_s = self.loop.time() + self.body_s
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self.due_s = None
        super().resume_writing()

    def _answer_refusal(self) -> None:
        """Answer what can't be parsed, or what one of the methods above has refused."""
        status, text = self._refusal or (400, "this can't be read as a request of HTTP/1.1")
        self.refuse(status, text)

    def refuse(self, status: int, text: str) -> None:
        """Answer with an error, unless an answer is on its way, and close the connection."""
        self.due_s = None
        if self.transport.is_closing():
            return
        is_open, cycle = self._is_open(), self.cycle
        if not is_open or not cycle.response_started:
            body = msgspec.json.encode({"error": text})
            lines = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                "connection: close",
                *(["retry-after: 1"] if status == 503 else []),
            )
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if is_open:
            cycle.tell()
        if self.on_lost is not None:
            self.on_lost()
        self.transport.close()

    def check_due(self, now_s: float) -> None:
        """End the connection if the client has taken too long."""
        if self.due_s is None:
            if now_s >= self._idle_until_s and not self._is_open():
                self.transport.close()
            return
        if now_s < self.due_s:
            return
        if self.flow.write_paused:
            self.due_s = None
            self.transport.abort()
            return
        is_body = self._is_open()
        what, limit_s = ("body", self.body_s) if is_body else ("headers", self.header_s)
        self.refuse(408, f"the request's {what} did not come within {limit_s:g} s")

    def _is_open(self) -> bool:
        """Whether a request is not answered yet."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _fail(self, status: int, text: str) -> None:
        """Stop parsing: `data_received` answers."""
        self._refusal = status, text
        raise ValueError(text)


def check_deadlines(connections: Iterable[Any], now_s: float) -> None:
    """End the connections whose clients have taken too long."""
    for connection in list(connections):
        connection.check_due(now_s)
