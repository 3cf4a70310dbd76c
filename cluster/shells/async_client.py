"""The client for asyncio programs: the plain client behind awaitable calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Any, Self

from cluster.shells.client import Client
from cluster.shells.mapping import refuse_single
from cluster.spec import ClusterSpec
from cluster.vocabulary.status import Status

AHEAD_TASKS = 256


class AsyncClient:
    """The client for asyncio: the plain client's calls, awaited. ``settings`` as for Client."""

    def __init__(self, endpoint: str, *, spec: ClusterSpec | None = None, **settings: Any) -> None:
        self._client = Client(endpoint, spec=spec, **settings)

    async def submit(self, kind: str, payload: bytes = b"", **options: Any) -> bytes:
        """The result of one task; cancelling the await cancels it. Options as for
        Client.submit.
        """
        return await asyncio.wrap_future(self._client.submit(kind, payload, **options))

    async def map(
        self, kind: str, payloads: Iterable[bytes], **options: Any
    ) -> AsyncIterator[bytes]:
        """The results of many like tasks, in order, a bounded window ahead. Options as for
        Client.submit.
        """
        refuse_single(payloads)
        waiting: deque[asyncio.Future[bytes]] = deque()
        source = iter(payloads)
        try:
            while True:
                for payload in islice(source, AHEAD_TASKS - len(waiting)):
                    future = self._client.submit(kind, payload, **options)
                    waiting.append(asyncio.wrap_future(future))
                if not waiting:
                    return
                yield await waiting.popleft()
        finally:
            for left in waiting:
                left.cancel()

    async def status(self, timeout: float | None = 5.0) -> Status:  # noqa: ASYNC109
        """The state of the cluster; raises Unreachable without an answer in ``timeout`` seconds."""
        return await asyncio.to_thread(self._client.status, timeout)

    async def change_policy(self, policy: str) -> Status:
        """Switch the assignment policy by name; raises ClusterError for an unknown one."""
        return await asyncio.to_thread(self._client.change_policy, policy)

    async def close(self) -> None:
        """Say goodbye; what is not done fails with ClientClosed."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
