"""``/v1/embeddings`` and ``/v1/models`` as OpenAI's clients use them.

The API is https://platform.openai.com/docs/api-reference/embeddings. Models of kind text-embedding
serve it, and any with one BYTES input that answers with rows of floats. A vector is as long as the
model makes it: ``dimensions`` may only repeat that length, as cutting a vector that was not trained
for it would spoil it. ``usage`` counts the tokens that a text-embedding model read; it is 0 for
other models, which do not tell.
"""

from __future__ import annotations

import struct
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cluster.models.frames.tensor import TensorError
from cluster.models.frames.tensors import (
    COUNTED,
    Port,
    Tensor,
    decode_tensors,
    encode_tensors,
    join_bytes,
)
from cluster.serve.admission import Ticket
from cluster.serve.catalogue import Description
from cluster.serve.handling import JSON, Answer, Call, may_come
from cluster.serve.http.bodies import Buffer
from cluster.serve.http.problems import Problem
from cluster.serve.http.tokens import Role
from cluster.serve.state import State
from cluster.serve.values import least_texts
from cluster.vocabulary.task import Priority

#: OpenAI's own bound
INPUTS_MAX = 2_048
#: 8 KiB for each text
JSON_BYTES_MAX = 16 << 20
FLOAT_BYTES = 4


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """A request. ``user`` and fields that are not named here are ignored."""

    input: msgspec.Raw
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


_DECODER = msgspec.json.Decoder(EmbeddingRequest)
_TEXTS = msgspec.json.Decoder(str | list[str])


def words(problem: Problem) -> dict[str, Any]:
    """An error as OpenAI shows it."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        problem.status, "invalid_request_error" if problem.status < 500 else "server_error"
    )
    return {
        "error": {
            "message": problem.message,
            "type": kind,
            "param": problem.param,
            "code": problem.code,
        }
    }


async def embed(call: Call, body: Buffer) -> Answer:
    """The answer to a request for embeddings."""
    state = call.state
    request, texts = await call.read(read_request, body)
    model = await state.catalogue.describe(request.model)
    call.model, call.version, call.items = model.name, model.version, len(texts)
    payload_of, vector_of = ways_of(model)
    wanted = request.dimensions
    widths = {port.shape[-1] for port in model.outputs if port.shape}
    if wanted is not None and wanted not in widths and -1 not in widths:
        raise _other_width(model, max(widths))
    tickets: list[Ticket] = []
    try:
        for text in texts:
            ticket = state.dispatcher.submit(
                request.model,
                payload_of(text),
                client=call.client,
                priority=Priority.NORMAL,
                timeout_s=state.settings.timeout_s,
            )
            tickets.append(ticket)
    except Problem:
        for ticket in tickets:
            state.dispatcher.drop(ticket)
        raise
    vectors, tokens = [], 0
    for result in await call.results(tickets):
        try:
            vector, count = vector_of(result)
        except (TensorError, ValueError, struct.error) as error:
            raise Problem(500, f"model {model.name!r} answered without a vector: {error}") from None
        if wanted is not None and len(vector) != wanted * FLOAT_BYTES:
            raise _other_width(model, len(vector) // FLOAT_BYTES)
        vectors.append(vector)
        tokens += count
    return _write(vectors, tokens, request)


def _other_width(model: Description, width: int) -> Problem:
    text = f"model {model.name!r} makes vectors of {width} numbers, and no shorter ones"
    return Problem(400, text, param="dimensions")


def read_request(body: Buffer) -> tuple[EmbeddingRequest, list[bytes]]:
    """A request and its texts. Problem 400 that says what is wrong with it."""
    if len(body) > JSON_BYTES_MAX:
        raise Problem(413, f"the request is over {JSON_BYTES_MAX >> 20} MiB: send several")
    field = ""
    try:
        request = _DECODER.decode(body)
        field = "input"
        least = least_texts(bytes(request.input))
        given = _TEXTS.decode(request.input) if least <= INPUTS_MAX else [""] * least
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _no_request(str(error), field) from None
    texts = [given] if isinstance(given, str) else given
    if not 1 <= len(texts) <= INPUTS_MAX:
        raise Problem(
            400, f"input is a list of {len(texts)}, not a text or 1 to {INPUTS_MAX} texts",
            param="input",
        )  # fmt: skip
    if "" in texts:
        param = f"input[{texts.index('')}]"
        raise Problem(400, f"{param} is an empty text", param=param)
    return request, [one.encode() for one in texts]


def _no_request(error: str, field: str) -> Problem:
    """What a decoder's error in a field means; ``field`` is "" in the request as a whole."""
    words, _, place = error.partition(" - at `$")
    param = (field + place.rstrip("`")).removeprefix(".")
    if not param:
        return Problem(400, f"the body is no request for embeddings: {error}")
    if param.startswith("input[") and words.endswith(("`int`", "`array`")):
        return Problem(
            400, "input holds tokens: the models here have tokenizers of their own, so send texts "
                 "(LangChain: check_embedding_ctx_length=False)", param="input",
        )  # fmt: skip
    return Problem(400, f"{param} can't be read: {words}", param=param)


