"""JupyterLab on a copy of the notebooks, with all that it starts: kernels, terminals, their work.

The server leads a session of its own, so a Ctrl-C in the terminal reaches this process alone, which
then ends the others in order.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from cluster.supervision.children import Process
from cluster.vocabulary.errors import ClusterError
from perfkit.jupyter.copies import STATE, LabError
from perfkit.jupyter.launcher import write_launcher
from perfkit.jupyter.leftovers import kill, marked, offspring
from perfkit.jupyter.server import MARK

READY_S = 120.0
#: Kernels get 5 s from their server to end a cell, and some more to end what that started.
STOP_S = 20.0
NEEDS = ("jupyterlab", "ipykernel", "jupyter_app_launcher")


class LabServer:
    """JupyterLab's server while a with block lasts, its root in `folder`, at `url`.

    `port` None takes the first free one from 8888 on, 0 any. `endpoint` is the cluster that its
    kernels find. `options` are handed on to ``jupyter lab``, and win.

    Raises LabError, with the last line of its log, if it does not come up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        browser: bool = True,
        endpoint: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._state = folder.absolute() / STATE
        self._mark = secrets.token_hex(8)
        self._flags = ["--state", str(self._state), "--endpoint", endpoint, "--mark", self._mark]
        self._flags += options
        server = {"root_dir": str(folder.absolute()), "open_browser": browser}
        server["allow_root"] = os.geteuid() == 0  # as in a container
        if port is not None:
            server |= {"port": port, "port_retries": 0}
        workspaces = str(self._state / "workspaces")
        self._settings = {
            "ServerApp": server,
            "LabApp": {"open_browser": browser, "workspaces_dir": workspaces},
        }
        self._process: Process | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started().pid

    @property
    def log(self) -> Path:
        """The file with what the server and its kernels write to standard error."""
        return self._state / "lab.log"

    def __enter__(self) -> Self:
        notebooks = sorted(self._folder.glob("0*.ipynb"))
        try:
            write_launcher(notebooks, self._state, self._settings)
            self._process = Process(
                "lab", "perfkit.jupyter.server", self._flags, self._state, guarded=True
            )
        except OSError as error:
            raise LabError(f"can't write {error.filename}: {error.strerror}") from None
        try:
            self.url = self._process.announcement(time.monotonic() + READY_S)["url"]
        except BaseException as error:
            self._process.stop(time.monotonic())
            if not isinstance(error, ClusterError):
                raise
            *_, reason = ["no word of why", *self.last_words().split("\n")]
            raise LabError(f"JupyterLab did not start: {reason} (more in {self.log})") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def exit_code(self) -> int | None:
        """How the server has ended by itself, as from JupyterLab's menu; None while it runs."""
        return self._started().poll()

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        return self._started().last_words()

    def stop(self) -> None:
        """End the server, which ends its kernels and terminals, and then what these have left."""
        process = self._started()
        descendants = offspring(process.pid)
        process.stop(time.monotonic() + STOP_S)
        kill([*descendants, *marked(MARK, self._mark)])

    def _started(self) -> Process:
        assert self._process is not None
        return self._process


def missing() -> list[str]:
    """The packages that JupyterLab needs here and that are not installed."""
    return [name for name in NEEDS if find_spec(name) is None]


def check_port(port: int | None) -> None:
    """Raise LabError if another program listens at this port of the loopback."""
    if port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    reason = "is taken: is another JupyterLab up?"
                else:
                    reason = f"can't be used ({error.strerror})"
                raise LabError(f"port {port} {reason} --port 0 takes any free one") from None
