"""Administration over HTTP, under ``/cluster``: what there is, and what an operator may change.

Questions to the coordinator wait for its answer, so a thread asks them, for at most the client's
own time limit. What goes on after the answer is 202, with a Location that tells how far it is.
Figures and lists want a token with the role read, tasks of one's own submit, the rest admin.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.handling import CLIENT_CLOSED_REQUEST, check_origin, may_come
from cluster.serve.http.bodies import Body, ClientGone
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.operations.restarts import RollingRestart
from cluster.serve.operations.tasks import (
    Kept,
    NewTask,
    outcome_of,
    payload_of,
    wait_for_end,
    wait_for_id,
)
from cluster.serve.state import State, authorise
from cluster.shells.client import Client
from cluster.shells.futures import TaskFuture
from cluster.vocabulary.errors import ClusterError, ProtocolError, Unreachable, did_you_mean
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Name, Priority, TaskId
from cluster.vocabulary.task import State as TaskState

T = TypeVar("T")
Asked = TypeVar("Asked", bound=msgspec.Struct)
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

TASK = re.compile(r"(\d{1,18})\.(\d{1,9})")
LISTED_MAX = 1_000


class NewPolicy(msgspec.Struct, forbid_unknown_fields=True):
    """The assignment policy that is wanted."""

    policy: Name


class NewRestart(msgspec.Struct, forbid_unknown_fields=True):
    """The workers to restart; None is all of them."""

    workers: list[Name] | None = None


def routes(state: State) -> list[BaseRoute]:
    """Everything under ``/cluster`` but the live page's figures."""
    admin = Administration(state)
    table: list[tuple[str, str, Role | None, Handler]] = [
        ("GET", "health", None, admin.health),
        ("GET", "status", Role.READ, admin.status),
        ("GET", "config", Role.READ, admin.config),
        ("GET", "workers", Role.READ, admin.workers),
        ("GET", "tasks", Role.READ, admin.tasks),
        ("POST", "tasks", Role.SUBMIT, admin.submit),
        ("GET", "tasks/{id}", Role.READ, admin.task),
        ("DELETE", "tasks/{id}", Role.ADMIN, admin.cancel),
        ("PUT", "policy", Role.ADMIN, admin.change_policy),
        ("POST", "workers/{name:path}/drain", Role.ADMIN, admin.drain),
        ("POST", "workers/{name:path}/restart", Role.ADMIN, admin.restart),
        ("GET", "restart", Role.READ, admin.restart_progress),
        ("POST", "restart", Role.ADMIN, admin.restart),
        ("DELETE", "restart", Role.ADMIN, admin.stop_restart),
    ]
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, role, handler in table:
        guarded = handler if role is None else _guard(state, role, handler)
        by_path.setdefault(f"/cluster/{path}", {})[method] = guarded
    return [
        Route(path, _one_of(methods), methods=list(methods)) for path, methods in by_path.items()
    ]


