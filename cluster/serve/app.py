"""The application: which request goes where.

Inference goes to raw ASGI functions, as starlette would take half of the time of a small request.
Everything else is starlette's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cluster.serve import embeddings, oip, repository
from cluster.serve.handling import answer_problem, handle
from cluster.serve.http.bodies import Receive, Send
from cluster.serve.http.problems import Problem
from cluster.serve.operations import admin, live, metrics
from cluster.serve.operations.measures import Measures
from cluster.serve.state import Scope, State

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_app(state: State) -> Application:
    """An ASGI application over the state's backend."""
    measures = Measures()
    state.observe = measures.observe
    pages = Starlette(
        routes=[
            *oip.routes(state),
            *repository.routes(state),
            *embeddings.routes(state),
            *admin.routes(state),
            *live.routes(state, measures),
            *metrics.routes(state, measures),
        ],
        exception_handlers={
            Problem: _answer_problem,
            HTTPException: _answer_http,
            Exception: _answer_fault,
        },
    )
    pages.router.redirect_slashes = False

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return pages(scope, receive, send)
        path: str = scope["path"]
        if path.endswith("/") and path != "/":
            path = scope["path"] = path.rstrip("/") or "/"
        is_infer = path.startswith("/v2/models/") and path.endswith("/infer")
        if not is_infer and path != "/v1/embeddings":
            return pages(scope, receive, send)
        if scope["method"] != "POST":
            return answer_problem(send, _wrong_method(scope), words_of(path))
        if not is_infer:
            return handle(
                state, scope, receive, send,
                protocol="openai", respond=embeddings.embed, words=embeddings.words,
            )  # fmt: skip
        name, _, version = path[len("/v2/models/") : -len("/infer")].partition("/versions/")
        return handle(
            state, scope, receive, send,
            protocol="v2", respond=oip.infer_of(name, version or None), words=oip.words,
        )  # fmt: skip

    return app


def words_of(path: str) -> Callable[[Problem], object]:
    """How the protocol of a path puts an error."""
    return embeddings.words if path.startswith("/v1/") else oip.words


def _wrong_method(scope: Scope) -> Problem:
    text = f"{scope['path']} takes POST, not {scope['method']}"
    return Problem(405, text, closes=True, headers=(("allow", "POST"),))


async def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    text = msgspec.json.encode(words_of(request.url.path)(problem))
    return Response(text, problem.status, problem.headers, media_type="application/json")


async def _answer_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such path, or another method."""
    assert isinstance(error, HTTPException)
    path = unquote(request.url.path)
    text = {
        404: f"there is nothing at {path:.200}",
        405: f"{path:.200} does not take {request.method}",
    }.get(error.status_code, error.detail)
    headers = tuple((error.headers or {}).items())
    return await _answer_problem(request, Problem(error.status_code, text, headers=headers))


async def _answer_fault(request: Request, error: Exception) -> Response:
    return await _answer_problem(request, Problem(500, "the server has a fault; see its log"))
