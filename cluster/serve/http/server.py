"""uvicorn as this API runs it: hardened connections, and an end that finishes what is open."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn import Config, Server

from cluster.serve.http.binding import BACKLOG
from cluster.serve.http.connection import Connection, check_deadlines

#: uvicorn's ticks, of 0.1 s, between two looks at deadlines
TICKS = 5


class ApiServer(Server):
    """A server that tells when it listens, and stops gracefully.

    On SIGTERM or SIGINT it calls ``on_stopping``, goes on until no request is open or ``drain_s``
    have passed, then ends; a second signal ends it at once.
    """

    def __init__(
        self,
        app: Any,
        *,
        idle_s: float,
        drain_s: float,
        certfile: str | None = None,
        keyfile: str | None = None,
        on_ready: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(
            Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                loop="uvloop",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=round(idle_s),
                timeout_graceful_shutdown=1,
                backlog=BACKLOG,
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `startup`: uvicorn would raise them again at its end."""
        yield

    def stop(self) -> None:
        """Begin to end; to be called in the loop. The second call ends at once."""
        if self._ending is not None:
            self.should_exit = self.force_exit = True
            return
        self._on_stopping()
        self._ending = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._drain_s
        while self.server_state.tasks and loop.time() < until_s:
            await asyncio.wait(set(self.server_state.tasks), timeout=until_s - loop.time())
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look at deadlines now and then."""
        if counter % TICKS == 0:
            check_deadlines(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)
