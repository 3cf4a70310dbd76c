"""The client for asyncio programs: the plain client behind awaitable calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

from cluster.shells.calls import NOTHING
from cluster.shells.client import Client
from cluster.shells.mapping import many_payloads
from cluster.spec import ClusterSpec
from cluster.vocabulary.status import Status, StoryEntry, TaskStatus
from cluster.vocabulary.task import State, TaskId
from cluster.work.functions import Function

AHEAD_TASKS = 256


class AsyncClient:
    """The client for asyncio: the plain client's calls, awaited. ``settings`` as for Client."""

    def __init__(
        self, endpoint: str | None = None, *, spec: ClusterSpec | None = None, **settings: Any
    ) -> None:
        self._client = Client(endpoint, spec=spec, **settings)

    async def submit(
        self, kind: str | Function, payload: Any = NOTHING, *more: Any, **options: Any
    ) -> Any:
        """The result of one task, bytes or what the function returned; cancelling the await cancels
        it. Items and options as for Client.submit.
        """
        submit: Callable[..., Future[Any]] = self._client.submit
        return await asyncio.wrap_future(submit(kind, payload, *more, **options))

    async def map(
        self, kind: str | Function, payloads: Iterable[Any], *more: Iterable[Any], **options: Any
    ) -> AsyncIterator[Any]:
        """The results of many like tasks, in order, a bounded window ahead; a thread reads the
        sources, which are as for Client.map. Options as for Client.submit. An error of the source,
        or of a payload that can't be sent, is raised after the results before it.
        """
        name, is_call = self._client.resolve(kind, many=True)
        sources = (payloads, *more) if is_call else (many_payloads(payloads, *more),)
        loop, room = asyncio.get_running_loop(), threading.Semaphore(AHEAD_TASKS)
        # Futures in order, then the error of the source or None.
        taken: asyncio.Queue[Future[Any] | BaseException | None] = asyncio.Queue()
        over = threading.Event()

        def read() -> None:
            last: BaseException | None = None
            try:
                for items in zip(*sources, strict=False):
                    room.acquire()
                    if over.is_set():
                        return
                    future = self._client.submit(name, *items, **options)
                    if over.is_set():
                        future.cancel()
                    loop.call_soon_threadsafe(taken.put_nowait, future)
            except BaseException as error:
                last = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(taken.put_nowait, last)

        # A source may wait, which must not hold the loop up.
        threading.Thread(target=read, name="map source", daemon=True).start()
        head: Future[Any] | BaseException | None = None
        try:
            while isinstance(head := await taken.get(), Future):
                yield await asyncio.wrap_future(head)
                room.release()
            if head is not None:
                raise head
        finally:
            over.set()
            room.release()
            while not taken.empty():
                left = taken.get_nowait()
                if isinstance(left, Future):
                    left.cancel()

    async def status(self, timeout: float | None = 5.0) -> Status:  # noqa: ASYNC109
        """The state of the cluster; raises Unreachable without an answer in ``timeout`` seconds."""
        return await asyncio.to_thread(self._client.status, timeout)

    async def change_policy(self, policy: str) -> Status:
        """Switch the assignment policy by name; raises ClusterError for an unknown one."""
        return await asyncio.to_thread(self._client.change_policy, policy)

    async def serve_models(
        self, load: Collection[str] = (), unload: Collection[str] = ()
    ) -> Status:
        """Have the workers load and unload models; see Client.serve_models."""
        return await asyncio.to_thread(self._client.serve_models, load, unload)

    async def tasks(self, state: State | str | None = None, limit: int = 100) -> list[TaskStatus]:
        """The newest tasks of all clients; see Client.tasks."""
        return await asyncio.to_thread(self._client.tasks, state, limit)

    async def story(self, task: TaskId) -> list[StoryEntry]:
        """What has happened to a task, in order; raises ClusterError if it is not known."""
        return await asyncio.to_thread(self._client.story, task)

    async def cancel_task(self, task: TaskId) -> bool:
        """Cancel a task of any client; false if it had ended otherwise."""
        return await asyncio.to_thread(self._client.cancel_task, task)

    async def drain(self, worker: str) -> Status:
        """Have a worker finish what it runs and end; see Client.drain."""
        return await asyncio.to_thread(self._client.drain, worker)

    async def restart(self, worker: str, timeout: float | None = 60.0) -> Status:  # noqa: ASYNC109
        """Drain a worker and wait for its next process; see Client.restart."""
        return await asyncio.to_thread(self._client.restart, worker, timeout)

    def __repr__(self) -> str:
        return repr(self._client).replace("<Client", "<AsyncClient", 1)

    async def close(self) -> None:
        """Say goodbye; what is not done fails with ClientClosed."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
