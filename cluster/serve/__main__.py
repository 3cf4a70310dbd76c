"""The API as a process of its own: ``python -m cluster.serve --endpoint tcp://127.0.0.1:5555``.

It prints one line of JSON when it listens. SIGTERM, SIGINT or the end of standard input stop it:
what is open is finished, what comes meanwhile gets 503. With ``--alone``, for a service manager,
only signals do. With ``--parent FD`` it dies at once when the pipe at that descriptor closes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cluster.serve.app import make_app
from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.backends.protocol import Backend
from cluster.serve.http.binding import check_access, listen, read_bind, url_of
from cluster.serve.http.connection import Connection
from cluster.serve.http.server import ApiServer
from cluster.serve.http.tokens import Tokens
from cluster.serve.state import Settings, State
from cluster.shells.client import Client
from cluster.shells.malloc_trim import reexec_with_one_heap
from cluster.spec import decode_spec, load_part
from cluster.supervision.ending import die_with_parent, stop_with_parent
from cluster.vocabulary.errors import ClusterError

#: A collection looks at this many new objects. Everybody waits for it, about a millisecond.
YOUNG_OBJECTS = 2_000
#: how long a thread that reads a large request keeps the loop, and all others, from going on
SWITCH_S = 0.0001


def warn(text: str) -> None:
    """Tell the operator."""
    print(f"serve: {text}", file=sys.stderr)


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call a function in the loop, from another thread."""
    loop.call_soon_threadsafe(call)


def make_backend(options: argparse.Namespace) -> tuple[Backend, Client | None]:
    """What runs the tasks, and the client if it is a cluster."""
    if options.engine is not None:
        backend: Backend = load_part(options.engine)(**json.loads(options.engine_options))
        return backend, None
    spec = decode_spec(options.spec) if options.spec else None
    client = Client(options.endpoint, spec=spec)
    return ClusterBackend(client), client


def serve(options: argparse.Namespace) -> None:
    """Serve until told to stop; raises ClusterError if it can't begin."""
    host, port = read_bind(options.bind)
    tokens = Tokens(options.tokens) if options.tokens else None
    check_access(host, tokens, options.cert, options.key, warn)
    settings = Settings(
        connections=options.connections,
        timeout_s=options.timeout,
        rate_per_s=options.rate,
        burst=options.burst,
        header_s=options.header_deadline,
        body_s=options.body_deadline,
        body_bytes=options.body_mib << 20,
    )
    listener = listen(host, port)
    with listener:
        backend, client = make_backend(options)
        state = State(backend, client, settings, tokens)
        Connection.header_s = settings.header_s
        Connection.body_s = settings.body_s
        Connection.connections_max = settings.connections
        url = url_of(host, listener.getsockname()[1], is_tls=options.cert is not None)

        def ready() -> None:
            if not options.alone:
                loop = asyncio.get_running_loop()
                stop_with_parent(partial(call_in, loop, server.stop))
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG_OBJECTS)
            sys.setswitchinterval(SWITCH_S)
            print(json.dumps({"pid": os.getpid(), "url": url}), flush=True)

        def stopping() -> None:
            state.stopping = True

        server = ApiServer(
            make_app(state),
            idle_s=settings.idle_s,
            drain_s=options.drain,
            certfile=options.cert,
            keyfile=options.key,
            on_ready=ready,
            on_stopping=stopping,
        )
        try:
            server.run(sockets=[listener])
        finally:
            backend.close()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m cluster.serve", description=__doc__)
    parser.add_argument("--endpoint", help="where the cluster's coordinator listens")
    parser.add_argument("--spec", help="the cluster's spec as JSON (default: the coordinator's)")
    parser.add_argument("--engine", help="module:attribute of what makes a backend instead")
    parser.add_argument(
        "--engine-options", default="{}", help="what that is called with by name, as JSON"
    )
    parser.add_argument("--bind", default="127.0.0.1:8000", help="HOST:PORT to listen at")
    parser.add_argument("--tokens", type=Path, help="file of tokens; without one, anybody may ask")
    parser.add_argument("--cert", help="TLS: the certificate's file")
    parser.add_argument("--key", help="TLS: the file of its key")
    numbers: dict[str, tuple[float, str]] = {
        "rate": (settings.rate_per_s, "requests a second of a client; 0: any"),
        "burst": (settings.burst, "requests of a client that may come at once"),
        "connections": (settings.connections, "connections at once"),
        "timeout": (settings.timeout_s, "seconds for a request that names no timeout"),
        "header-deadline": (settings.header_s, "seconds in which a request's headers must come"),
        "body-deadline": (settings.body_s, "seconds in which a request's body must come"),
        "body-mib": (settings.body_bytes >> 20, "MiB of a request's body"),
        "drain": (30.0, "seconds in which open requests may end when told to stop"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    parser.add_argument("--alone", action="store_true", help="ignore the end of standard input")
    parser.add_argument("--parent", type=int, metavar="FD", help="die when this pipe closes")
    options = parser.parse_args(argv)
    if (options.endpoint is None) == (options.engine is None):
        parser.error("give either --endpoint or --engine")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the API; returns the exit code: 2 if it can't begin."""
    options = parse(argv)
    if argv is None and options.engine is None:  # an engine's processes would inherit that
        reexec_with_one_heap()
    if options.parent is not None:
        die_with_parent(options.parent)
    try:
        serve(options)
    except ClusterError as error:
        warn(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
