"""The bare server: one uvicorn process (httptools, uvloop), raw ASGI, and ONNX Runtime.

``python -m perfkit.bench.serving.bare_server``. It is what a competent engineer writes for one
model and nothing else: no checks, no limits, no metrics, no other model. It is the limit that the
API is compared with, so it is written to win. Requests run in one thread beside the loop, as soon
as it is free, with all that wait by then (`--batch-max`), or one by one (`--batch-max 1`).
"""

from __future__ import annotations

import asyncio
import socket
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from cluster.process import announce
from cluster.supervision.ending import stop_with_parent
from perfkit.bench.serving.material import NUMPY_TYPES, OIP_TYPES, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


class Port(msgspec.Struct):
    """A tensor of the Open Inference Protocol in JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Inference(msgspec.Struct):
    """A request of the Open Inference Protocol, and an answer."""

    inputs: list[Port]


class Answer(msgspec.Struct):
    """An answer of the Open Inference Protocol."""

    model_name: str
    outputs: list[Port]


class Text(msgspec.Struct):
    """A request of an OpenAI client with one text."""

    input: str


class Embedding(msgspec.Struct):
    """One vector of an answer to an OpenAI client."""

    embedding: list[float]
    index: int = 0
    object: str = "embedding"


class Embeddings(msgspec.Struct):
    """An answer to an OpenAI client."""

    data: list[Embedding]
    model: str
    object: str = "list"
    usage: dict[str, int] = {}


class Batcher:
    """Runs rows in one thread: all that wait when it gets free, at most `batch_max`."""

    def __init__(self, run: Callable[[list[Any]], NDArray[Any]], batch_max: int) -> None:
        self._run, self._batch_max = run, batch_max
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._busy = False

    async def answer(self, row: Any) -> Any:
        """The model's answer to one row."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((row, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next, loop)  # after the other requests that are here already
        return await future

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            self._busy = False
            return
        count = min(self._batch_max, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        running = self._thread.submit(self._run, [row for row, _ in batch])
        running.add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._finish, loop, batch, done)
        )

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Any, asyncio.Future[Any]]],
        done: Future[NDArray[Any]],
    ) -> None:
        self._next(loop)  # the thread goes on while the answers are written
        error = done.exception()
        for number, (_, future) in enumerate(batch):
            if future.cancelled():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[number])


class Application:
    """The ASGI application for one model."""

    def __init__(self, options: Namespace) -> None:
        session = open_session(options.model, options.threads)
        self._name = options.name
        self._session = session
        self._inputs = [(port.name, NUMPY_TYPES[port.type]) for port in session.get_inputs()]
        self._output = session.get_outputs()[-1].name
        self._tokenizer = None
        if options.tokenizer is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(options.tokenizer))
            self._tokenizer.no_padding()
        self._batcher = Batcher(self._run, options.batch_max)
        self._inference = msgspec.json.Decoder(Inference).decode
        self._text = msgspec.json.Decoder(Text).decode
        self._encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request to either path."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            status, answer = 200, await self._answer(scope["path"], body)
        except msgspec.DecodeError as error:
            status, answer = 400, self._encode({"error": str(error)})
        length = b"%d" % len(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, path: str, body: bytes) -> bytes:
        if path.startswith("/v1"):
            assert self._tokenizer is not None
            ids = self._tokenizer.encode(self._text(body).input).ids
            vector = await self._batcher.answer(ids)
            return self._encode(Embeddings([Embedding(vector.tolist())], self._name))
        port = self._inference(body).inputs[0]
        row = await self._batcher.answer(port.data)
        kind = OIP_TYPES[str(row.dtype)]
        output = Port(self._output, kind, [1, len(row)], row.tolist())
        return self._encode(Answer(self._name, [output]))

    def _run(self, rows: list[Any]) -> NDArray[Any]:
        import numpy as np

        (name, dtype), *masks = self._inputs
        longest = max(map(len, rows))
        if masks and any(len(row) < longest for row in rows):
            rows = [row + [0] * (longest - len(row)) for row in rows]
        first = np.array(rows, dtype)
        feed = {name: first, **{mask: (first != 0).astype(kind) for mask, kind in masks}}
        found: NDArray[Any] = self._session.run([self._output], feed)[0]
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the standard input ends."""
    import uvicorn

    parser = ArgumentParser(description="serve one model with as little as possible")
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-max", type=int, default=64)
    application = Application(parser.parse_args(arguments))
    config = uvicorn.Config(
        application, http="httptools", loop="uvloop", ws="none", lifespan="off",
        log_level="warning", access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    announce(port=listening.getsockname()[1])
    stop_with_parent(lambda: setattr(server, "should_exit", True))
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
