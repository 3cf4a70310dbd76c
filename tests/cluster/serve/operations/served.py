"""The real application behind a real server in a thread of the test's process, and its client."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import uvicorn

from cluster.serve.app import make_app
from cluster.serve.http.connection import Connection
from cluster.serve.state import State

DEADLINE_S = 30.0


class Site:
    """An API at ``url``, over ``state``."""

    def __init__(self, url: str, state: State | None = None) -> None:
        self.url = url
        self.state = state

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        token: str | None = None,
        **headers: str,
    ) -> SimpleNamespace:
        """An answer's status, headers, text, and json if it is some. ``body`` is JSON or bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, headers, method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            answer = urlopen(request, timeout=DEADLINE_S)
        except HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        is_json = answer.headers.get_content_type() == "application/json"
        return SimpleNamespace(
            status=answer.status,
            headers=answer.headers,
            text=text,
            json=json.loads(text) if is_json else None,
        )

    def infer(self, model: str = "digits", columns: int = 64, rows: int = 2) -> SimpleNamespace:
        """The answer to an inference request for digits."""
        data = [0.0] * (rows * columns)
        tensor = {"name": "pixels", "shape": [rows, columns], "datatype": "FP32", "data": data}
        return self.ask(f"/v2/models/{model}/infer", {"inputs": [tensor]})


@contextlib.contextmanager
def served(state: State) -> Iterator[Site]:
    """Serve the application until the block ends."""
    config = uvicorn.Config(
        make_app(state),
        interface="asgi3",
        http=Connection,
        loop="uvloop",
        log_level="warning",
        lifespan="off",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="api")
        thread.start()
        try:
            yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", state)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
