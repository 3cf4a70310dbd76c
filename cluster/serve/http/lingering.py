"""A transport that gives the client time to read the last answer.

A server that closes while bytes of the client are unread resets the connection, and the client may
lose the answer that says what was wrong: see RFC 9112, section 9.6. So the writing half is closed
first, and what still comes is discarded for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_S = 2.0


class LingeringTransport:
    """A transport whose `close` lingers while ``is_receiving``: more may come of a request."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self.write = transport.write
        #: whether it is closed, or will be
        self.is_closing: Callable[[], bool] = transport.is_closing
        self._loop = loop
        #: whether a request has begun that is not complete
        self.is_receiving = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close it, after `LINGER_S` if the client may be sending; a second call closes at once."""
        if self.is_closing() or not self.is_receiving:
            self._transport.close()
            return
        self.is_closing = lambda: True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(LINGER_S, self._transport.close)
