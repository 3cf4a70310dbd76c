"""Bodies of requests and answers: read within bounds, decompressed and compressed.

A body is counted while it comes in and while it is decompressed, so a compressed one can't grow
past the bound either (a "zip bomb").
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from cluster.serve.http.pacing import in_thread
from cluster.serve.http.problems import Problem

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Buffer: TypeAlias = bytes | bytearray | memoryview
RawHeader: TypeAlias = tuple[bytes, bytes]

#: where a request's scope tells the connection that it came by, among the ASGI extensions; its
#: ``on_lost`` is called if the client leaves
CONNECTION = "perfkit.connection"
#: what is decompressed or compressed without leaving the loop, which others wait for
INLINE_BYTES = 1 << 18
#: what a body may have without a share of the budget; the cap on connections bounds their sum
FREE_BYTES = 1 << 16
#: shorter answers are not worth compressing
COMPRESSED_BYTES_MIN = 1_024
#: A body may grow by more than this when it is decompressed, as zeros do, only up to these bytes.
RATIO_MAX, ANY_RATIO_BYTES = 32, 1 << 20
#: what is decompressed at a time, and of how much; while it is copied, no other thread runs
STEP_BYTES, PIECE_BYTES = 1 << 16, 1 << 14
#: zlib's window for each encoding; 32 more read either of the first two by their header
WINDOW_BITS = {b"gzip": 31, b"deflate": 15}


class ClientGone(Exception):
    """The client has closed the connection: nobody waits for an answer."""


class Budget:
    """Bytes that all requests of a process may hold at once."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        #: what takes long is done for one request at a time, so that it takes one core at most
        self.turn = asyncio.Lock()

    def take(self, size_bytes: int) -> None:
        """Count bytes as held; Problem 503 if there is no room for them."""
        if self.held_bytes + size_bytes > self.most_bytes:
            raise Problem(
                503,
                f"the requests that are open hold {self.held_bytes >> 20} MiB, and at most "
                f"{self.most_bytes >> 20} MiB are held at once: try again later",
                retry_after_s=1.0,
                closes=True,
            )
        self.held_bytes += size_bytes