def ways_of(
    model: Description,
) -> tuple[Callable[[bytes], bytes], Callable[[bytes], tuple[Buffer, int]]]:
    """How a model is asked for a text's vector, and how its answer is read: float32, and how many
    tokens the text had, 0 if that is unknown.

    Raises:
        Problem: 400 for a model that makes no vectors of texts.
    """
    if model.kind == "text-embedding":
        return COUNTED.__add__, _counted_vector
    vectors = [p for p in model.outputs if p.datatype in ("FP32", "FP16") and len(p.shape) > 1]
    if [port.datatype for port in model.inputs] != ["BYTES"] or not vectors:
        raise Problem(
            400, f"model {model.name!r} does not turn texts into vectors", param="model",
            code="model_not_supported",
        )  # fmt: skip
    taken, made = model.inputs[0], vectors[0].name

    def payload_of(text: bytes) -> bytes:
        port = Port(taken.name, "BYTES", (1,) * len(taken.shape))
        return encode_tensors([Tensor(port, join_bytes([text]))], [made])

    def vector_of(result: bytes) -> tuple[Buffer, int]:
        (found,) = decode_tensors(result).tensors
        if found.port.datatype == "FP32":
            return found.data, 0
        count = len(found.data) // 2
        return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", found.data)), 0

    return payload_of, vector_of


def _counted_vector(result: bytes) -> tuple[Buffer, int]:
    vector, tokens = decode_tensors(result).tensors
    return vector.data, int.from_bytes(tokens.data, "little")


def _write(vectors: list[Buffer], tokens: int, request: EmbeddingRequest) -> Answer:
    is_text = request.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": b64encode(vector).decode() if is_text else array("f", vector).tolist(),
        }
        for index, vector in enumerate(map(bytes, vectors))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return [JSON], [msgspec.json.encode(answer)]


def routes(state: State) -> list[BaseRoute]:
    """The list of models; ``/v1/embeddings`` itself is routed by hand."""

    def shown(name: str) -> dict[str, Any]:
        created = round(state.started_at)
        return {"id": name, "object": "model", "created": created, "owned_by": "perfkit"}

    async def models(request: Request) -> Response:
        may_come(state, request.scope, Role.READ)
        return _json({"object": "list", "data": [shown(n) for n in state.catalogue.names()]})

    async def model(request: Request) -> Response:
        may_come(state, request.scope, Role.READ)
        name = request.path_params["name"]
        state.catalogue.kind(name)
        return _json(shown(name))

    return [Route("/v1/models", models), Route("/v1/models/{name:path}", model)]


def _json(found: object) -> Response:
    return Response(msgspec.json.encode(found), media_type="application/json")
