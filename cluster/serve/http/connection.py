"""A connection of uvicorn's that slow, huge and contradictory requests can't hold or confuse.

uvicorn's own has no bound on headers and no deadline before a request is complete. This adds both,
a cap on connections, on tiny chunks and on pipelined requests, and a hook for a client that leaves.
Requests that could be read in two ways (both Content-Length and Transfer-Encoding, two lengths, no
or two hosts) are refused: llhttp does most of that, see RFC 9112, sections 3.2 and 6.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cluster.serve.http.bodies import CONNECTION
from cluster.serve.http.lingering import LingeringTransport

HEADER_BYTES_MAX = 64 << 10
HEADERS_MAX = 128
#: requests that may wait on one connection for the answer to the one before
PIPELINED_MAX = 64
#: Chunks may be tiny, but not all of them: the first number may, and one more for each CHUNK_BYTES.
CHUNKS_MAX, CHUNK_BYTES = 4_096, 256


class Connection(HttpToolsProtocol):
    """One client's connection. The bounds are those of all connections of a process."""

    header_s: ClassVar[float] = 10.0
    body_s: ClassVar[float] = 60.0
    connections_max: ClassVar[int] = 1_024

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: when what is awaited must be there, on the loop's clock; None while nothing is
        self.due_s: float | None = None
        #: called once if the client leaves
        self.on_lost: Callable[[], None] | None = None
        self._refusal: tuple[int, str] | None = None
        self._header_bytes = 0
        self._chunks = 0
        self._body_bytes = 0
        #: whether a request has begun that is not complete
        self._is_receiving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 at once if there are too many."""
        lingering: Any = LingeringTransport(transport, self.loop, lambda: self._is_receiving)
        super().connection_made(lingering)
        self.due_s = self.loop.time() + self.header_s
        if len(self.connections) > self.connections_max:
            self.refuse(503, f"the server has {self.connections_max} connections open already")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits that the client has left."""
        self.due_s = None
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; the first byte of a request starts its deadline."""
        if self.transport.is_closing():
            return
        if self.due_s is None and not self._is_open():
            self.due_s = self.loop.time() + self.header_s
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.due_s = self.loop.time() + self.header_s
        self._header_bytes = self._chunks = self._body_bytes = 0
        self._is_receiving = True
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {CONNECTION: self}

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._count_header(len(url), 414, "the request's target")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._count_header(len(name) + len(value), 431, "the headers")
        if len(self.headers) >= HEADERS_MAX:
            self._fail(431, f"there are over {HEADERS_MAX} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """All headers are there: check what llhttp lets pass, then start the request."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._fail(505, f"this server speaks HTTP/1.1 and 1.0, not {version}")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and version == "1.1"):
            self._fail(400, "a request has one Host header" + (", not several" if hosts else ""))
        if len(self.pipeline) >= PIPELINED_MAX:
            self._fail(400, f"over {PIPELINED_MAX} requests wait on this connection")
        self.due_s = self.loop.time() + self.body_s
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > CHUNKS_MAX + self._body_bytes // CHUNK_BYTES:
            self._fail(413, f"the body comes in over {CHUNKS_MAX} tiny chunks: send larger ones")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete, so nothing is awaited of the client."""
        self.due_s = None
        self._is_receiving = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client must read before more can be sent."""
        self.due_s = self.loop.time() + self.body_s
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self.due_s = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
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
            cycle.disconnected = True
            cycle.message_event.set()
        if self.on_lost is not None:
            self.on_lost()
        self.transport.close()

    def check_due(self, now_s: float) -> None:
        """End the connection if the client has taken too long."""
        if self.due_s is None or now_s < self.due_s:
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

    def _count_header(self, size_bytes: int, status: int, what: str) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > HEADER_BYTES_MAX:
            self._fail(status, f"{what} have over {HEADER_BYTES_MAX >> 10} KiB")

    def _fail(self, status: int, text: str) -> None:
        """Stop parsing: uvicorn answers by `send_400_response`."""
        self._refusal = status, text
        raise ValueError(text)


def check_deadlines(connections: Iterable[Any], now_s: float) -> None:
    """End the connections whose clients have taken too long."""
    for connection in list(connections):
        connection.check_due(now_s)
