"""The peers' virtual environments: one each, in the user's cache, made when they are asked for.

A peer and its dozens of packages must not touch this environment, and their pins exclude each
other's. Every one has the ONNX Runtime of this environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cluster.models.runtime.cache import default_folder
from cluster.vocabulary.errors import did_you_mean
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say

#: The peers, and the package of each.
PACKAGES = {
    "pytriton": "nvidia-pytriton",
    "rayserve": "ray[serve]",
    "litserve": "litserve",
    "mlserver": "mlserver",
    "bentoml": "bentoml",
}
#: Words for more than one peer.
ALL, INSTALLED, NONE = "all", "installed", "none"
INSTALL_S = 900.0
#: Written when an environment is whole.
READY = "perfkit-ready"


class PeerMissing(ExperimentError):
    """A peer that can't be measured here; the message is the reason."""


def chosen_peers(text: str) -> tuple[Sequence[str], bool]:
    """The peers that an option names, and whether missing ones are to be installed.

    Raises ExperimentError for a name that is not a peer's.
    """
    if text == NONE:
        return (), False
    if text in (ALL, INSTALLED):
        return tuple(PACKAGES), text == ALL
    names = [name.strip() for name in text.split(",") if name.strip()]
    words = [*PACKAGES, ALL, INSTALLED, NONE]
    for name in names:
        if name not in PACKAGES:
            hint = did_you_mean(name, words) or f"; take {', '.join(words)}"
            raise ExperimentError(f"there is no peer {name!r}{hint}")
    return tuple(names), True


def folder_of(peer: str) -> Path:
    """Where a peer's environment is, or would be."""
    root = os.environ.get("PERFKIT_PEERS")
    return (Path(root) if root else default_folder() / "peers") / peer


def python_of(peer: str, install: bool, say: Say) -> Path:
    """The interpreter of a peer's environment, made now if `install`.

    Raises PeerMissing, with pip's reason, if there is none.
    """
    folder = folder_of(peer)
    python = folder / "bin" / "python"
    if (folder / READY).exists():
        return python
    if not install:
        raise PeerMissing(f"not installed; --peers {peer} installs it into {folder}")
    say(f"installing {PACKAGES[peer]} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    wanted = [PACKAGES[peer], "tokenizers", f"onnxruntime=={version('onnxruntime')}", "numpy"]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        folder.mkdir(parents=True)
        _run([sys.executable, "-m", "venv", str(folder)], peer)
        _run([*pip, *wanted], peer)
        (folder / READY).write_text("\n".join(wanted))
    except (OSError, PeerMissing) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PeerMissing(str(error)) from error
    return python


def _run(command: Sequence[str], peer: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"installing took longer than {INSTALL_S:.0f} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        reason = (errors or done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise PeerMissing(f"pip could not install {PACKAGES[peer]}: {reason}")
