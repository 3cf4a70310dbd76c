"""JupyterLab's server as a child process: ``python -m perfkit.jupyter.server``.

It says where it listens when it does, stops when its standard input closes, and dies with its
parent. Kernels see that their server is gone and end themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.supervision.ending import die_with_parent, stop_with_parent
from cluster.transport.endpoints import VARIABLE
from perfkit.report.engine.notebook import import_jsonschema

#: Names the lab to all that it starts.
MARK = "PERFKIT_LAB"


def main(arguments: Sequence[str]) -> None:
    """Serve until standard input closes; what is not its own argument is JupyterLab's."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--mark", default="")
    parser.add_argument("--parent", type=int, required=True)
    own, rest = parser.parse_known_args(arguments)
    die_with_parent(own.parent)
    os.environ[MARK] = own.mark
    os.chdir(own.state.parent)  # the launcher takes tiles from where it is, and they may run code
    _set_environment(own.state, own.endpoint)
    import_jsonschema()
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    app = LabApp.initialize_server(argv=rest)
    stop_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    app.io_loop.add_callback(_announce, app)  # follows that which listens
    app.start()


def _announce(app: Any) -> None:
    """Print the address of a server that listens, with its token unless the user has set one."""
    access = app.identity_provider
    token = f"?token={access.token}" if access.token and access.token_generated else ""
    url = f"{app.connection_url.rstrip('/')}/lab{token}"
    print(json.dumps({"pid": os.getpid(), "url": url}), flush=True)
    os.dup2(2, 1)  # nobody reads on


def _set_environment(state: Path, endpoint: str) -> None:
    """Name what the server, its kernels and its terminals are to find."""
    for variable in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH"):
        others = [path for path in os.environ.get(variable, "").split(os.pathsep) if path]
        os.environ[variable] = os.pathsep.join([str(state), *others])
    if endpoint:
        os.environ[VARIABLE] = endpoint


if __name__ == "__main__":
    main(sys.argv[1:])