class Body:
    """A request's body. What it has over `FREE_BYTES` counts in the budget until `release`, so
    that a few large bodies can't keep out the small ones.
    """

    __slots__ = ("_budget", "_charged_bytes", "_has_turn", "_size_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size_bytes = 0
        self._charged_bytes = 0
        self._has_turn = False

    def count(self, size_bytes: int) -> None:
        """Count bytes that are held now, or let go if negative; Problem 503 without room."""
        self._size_bytes += size_bytes
        charge = max(0, self._size_bytes - FREE_BYTES) - self._charged_bytes
        if charge:
            self._budget.take(charge)
            self._charged_bytes += charge

    def release(self) -> None:
        """Nothing is held any more."""
        self.give_turn()
        self._budget.held_bytes -= self._charged_bytes
        self._size_bytes = self._charged_bytes = 0

    async def read(
        self, receive: Receive, headers: Mapping[bytes, bytes], most_bytes: int
    ) -> Buffer:
        """All of the body, decompressed.

        Raises:
            Problem: 413 over the bound, 415 for an unknown encoding, 400 for broken compression,
                503 if all requests together hold too much.
            ClientGone: the client left before the end.
        """
        encoding = headers.get(b"content-encoding", b"")
        if encoding:
            encoding = encoding.strip().lower()
        if encoding and encoding != b"identity" and encoding not in WINDOW_BITS:
            raise Problem(
                415,
                f"the body's Content-Encoding is {encoding.decode('latin-1')[:64]!r}; "
                "gzip, deflate and identity can be read",
                closes=True,
                headers=(("accept-encoding", "gzip, deflate, identity"),),
            )
        check_length(headers, most_bytes)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        data: Buffer = message.get("body", b"")
        self.count(len(data))
        if message.get("more_body"):
            data = bytearray(data)
            while message.get("more_body"):
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part = message.get("body", b"")
                self.count(len(part))
                data += part
                if len(data) > most_bytes:
                    raise too_large(most_bytes)
        if encoding in WINDOW_BITS:
            return await self._decompress(data, encoding, most_bytes)
        return data

    async def _decompress(self, data: Buffer, encoding: bytes, most_bytes: int) -> Buffer:
        inflater, found = Inflater(data, encoding, most_bytes), bytearray()
        inflater.fill(found, INLINE_BYTES)
        self.count(len(found))
        if not inflater.over:
            # The rest may take long; zlib lets other threads run meanwhile.
            left_bytes = most_bytes - len(found)
            await self.take_turn()
            self.count(left_bytes)
            await in_thread(inflater.fill, found, most_bytes + 1)
            self.count(len(found) - most_bytes)
            if len(found) <= INLINE_BYTES:
                self.give_turn()
        return found

    async def take_turn(self) -> None:
        """Wait until no other request does what takes long. It is kept until `give_turn`, so that
        what one has decompressed is read, and let go, before another's is.
        """
        if not self._has_turn:
            await self._budget.turn.acquire()
            self._has_turn = True

    def give_turn(self) -> None:
        """Let others do what takes long."""
        if self._has_turn:
            self._has_turn = False
            self._budget.turn.release()


class Inflater:
    """Decompression within a bound, step by step. Problem 400 for broken data, 413 over the bound
    or for a body that grows as only a "zip bomb" does.
    """

    def __init__(self, data: Buffer, encoding: bytes, most_bytes: int) -> None:
        self._name = encoding.decode()
        self._most_bytes = most_bytes
        self._data = memoryview(data)
        self._given_bytes = 0
        bits = WINDOW_BITS[encoding]
        # Some clients send "deflate" without zlib's header: RFC 9110, section 8.4.1.2.
        is_bare = encoding == b"deflate" and data and (data[0] & 0x0F) != 8
        self._zlib = zlib.decompressobj(-bits if is_bare else bits)
        self.over = False

    def fill(self, found: bytearray, until_bytes: int) -> None:
        """Add to what was found until there are that many bytes, or `over` tells that it is all."""
        while not self.over and len(found) < until_bytes:
            left = self._zlib.unconsumed_tail
            piece = left or self._data[self._given_bytes : self._given_bytes + PIECE_BYTES]
            self._given_bytes += 0 if left else len(piece)
            try:
                part = self._zlib.decompress(piece, STEP_BYTES)
            except zlib.error as error:
                raise Problem(400, f"the body is no valid {self._name}: {error}") from None
            found += part
            if len(found) > self._most_bytes:
                raise too_large(self._most_bytes, "decompressed ")
            if len(found) > max(ANY_RATIO_BYTES, RATIO_MAX * self._given_bytes):
                raise Problem(
                    413,
                    f"the body grows to over {RATIO_MAX} times its size when it is decompressed: "
                    "send it as it is",
                    closes=True,
                )
            self.over = self._zlib.eof
            if not (self.over or piece or part):
                raise Problem(400, f"the body ends within its {self._name} stream")
        if self.over and (self._zlib.unused_data or self._given_bytes < len(self._data)):
            raise Problem(400, f"the body goes on after the end of its {self._name} stream")


def check_length(headers: Mapping[bytes, bytes], most_bytes: int) -> None:
    """Problem 413 if the length that a request tells is over the bound, before it is read."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > 18 or int(length) > most_bytes):
        raise too_large(most_bytes)


def too_large(most_bytes: int, what: str = "") -> Problem:
    """The problem of a body over the bound."""
    shown = f"{most_bytes >> 20} MiB" if most_bytes >= 1 << 20 else f"{most_bytes} bytes"
    return Problem(413, f"the {what}body is over the bound of {shown}", closes=True)


def wanted_encoding(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The encoding that an answer may have by Accept-Encoding (RFC 9110, section 12.5.3)."""
    accepted = headers.get(b"accept-encoding")
    if not accepted:
        return None
    best, best_weight = None, 0.0
    for item in accepted.lower().split(b","):
        name, _, weight_text = item.partition(b";")
        try:
            weight = float(weight_text.partition(b"=")[2] or 1)
        except ValueError:
            weight = 0.0
        if name.strip() in WINDOW_BITS and weight > best_weight:
            best, best_weight = name.strip(), weight
    return best


async def answer(
    send: Send,
    status: int,
    headers: list[RawHeader],
    parts: Sequence[Buffer],
    encoding: bytes | None = None,
) -> None:
    """Send an answer, compressed if an encoding is wanted and it is worth it."""
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if encoding is not None and len(body) >= COMPRESSED_BYTES_MIN:
        if len(body) > INLINE_BYTES:
            body = await asyncio.to_thread(compress, body, encoding)
        else:
            body = compress(body, encoding)
        headers = [*headers, (b"content-encoding", encoding), (b"vary", b"accept-encoding")]
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def compress(body: Buffer, encoding: bytes) -> bytes:
    """The body in an encoding, as fast as zlib can."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, WINDOW_BITS[encoding])
    return deflater.compress(body) + deflater.flush()
