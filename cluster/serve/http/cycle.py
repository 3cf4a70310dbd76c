"""A request and its answer on a connection of uvicorn's, in fewer steps than uvicorn's own."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

#: headers of an answer that change how uvicorn sends it
UVICORN_KNOWS = frozenset((b"connection", b"transfer-encoding"))


class Cycle(RequestResponseCycle):
    """A request and its answer, which is one write if the connection goes on: uvicorn's own makes
    two, and each is a system call that wakes the client.
    """

    def __init__(self, connection: HttpToolsProtocol, scope: Any, keep_alive: bool) -> None:
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_log = False
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0
        self._head: Any = None
        self._event: asyncio.Event | None = None
        #: whether the application has been given the end of the body
        self._is_given = False

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set when more has come or nothing more will come; only made for those who wait."""
        if self._event is None:
            self._event = asyncio.Event()
            if self.body or not (self.more_body or self._is_given):
                self._event.set()
        return self._event

    def tell(self) -> None:
        """Tell the application, if it waits, that more has come or nothing more will come."""
        if self._event is not None:
            self._event.set()

    @property
    def disconnected(self) -> bool:
        """Whether no answer can be sent any more. uvicorn tells only the newest of pipelined
        requests that the client has left, and the one that is being answered would fail.
        """
        return self.transport.is_closing()

    @disconnected.setter
    def disconnected(self, is_so: bool) -> None:
        """Do nothing: it is told of a transport that is closing."""

    async def receive(self) -> Any:
        """The next part of the body; what is complete is given without a wait."""
        is_over = self._is_given or self.response_complete or self.transport.is_closing()
        if is_over or self.more_body or self.waiting_for_100_continue:
            message = await super().receive()
            self._is_given = not self.more_body
            return message
        self._is_given, self._event = True, None
        if self.flow.read_paused:
            self.flow.resume_reading()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        """Take one of the application's messages; an answer's head waits for its body."""
        head, self._head = self._head, None
        if head is None:
            if self.response_started:
                await super().send(message)
            else:
                self._head = message
            return
        body, headers = message.get("body", b""), head["headers"]
        if (
            (b"content-length", b"%d" % len(body)) not in headers
            or not self.keep_alive
            or self.scope["method"] == "HEAD"
            or self.flow.write_paused
            or self.transport.is_closing()
            or not UVICORN_KNOWS.isdisjoint(dict(headers))
        ):
            await super().send(head)
            await super().send(message)
            return
        lines = [header_line(*header) for header in (*self.default_headers, *headers)]
        self.transport.write(b"".join([STATUS_LINE[head["status"]], *lines, b"\r\n", body]))
        self.response_started = self.response_complete = True
        self.tell()
        self.on_response()


@lru_cache(maxsize=256)
def header_line(name: bytes, value: bytes) -> bytes:
    """A header as it is sent; ValueError for one that would be several."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise ValueError(f"{name!r}: {value!r} is no header")
    return b"%s: %s\r\n" % (name, value)
