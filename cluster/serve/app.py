"""The application: which request goes where.

Inference goes to raw ASGI functions, as starlette would take half of the time of a small request.
Everything else is starlette's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from cluster.serve.http.problems import Problem
from cluster.serve.state import Scope, State

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_app(state: State) -> Application:
    """An ASGI application over the state's backend."""
    pages = Starlette(
        routes=_routes(state),
        exception_handlers={Problem: _answer_problem, HTTPException: _answer_http},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await pages(scope, receive, send)

    return app


def _routes(state: State) -> list[BaseRoute]:
    """The routes of every module that has some: each has ``routes(state)``."""
    return []


def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return JSONResponse({"error": problem.message}, problem.status, problem.headers)


def _answer_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such path, or another method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    text = {
        404: f"there is nothing at {path}",
        405: f"{path} does not take {request.method}",
    }.get(error.status_code, error.detail)
    return JSONResponse({"error": text}, error.status_code, error.headers)
