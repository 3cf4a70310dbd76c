"""What every inference request goes through, whatever its protocol.

In order: is the process stopping, whose request is it, may it come now, its body, its tasks, its
answer. Each step that refuses raises a `Problem`, which the protocol puts into words of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.requests import Request

from cluster.serve.admission import Ticket
from cluster.serve.http.bodies import (
    CONNECTION,
    INLINE_BYTES,
    Body,
    Buffer,
    ClientGone,
    RawHeader,
    Receive,
    Send,
    answer,
    wanted_encoding,
)
from cluster.serve.http.pacing import in_thread
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.state import Scope, State, authorise

LOGGER = logging.getLogger(__name__)
#: what access logs write for a client that left before its answer (nginx)
CLIENT_CLOSED_REQUEST = 499

T = TypeVar("T")
JSON: RawHeader = (b"content-type", b"application/json")
Answer: TypeAlias = tuple[list[RawHeader], Sequence[Buffer]]
Words: TypeAlias = Callable[[Problem], Any]


class Call:
    """One inference request. The protocol fills in what it learns of it for the counters."""

    def __init__(self, state: State, scope: Scope) -> None:
        self.state = state
        self.scope = scope
        self.body = Body(state.budget)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.client = ""
        self.model = ""
        self.version = ""
        self.queue_s = 0.0
        self.items = 0
        self.tasks = 0

    async def read(self, reader: Callable[..., T], data: Buffer, *more: Any) -> T:
        """What a reader makes of data; if they are long, in a thread, one at a time, so that
        others are answered meanwhile.
        """
        if len(data) <= INLINE_BYTES:
            return reader(data, *more)
        await self.body.take_turn()
        try:
            return await in_thread(reader, data, *more)
        finally:
            self.body.give_turn()

    async def results(self, tickets: Sequence[Ticket]) -> list[bytes]:
        """The results of tasks, in order; if one fails or the client leaves, all are cancelled.

        Raises:
            Problem: of the first task that failed.
            ClientGone: the client has left.
        """
        dispatcher = self.state.dispatcher

        def drop() -> None:
            for ticket in tickets:
                dispatcher.drop(ticket)

        extensions = self.scope.get("extensions") or {}
        connection = extensions.get(CONNECTION)
        if connection is not None:
            connection.on_lost = drop
        self.tasks = len(tickets)
        try:
            found = []
            for ticket in tickets:
                found.append(await ticket.waiter)
                self.queue_s = max(self.queue_s, ticket.queue_s)
        except BaseException as error:
            is_gone = any(ticket.waiter.cancelled() for ticket in tickets)
            drop()
            if isinstance(error, asyncio.CancelledError) and is_gone:
                raise ClientGone from None
            raise
        finally:
            if connection is not None:
                connection.on_lost = None
        return found


def may_come(state: State, scope: Scope, role: Role) -> str:
    """The name under which a request waits in the queues; Problem unless it may come now."""
    if state.stopping:
        raise Problem(503, "the server is about to stop", retry_after_s=5.0, closes=True)
    identity = authorise(state, scope, role)
    client: str = identity.name or (scope.get("client") or ("",))[0]
    wait_s = state.buckets.take(client, time.monotonic())
    if wait_s:
        raise Problem(
            429,
            f"more than {state.buckets.rate_per_s:g} requests a second: wait {wait_s:.2g} s",
            retry_after_s=wait_s,
            code="rate_limit_exceeded",
            closes=True,
        )
    return client


def check_origin(request: Request) -> None:
    """Refuse what another site's page has a browser send: without tokens it would be obeyed."""
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if origin is not None and origin.partition("://")[2] != host:
        raise Problem(403, f"the page at {origin[:200]} may not change this cluster")


async def handle(
    state: State,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    protocol: str,
    respond: Callable[[Call, Buffer], Awaitable[Answer]],
    words: Words,
) -> None:
    """Answer one inference request by ``respond``, and count it."""
    began_s = time.perf_counter()
    call = Call(state, scope)
    status = 200
    try:
        call.client = may_come(state, scope, Role.SUBMIT)
        data = await call.body.read(receive, call.headers, state.settings.body_bytes)
        headers, parts = await respond(call, data)
        await answer(send, 200, headers, parts, wanted_encoding(call.headers))
    except Problem as problem:
        status = problem.status
        await answer_problem(send, problem, words)
    except ClientGone:
        status = CLIENT_CLOSED_REQUEST
    except Exception:
        status = 500
        LOGGER.exception("a request for %s failed", scope["path"])
        await answer_problem(send, Problem(500, "the server has a fault; see its log"), words)
    finally:
        call.body.release()
        latency_s = time.perf_counter() - began_s
        if call.model:
            state.statistics.add(
                call.model,
                call.version,
                items=call.items,
                tasks=call.tasks,
                latency_s=latency_s,
                queue_s=call.queue_s,
                succeeded=status == 200,
            )
        state.observe(call.model, protocol, int(status), latency_s, call.queue_s, call.items)


async def answer_problem(send: Send, problem: Problem, words: Words) -> None:
    """Answer with an error, in the protocol's words."""
    headers = [(k.encode(), v.encode("latin-1")) for k, v in problem.headers.items()]
    text = msgspec.json.encode(words(problem))
    await answer(send, problem.status, [JSON, *headers], [text])
