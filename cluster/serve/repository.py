"""Models that come and go: Triton's model repository extension.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_model_repository.html
has it. Every worker loads or unloads a model by its name, from the repository on its own machine.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.dispatch import problem_of
from cluster.serve.handling import check_origin
from cluster.serve.http.bodies import Body
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.oip import guarded
from cluster.serve.state import State
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import WorkerStatus, names_model

#: how long a model may take to be loaded, or unloaded
CHANGED_S = 120.0
LOOK_EVERY_S = 0.1
#: what a worker tells when it has heard an order, and when it has obeyed
OBEYED_OFFERS = 2
#: the names of `cluster.models.repository.manifest`; a worker would take another for a path
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?<!\.onnx)")
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
    change: Callable[[ClusterBackend, str], Awaitable[None]],
) -> Callable[[State, Request], Awaitable[dict[str, Any]]]:
    """What answers a request for a change, once the workers have made it."""

    async def answer_it(state: State, request: Request) -> dict[str, Any]:
        check_origin(request)
        await _check_parameters(state, request)
        backend = state.backend
        if state.client is None or not isinstance(backend, ClusterBackend):
            raise Problem(
                400,
                "models are loaded and unloaded by a cluster's workers; this server has another "
                "engine",
            )
        name = request.path_params["name"]
        if not NAME.fullmatch(name):
            raise Problem(400, f"{name!r:.100} can't be the name of a model in a repository")
        try:
            await change(backend, name)
        except ClusterError as error:
            problem = problem_of(error)
            raise Problem(400 if problem.status == 500 else problem.status, str(error)) from None
        return {}

    return answer_it


async def _load(backend: ClusterBackend, name: str) -> None:
    """Have the workers load a model, anew if its files have changed; Problem 400 with the reason if
    one of them can't. What was served before still is then.
    """
    status = await asyncio.to_thread(backend.client.serve_models, [name])
    told = {(one.worker, one.epoch): one.offers for one in status.workers if not one.draining}
    was_served = any(name in one.models for one in status.workers)
    found: set[str] = set()

    def is_over() -> bool:
        asked = [one for one in _workers(backend) if (one.worker, one.epoch) in told]
        done = [one for one in asked if one.offers >= told[one.worker, one.epoch] + OBEYED_OFFERS]
        failed = [one for one in done if name not in one.models or names_model(one.trouble, name)]
        found.update(one.trouble for one in failed if one.trouble)
        return bool(found) or (len(done) == len(asked) and name in backend.models())

    def is_forgotten() -> bool:
        return not any(names_model(one.trouble, name) for one in _workers(backend))

    await _wait_until(backend, is_over, f"model {name!r} is not loaded")
    if found and not was_served:
        # Otherwise each worker that joins would try again, and nobody would hear of it.
        await asyncio.to_thread(backend.client.serve_models, (), [name])
        otherwise = f"model {name!r} can't be loaded, and is still tried"
        await _wait_until(backend, is_forgotten, otherwise)
    if found:
        raise Problem(400, f"model {name!r} can't be loaded: {'; '.join(sorted(found))}")


def _workers(backend: ClusterBackend) -> list[WorkerStatus]:
    return backend.status.workers if backend.status else []


async def _unload(backend: ClusterBackend, name: str) -> None:
    """Have the workers unload a model."""
    await asyncio.to_thread(backend.client.serve_models, (), [name])
    otherwise = f"model {name!r} is not unloaded"
    await _wait_until(backend, lambda: name not in backend.models(), otherwise)


async def _wait_until(backend: ClusterBackend, is_over: Callable[[], bool], otherwise: str) -> None:
    until_s = time.monotonic() + CHANGED_S
    while True:
        await asyncio.to_thread(backend.refresh)
        if is_over():
            return
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
