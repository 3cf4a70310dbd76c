"""Models that come and go: Triton's model repository extension.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_model_repository.html
has it. Every worker loads or unloads a model by its name, from the repository on its own machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from cluster.serve.dispatch import problem_of
from cluster.serve.http.bodies import Body
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.oip import guarded
from cluster.serve.state import State
from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError

#: how long a model may take to be loaded, or unloaded
CHANGED_S = 120.0
LOOK_EVERY_S = 0.1
BODY_BYTES_MAX = 1 << 20


def routes(state: State) -> list[BaseRoute]:
    """The list of what is served, and what loads and unloads a model."""
    return [
        Route("/v2/repository/index", guarded(state, _index), methods=["POST"]),
        *(
            Route(
                f"/v2/repository/models/{{name}}/{action}",
                guarded(state, _change_by(change), Role.ADMIN),
                methods=["POST"],
            )
            for action, change in (("load", _load), ("unload", _unload))
        ),
    ]


async def _index(state: State, request: Request) -> list[dict[str, str]]:
    return [
        {"name": name, "version": one, "state": "READY", "reason": ""}
        for name in state.catalogue.names()
        for one in state.catalogue.versions(name) or ["1"]
    ]


def _change_by(
    change: Callable[[State, Client, str], Awaitable[None]],
) -> Callable[[State, Request], Awaitable[dict[str, Any]]]:
    """What answers a request for a change, once the workers have made it."""

    async def answer_it(state: State, request: Request) -> dict[str, Any]:
        await _check_parameters(state, request)
        if state.client is None:
            raise Problem(
                400,
                "models are loaded and unloaded by a cluster's workers; this server has another "
                "engine",
            )
        try:
            await change(state, state.client, request.path_params["name"])
        except ClusterError as error:
            problem = problem_of(error)
            raise Problem(400 if problem.status == 500 else problem.status, str(error)) from None
        return {}

    return answer_it


async def _load(state: State, client: Client, name: str) -> None:
    """Have the workers load a model; Problem 400 with the reason if one of them can't."""
    found: set[str] = set()

    async def troubles() -> set[str]:
        """What workers say of the model if they could not load it."""
        status = await asyncio.to_thread(client.status)
        return {worker.trouble for worker in status.workers if name in worker.trouble}

    async def is_over() -> bool:
        found.update(await troubles())
        return bool(found) or name in state.backend.models()

    async def is_forgotten() -> bool:
        return not await troubles()

    await asyncio.to_thread(client.serve_models, [name])
    await _wait_until(is_over, f"model {name!r} is not loaded")
    if found:
        # Otherwise each worker that joins would try again, and nobody would hear of it.
        await asyncio.to_thread(client.serve_models, (), [name])
        await _wait_until(is_forgotten, f"model {name!r} can't be loaded, and is still tried")
        raise Problem(400, f"model {name!r} can't be loaded: {'; '.join(sorted(found))}")


async def _unload(state: State, client: Client, name: str) -> None:
    """Have the workers unload a model."""
    await asyncio.to_thread(client.serve_models, (), [name])

    async def is_over() -> bool:
        return name not in state.backend.models()

    await _wait_until(is_over, f"model {name!r} is not unloaded")


async def _wait_until(is_over: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    until_s = time.monotonic() + CHANGED_S
    while not await is_over():
        if time.monotonic() > until_s:
            raise Problem(504, f"{otherwise} after {CHANGED_S:g} s")
        await asyncio.sleep(LOOK_EVERY_S)


async def _check_parameters(state: State, request: Request) -> None:
    """Problem 400 for what Triton could take with it: a configuration, or the model itself."""
    body = Body(state.budget)
    try:
        data = await body.read(request.receive, dict(request.scope["headers"]), BODY_BYTES_MAX)
        found = msgspec.json.decode(data or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is no JSON object: {error}") from None
    finally:
        body.release()
    parameters = found.get("parameters") or {}
    if not isinstance(parameters, dict) or not parameters.keys() <= {"unload_dependents"}:
        raise Problem(
            400,
            "only unload_dependents is read here: put a model and its configuration into the "
            "repository, see `perfkit model add`",
        )
