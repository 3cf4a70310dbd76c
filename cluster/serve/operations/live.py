"""The live page at ``/``: one static file with its style and script, and ``/cluster/live``, which
it asks once a second.

The page refers to no other host, and its Content-Security-Policy allows none. It is served without
a token, as it shows nothing by itself; the figures want one.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.operations.measures import Measures
from cluster.serve.state import State, authorise
from cluster.vocabulary.status import Status

PAGE = Path(__file__).parent / "page"
TYPES = {
    "index.html": "text/html; charset=utf-8",
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def routes(state: State, measures: Measures) -> list[BaseRoute]:
    """The page and the figures that it draws."""
    figures = Figures(state, measures)

    async def live(request: Request) -> Response:
        authorise(state, request.scope, Role.READ)
        body = msgspec.json.encode(figures.shown())
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    return [Route("/", _page), Route("/page/{name}", _page), Route("/cluster/live", live)]


async def _page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    if name not in TYPES:
        raise Problem(404, f"the page has no {name!r}; it has {', '.join(TYPES)}")
    return Response(_read(name), headers=HEADERS | {"content-type": TYPES[name]})


@cache
def _read(name: str) -> bytes:
    return (PAGE / name).read_bytes()


class Figures:
    """What the page draws. A status is encoded once, as that of thousands of workers takes time."""

    def __init__(self, state: State, measures: Measures) -> None:
        self._state = state
        self._measures = measures
        self._encoded: tuple[Status | None, msgspec.Raw] = (None, msgspec.Raw(b"null"))

    def shown(self) -> dict[str, Any]:
        """Everything as it is now; None is unknown. Times are seconds."""
        everything, by_pair = self._measures.recent()
        backend, admission = self._state.backend, self._state.dispatcher.admission
        coordinator, status, engine = None, None, f"engine {backend.name}"
        if isinstance(backend, ClusterBackend):
            status, engine = backend.status, f"coordinator at {backend.client.endpoint}"
            coordinator = {
                "taken_s": backend.answered_at_s,
                "error": None if status is not None else backend.trouble,
            }
        if status is not self._encoded[0]:
            self._encoded = status, msgspec.Raw(msgspec.json.encode(status))
        return {
            "at": time.time(),
            "engine": engine,
            "coordinator": coordinator,
            "status": self._encoded[1],
            "requests": {
                **msgspec.structs.asdict(everything),
                "waiting": admission.queued,
                "in_flight": admission.in_flight,
            },
            "models": [
                {"model": model, "protocol": protocol, **msgspec.structs.asdict(recent)}
                for (model, protocol), recent in by_pair.items()
            ],
        }
