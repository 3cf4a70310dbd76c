"""snakeviz's page of one saved profile, served on this machine.

snakeviz's own command serves every folder and file that its user can read, to every user of the
machine and with Tornado's debug mode on. So only its page and its reading of a profile are used
here (`snakeviz.main`), for one file.
"""

from __future__ import annotations

import asyncio
import webbrowser
from pathlib import Path
from threading import Thread
from typing import Any

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.terminal.output import note, out

LOOPBACK = "127.0.0.1"
#: Other names in a request's Host field are refused: a page elsewhere may have its name point here.
HOSTS = r"(127\.0\.0\.1|localhost)"


def serve(profile: Path, port: int, *, opens: bool) -> None:
    """Serve the page of a profile until Ctrl-C; `port` 0 is any free one.

    Raises ClusterError if snakeviz is missing or the port is taken.
    """
    try:
        from tornado.httpserver import HTTPServer
        from tornado.netutil import bind_sockets

        application = _application(profile)
    except ImportError as error:
        raise ClusterError(
            f"this needs snakeviz, which cannot be imported ({error}): pip install 'perfkit[lab]'"
        ) from None
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except OSError as error:
        raise ClusterError(f"port {port} can't be used: {error.strerror}") from None

    async def run() -> None:
        server = HTTPServer(application)
        server.add_sockets(sockets)
        url = f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}/"
        out().print(url, markup=False)
        note("Ctrl-C ends it.")
        if opens:
            Thread(target=_open, args=(url,), daemon=True).start()
        await asyncio.Event().wait()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        note("ended")


def _application(profile: Path) -> Any:
    from snakeviz.main import VizHandler, settings
    from tornado.web import Application

    class OneProfile(VizHandler):  # type: ignore[misc]
        """The page of the one profile."""

        def get(self) -> None:
            super().get(str(profile))

    application = Application([], **{**settings, "debug": False})
    application.add_handlers(HOSTS, [("/", OneProfile)])
    return application


def _open(url: str) -> None:
    if not webbrowser.open(url, new=2):
        note("no browser was found: open the address yourself")
