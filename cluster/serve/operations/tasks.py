"""Tasks that are submitted over HTTP: their form, their end in words, and results that are kept."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cluster.serve.dispatch import problem_of
from cluster.serve.http.bodies import CONNECTION
from cluster.serve.http.problems import Problem
from cluster.serve.state import Scope
from cluster.shells.futures import TaskFuture
from cluster.vocabulary.task import Name, TaskId

#: how long a task that nobody waits for may take to be accepted
ACCEPTED_S = 5.0
TASKS_MAX = 256
BYTES_MAX = 16 << 20


class NewTask(msgspec.Struct, forbid_unknown_fields=True):
    """A task to submit. Its payload is ``text`` or ``base64``, or empty."""

    kind: Name
    text: str | None = None
    base64: str | None = None
    priority: str = "normal"
    timeout_s: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    wait: bool = True


def payload_of(asked: NewTask) -> bytes:
    """The bytes that a task is to get; Problem 400 for text and base64 at once, or bad base64."""
    if asked.text is not None and asked.base64 is not None:
        raise Problem(400, "a payload is either text or base64, not both")
    if asked.base64 is None:
        return (asked.text or "").encode()
    try:
        return base64.b64decode(asked.base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"base64 can't be read: {error}") from None


def outcome_of(future: TaskFuture) -> tuple[int, dict[str, Any]]:
    """How a task ended, as an HTTP status and in words: its result, or its error.

    The result is there as base64, and as text if it is one.
    """
    try:
        error = future.exception()
    except CancelledError:
        return 409, {"error": "the task was cancelled"}
    if error is not None:
        problem = problem_of(error)
        return problem.status, {"error": problem.message}
    result = future.result()
    outcome = {"base64": base64.b64encode(result).decode()}
    try:
        return 200, {"result": outcome | {"text": result.decode()}}
    except UnicodeDecodeError:
        return 200, {"result": outcome}


def _call_at_end(future: TaskFuture, call: Callable[[], object]) -> None:
    """Have the running loop call a function once a task has ended, if there is still a loop."""
    loop = asyncio.get_running_loop()

    def at_end(_: object) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(call)

    future.add_done_callback(at_end)


async def wait_for_end(future: TaskFuture, scope: Scope) -> None:
    """Wait until a task has ended, which is cancelled if its client leaves or the server ends
    first: Problem 503.
    """
    ended = asyncio.Event()
    _call_at_end(future, ended.set)
    connection = (scope.get("extensions") or {}).get(CONNECTION)
    if connection is not None:
        connection.on_lost = future.cancel
    try:
        await ended.wait()
    except asyncio.CancelledError:
        future.cancel()
        text = "the server ended before the task did, which is cancelled"
        raise Problem(503, text, retry_after_s=1.0) from None
    finally:
        if connection is not None:
            connection.on_lost = None


async def wait_for_id(future: TaskFuture) -> TaskId:
    """The id of a task, once the coordinator has accepted it."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + ACCEPTED_S
    while (id := future.task_id) is None:
        if future.done():
            status, outcome = outcome_of(future)
            raise Problem(status, outcome["error"])
        if loop.time() > end_s:
            future.cancel()
            raise Problem(503, "the coordinator has not accepted the task", retry_after_s=1.0)
        await asyncio.sleep(0.002)
    return id


class Kept:
    """The newest TASKS_MAX tasks, whose results have BYTES_MAX bytes at most. For one loop."""

    def __init__(self) -> None:
        self._futures: OrderedDict[TaskId, TaskFuture] = OrderedDict()

    def get(self, id: TaskId) -> TaskFuture | None:
        """The task's future; None if it is not kept, or no more."""
        return self._futures.get(id)

    def add(self, id: TaskId, future: TaskFuture) -> None:
        """Keep a task, which ends later."""
        self._futures[id] = future
        _call_at_end(future, self._forget)

    def _forget(self) -> None:
        """Let the oldest go that are over a bound."""
        held_bytes = 0
        for tasks, (id, future) in enumerate(reversed([*self._futures.items()]), 1):
            has_result = future.done() and not future.cancelled() and future.exception() is None
            held_bytes += len(future.result()) if has_result else 0
            if tasks > TASKS_MAX or held_bytes > BYTES_MAX:
                del self._futures[id]
