"""The Open Inference Protocol V2 over HTTP, with the extensions of Triton that work here.

https://github.com/kserve/open-inference-protocol has the protocol, and
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/README.html
the extensions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cluster.models.frames.metadata import TensorMetadata
from cluster.serve.catalogue import Description
from cluster.serve.handling import Answer, Call, may_come
from cluster.serve.http.bodies import INLINE_BYTES, Buffer
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.infer import HEADER_LENGTH, priority_of, read_request, write_answer
from cluster.serve.state import State

#: what works with any backend; a cluster can load and unload models too
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "schedule_policy",
    "statistics",
)
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def words(problem: Problem) -> dict[str, str]:
    """An error as the protocol shows it."""
    return {"error": problem.message}


@lru_cache(maxsize=64)
def infer_of(name: str, version: str | None) -> Callable[[Call, Buffer], Awaitable[Answer]]:
    """What answers an inference request for a model."""

    async def infer(call: Call, body: Buffer) -> Answer:
        state = call.state
        kind = state.catalogue.kind(name, version)
        model = state.catalogue.known(kind)
        call.model, call.version = name, model.version if model else version or ""
        length = call.headers.get(HEADER_LENGTH)
        if len(body) <= INLINE_BYTES:
            asked = read_request(body, length, model)
        else:
            asked = await call.read(read_request, body, length, model)
        timeout_us = asked.parameters.timeout
        timeout_s = timeout_us / 1e6 if timeout_us else state.settings.timeout_s
        if model is None:
            model = await state.catalogue.describe(name, version, timeout_s)
            call.version = model.version
        call.items = asked.rows if model.batches else 1
        ticket = state.dispatcher.submit(
            kind,
            asked.frame,
            client=call.client,
            priority=priority_of(asked.parameters),
            timeout_s=timeout_s,
        )
        (result,) = await call.results([ticket])
        if len(result) <= INLINE_BYTES:
            return write_answer(result, asked, model)
        return await call.read(write_answer, result, asked, model)

    return infer


def routes(state: State) -> list[BaseRoute]:
    """Everything of the protocol but inference, which `cluster.serve.app` routes by hand."""
    return [
        Route("/v2", guarded(state, _server), name="server"),
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready_of(state)),
        Route("/v2/models", guarded(state, _names)),
        Route("/v2/models/stats", guarded(state, _statistics)),
        *(
            Route(f"/v2/models/{{name}}{versions}{path}", guarded(state, answer_it))
            for versions in ("", "/versions/{version}")
            for path, answer_it in (
                ("", _metadata),
                ("/ready", _model_ready),
                ("/config", _config),
                ("/stats", _statistics),
            )
        ),
    ]


def guarded(
    state: State, answer_it: Callable[[State, Request], Awaitable[Any]], role: Role = Role.READ
) -> Handler:
    """A handler for whom the role allows it, whose result is the answer as plain data."""

    async def handler(request: Request) -> Response:
        may_come(state, request.scope, role)
        found = await answer_it(state, request)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return handler


def _ready_of(state: State) -> Handler:
    async def ready(request: Request) -> Response:
        is_ready = state.backend.ready() and not state.stopping
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    return ready


async def _live(request: Request) -> Response:
    return JSONResponse({"live": True})


async def _server(state: State, request: Request) -> dict[str, Any]:
    try:
        own = version("perfkit")
    except PackageNotFoundError:
        own = "unknown"
    extensions = [*EXTENSIONS, *(["model_repository"] if state.client else [])]
    return {"name": "perfkit", "version": own, "extensions": sorted(extensions)}


async def _names(state: State, request: Request) -> dict[str, Any]:
    return {"models": state.catalogue.names()}


async def _described(state: State, request: Request) -> Description:
    path = request.path_params
    return await state.catalogue.describe(path["name"], path.get("version"))


async def _metadata(state: State, request: Request) -> dict[str, Any]:
    model = await _described(state, request)
    return {
        "name": model.name,
        "versions": state.catalogue.versions(model.name) or [model.version],
        "platform": model.platform,
        "inputs": model.inputs,
        "outputs": model.outputs,
    }


async def _model_ready(state: State, request: Request) -> dict[str, Any]:
    name, wanted = request.path_params["name"], request.path_params.get("version")
    state.catalogue.kind(name, wanted)
    if not state.backend.ready():
        raise Problem(503, f"no worker for model {name!r} can be reached now", retry_after_s=1.0)
    return {"name": name, "ready": True}


async def _config(state: State, request: Request) -> dict[str, Any]:
    """The model's configuration in the words of Triton's ``model_config.proto``."""
    model = await _described(state, request)

    def shown(port: TensorMetadata) -> dict[str, Any]:
        kind = "TYPE_STRING" if port.datatype == "BYTES" else f"TYPE_{port.datatype}"
        dims = port.shape[1:] if model.batches else port.shape
        return {"name": port.name, "data_type": kind, "dims": dims}

    return {
        "name": model.name,
        "platform": model.platform,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": list(map(int, model.versions))}},
        "max_batch_size": model.batch_items_max if model.batches else 0,
        "input": [shown(port) for port in model.inputs],
        "output": [shown(port) for port in model.outputs],
    }


async def _statistics(state: State, request: Request) -> dict[str, Any]:
    path = request.path_params
    names = [path["name"]] if "name" in path else state.catalogue.names()
    found, told = [], state.backend.batches()
    for name in names:
        versions = state.catalogue.versions(name) or ["1"]
        known = state.catalogue.known(name)
        default = known.version if known is not None else versions[-1]
        if (wanted := path.get("version")) is not None:
            versions = [wanted]
        for one in versions:
            kinds = {state.catalogue.kind(name, one), *([name] if one == default else [])}
            own = None if told is None else [some for some in told if some.kind in kinds]
            found.append(state.statistics.shown(name, one, own))
    return {"model_stats": found}