def _guard(state: State, role: Role, handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        authorise(state, request.scope, role)
        if request.method != "GET":
            check_origin(request)
        try:
            return await handler(request)
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return guarded


def _one_of(methods: dict[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return handle


class Administration:
    """The handlers of one application, and the rolling restart that it runs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept = Kept()
        self._restart: RollingRestart | None = None

    async def health(self, request: Request) -> Response:
        """200 if the coordinator answers and has a worker that takes tasks, 503 otherwise.

        It tells what the backend knows, at once: probes do not wait.
        """
        backend = self._state.backend
        if self._state.stopping:
            return _json({"status": "stopping", "error": "this API is about to end"}, 503)
        if not isinstance(backend, ClusterBackend):
            return _json({"status": "ok"})
        if (status := backend.status) is None:
            return _json({"status": "unreachable", "error": backend.trouble}, 503)
        taking = sum(not worker.draining for worker in status.workers)
        if not taking:
            return _json({"status": "no worker", "error": "no worker takes tasks"}, 503)
        return _json({"status": "ok", "workers": taking})

    async def status(self, request: Request) -> Response:
        """The cluster's status."""
        return _json(await self._ask(Client.status))

    async def config(self, request: Request) -> Response:
        """The cluster's spec and this API's settings, without secrets."""
        client, state = self._client(), self._state
        settings = msgspec.to_builtins(state.settings)
        return _json({
            "spec": client.spec,
            "api": {"coordinator": client.endpoint, "tokens": state.tokens is not None, **settings},
        })  # fmt: skip

    async def workers(self, request: Request) -> Response:
        """Every worker of the status."""
        status = await self._ask(Client.status)
        return _json({"workers": status.workers, "hosts": status.hosts})

    async def tasks(self, request: Request) -> Response:
        """The newest tasks: ``?state=failed&limit=20``."""
        _check_query(request, "state", "limit")
        text = request.query_params.get("limit", "100")
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        if not 1 <= limit <= LISTED_MAX:
            raise Problem(400, f"limit is {text[:32]!r}; it is a number from 1 to {LISTED_MAX}")
        wanted = request.query_params.get("state")
        state = _choice("state", wanted, {s.value: s for s in TaskState}) if wanted else None
        found = await self._ask(Client.tasks, state=state, limit=limit)
        listed = [{"task": f"{t.run}.{t.position}", **msgspec.to_builtins(t)} for t in found]
        return _json({"tasks": listed})

    async def task(self, request: Request) -> Response:
        """One task's state and story, and its result if it was submitted here without waiting."""
        id = _task_id(request)
        story = await self._ask(Client.story, id, otherwise=404)
        found = {"task": _text(id), "state": story[-1].state, "story": story}
        future = self._kept.get(id)
        if future is not None and future.done():
            found |= outcome_of(future)[1]
        return _json(found)

    async def submit(self, request: Request) -> Response:
        """Submit a task: 200 with its result, or 202 with its id for ``"wait": false``."""
        may_come(self._state, request.scope, Role.SUBMIT)
        async with _reading(self._state, request, NewTask) as asked:
            future = self._hand_in(asked)
            if not asked.wait:
                id = await wait_for_id(future)
                self._kept.add(id, future)
                return _json({"task": _text(id)}, 202, location=f"/cluster/tasks/{_text(id)}")
            await wait_for_end(future, request.scope)
            status, outcome = outcome_of(future)
            return _json({"task": _text(future.task_id), **outcome}, status)

    async def cancel(self, request: Request) -> Response:
        """Cancel a task that has not ended."""
        id = _task_id(request)
        if not await self._ask(Client.cancel_task, id, otherwise=404):
            raise Problem(409, f"task {_text(id)} has ended already")
        return _json({"task": _text(id), "state": TaskState.CANCELLED})

    async def change_policy(self, request: Request) -> Response:
        """Have another policy choose workers: ``{"policy": "adaptive"}``."""
        async with _reading(self._state, request, NewPolicy) as asked:
            status = await self._ask(Client.change_policy, asked.policy)
        return _json({"policy": status.policy})

    async def drain(self, request: Request) -> Response:
        """A worker finishes what it runs, and leaves for good."""
        name = request.path_params["name"]
        _check_worker(name, await self._names())
        await self._ask(Client.drain, name, otherwise=409)
        return _json({"worker": name, "draining": True}, 202, location="/cluster/workers")

    async def restart(self, request: Request) -> Response:
        """Restart one worker, or some one after another, so that the others go on."""
        client = self._client()
        async with _reading(self._state, request, NewRestart) as asked:
            name = request.path_params.get("name")
            chosen = asked.workers if name is None else [name]
        names = await self._names()
        wanted = names if chosen is None else list(dict.fromkeys(chosen))
        for name in wanted:
            _check_worker(name, names)
        if not wanted:
            raise Problem(409, "there is no worker to restart")
        if self._restart is not None and self._restart.is_running:
            raise Problem(409, "a rolling restart is running; GET /cluster/restart tells how far")
        self._restart = RollingRestart(client, wanted)
        self._restart.start()
        return _json(self._restart.progress, 202, location="/cluster/restart")

    async def restart_progress(self, request: Request) -> Response:
        """How far the newest rolling restart is."""
        if self._restart is None:
            raise Problem(404, "this API has begun no rolling restart; POST /cluster/restart does")
        return _json(self._restart.progress)

    async def stop_restart(self, request: Request) -> Response:
        """Leave the workers as they are that have not had their turn."""
        if self._restart is None or not self._restart.is_running:
            raise Problem(409, "no rolling restart is running")
        self._restart.stop()
        return _json(self._restart.progress, 202, location="/cluster/restart")

    def _hand_in(self, asked: NewTask) -> TaskFuture:
        client, payload = self._client(), payload_of(asked)
        priority = _choice("priority", asked.priority, {p.name.lower(): p for p in Priority})
        timeout_s = asked.timeout_s or self._state.settings.timeout_s
        try:
            return client.submit(asked.kind, payload, priority=priority, timeout_s=timeout_s)
        except ClusterError as error:
            raise Problem(400, str(error)) from None

    async def _names(self) -> list[str]:
        status: Status = await self._ask(Client.status)
        return [worker.worker for worker in status.workers]

    def _client(self) -> Client:
        if self._state.client is None:
            raise Problem(501, "the engine behind this API has no coordinator to administer")
        return self._state.client

    async def _ask(
        self, method: Callable[..., T], *args: Any, otherwise: int = 400, **options: Any
    ) -> T:
        """What a method of the client answers; a refusal by the coordinator is ``otherwise``."""
        client = self._client()
        try:
            return await run_in_threadpool(method, client, *args, **options)
        except Unreachable as error:
            raise Problem(503, str(error), retry_after_s=1.0) from None
        except ProtocolError as error:
            raise Problem(502, str(error)) from None
        except ClusterError as error:
            raise Problem(otherwise, str(error)) from None


def _json(content: Any, status: int = 200, location: str | None = None) -> Response:
    headers = {"cache-control": "no-store"} | ({"location": location} if location else {})
    body = msgspec.json.encode(content)
    return Response(body, status, media_type="application/json", headers=headers)


@asynccontextmanager
async def _reading(state: State, request: Request, shape: type[Asked]) -> AsyncIterator[Asked]:
    """The body as ``shape``, counted as held until the end; it may be empty if it needs nothing.

    Raises:
        Problem: 400 with what is wrong and where; as of `Body.read`.
    """
    body = Body(state.budget)
    headers = dict(request.scope["headers"])
    try:
        data = await body.read(request.receive, headers, state.settings.body_bytes)
        try:
            asked = msgspec.json.decode(data or b"{}", type=shape)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            fields = ", ".join(shape.__struct_fields__)
            text = f"the body is not as it should be: {error}; it is JSON with {fields}"
            raise Problem(400, text) from None
        yield asked
    finally:
        body.release()


def _check_query(request: Request, *known: str) -> None:
    for name in request.query_params:
        if name not in known:
            hint = did_you_mean(name, known)
            raise Problem(400, f"no parameter {name[:64]!r}; there are {', '.join(known)}{hint}")


def _choice(what: str, word: str, known: dict[str, T]) -> T:
    if word not in known:
        hint = did_you_mean(word, known)
        raise Problem(400, f"{what} is {word[:64]!r}; it is one of {', '.join(known)}{hint}")
    return known[word]


def _check_worker(name: str, there: list[str]) -> None:
    if name not in there:
        raise Problem(404, f"there is no worker {name[:128]!r}{did_you_mean(name, there)}")


def _task_id(request: Request) -> TaskId:
    text = request.path_params["id"]
    found = TASK.fullmatch(text)
    if found is None:
        raise Problem(400, f"{text[:64]!r} is no task; a task is RUN.POSITION, such as 12.0")
    return TaskId(int(found[1]), int(found[2]))


def _text(id: TaskId | None) -> str | None:
    return None if id is None else f"{id.run}.{id.position}"
