"""What JupyterLab finds of perfkit: a tile for each notebook, a kernel, and what is left out.

All of it lies in one folder, which the server searches because ``JUPYTER_PATH`` and
``JUPYTER_CONFIG_PATH`` name it (https://docs.jupyter.org/en/latest/use/jupyter-directories.html):

    jupyter_app_launcher/jp_app_launcher.yaml   tiles (https://jupyter-app-launcher.readthedocs.io)
    kernels/python3/kernel.json                 this interpreter, whatever kernels a user has
    labconfig/page_config.json                  what JupyterLab leaves out in the browser
    jupyter_server_config.json                  settings of its server
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from perfkit.report.engine.notebook import read_notebook
from perfkit.report.engine.outcome import ReportError

CATALOG = "perfkit"
KERNEL_MANAGER = "perfkit.jupyter.kernels.LabKernelManager"
#: What each kernel loads by itself; `%load_ext perfkit` of a notebook then says and does nothing.
KERNEL_EXTENSIONS = ("perfkit.jupyter.magics",)
#: News come from another host, and no tile needs a proxy to other ports.
LEFT_OUT = ("@jupyterlab/apputils-extension:announcements", "@jupyterhub/jupyter-server-proxy")
#: A tile has room for this much of a title.
TITLE_MAX = 40
ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="32" height="32">
<rect x="2" y="2" width="28" height="28" rx="6" fill="#0072B2"/>
<text x="16" y="21.5" font-family="sans-serif" font-size="15" font-weight="bold" fill="#fff"
 text-anchor="middle">{number}</text></svg>
"""


def write_launcher(
    notebooks: Sequence[Path], folder: Path, settings: Mapping[str, Mapping[str, object]]
) -> None:
    """Write all that JupyterLab is to find for these notebooks, which lie in its root.

    `settings` are the server's, by class; the command line of JupyterLab wins over them.

    Raises OSError when a file can't be written.
    """
    tiles = folder / "jupyter_app_launcher"
    for file, content in {
        tiles / "jp_app_launcher.yaml": [_tile(path, tiles) for path in notebooks],
        folder / "kernels/python3/kernel.json": _kernel(),
        folder / "labconfig/page_config.json": {
            "disabledExtensions": dict.fromkeys(LEFT_OUT, True)
        },
        folder / "jupyter_server_config.json": {
            **settings,
            "ServerApp": {
                "jpserver_extensions": {"jupyter_server_proxy": False},
                **settings.get("ServerApp", {}),
            },
            "MultiKernelManager": {"kernel_manager_class": KERNEL_MANAGER},
        },
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1))  # JSON is YAML


def _tile(path: Path, folder: Path) -> dict[str, Any]:
    """A tile that opens the notebook of this name: its heading up to the colon, its number."""
    number, title = path.name[:2], path.stem[3:]
    with suppress(ReportError):  # the user's copy may be in any state
        title = read_notebook(path).title
    folder.mkdir(parents=True, exist_ok=True)
    icon = folder / f"{number}.svg"
    icon.write_text(ICON.format(number=number))
    opened = {"label": title, "id": "docmanager:open", "args": {"path": path.name}}
    return {
        "title": f"{number} {title.partition(':')[0][:TITLE_MAX]}",
        "description": title,
        "type": "jupyterlab-commands",
        "source": [opened],
        "icon": str(icon.absolute()),
        "catalog": CATALOG,
    }


def _kernel() -> dict[str, Any]:
    # Frozen modules make the kernel's debugger complain about itself on stderr.
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
    command += ["-f", "{connection_file}"]
    command += [f"--IPKernelApp.extra_extensions={name}" for name in KERNEL_EXTENSIONS]
    return {
        "argv": command,
        "display_name": "Python 3 (perfkit)",
        "language": "python",
        "metadata": {"debugger": True},
        "env": {"PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    }
