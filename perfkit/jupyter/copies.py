"""A copy of the notebooks for a user to change, kept up to date without touching those changes.

The hidden folder `STATE` in the copy remembers what was copied, by a digest of cells and outputs;
opening a notebook changes its metadata, which do not count. A copy that still has that digest
follows its original. Any other is the user's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.vocabulary.errors import ClusterError

#: What the lab keeps beside the notebooks; JupyterLab hides it.
STATE = ".perfkit"
COPIED = "copied.json"


class LabError(ClusterError):
    """Why JupyterLab could not start, in one sentence that says what to change."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What `copy_notebooks` did, by file names.

    `kept` were changed by the user and left alone; the originals of `outdated` have changed too.
    """

    fresh: tuple[str, ...]
    kept: tuple[str, ...]
    outdated: tuple[str, ...]


def copy_notebooks(originals: Sequence[Path], folder: Path) -> Copied:
    """Bring the copies in `folder` up to date, and make what is missing, the folder too.

    Raises LabError when the folder can't be written, or is no folder.
    """
    try:
        state = folder / STATE
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)  # the server's log names its token
        before = _read(state / COPIED)
        after, fresh, kept, outdated = dict(before), [], [], []
        for original in originals:
            digest, copy = _digest(original.resolve()) or "", folder / original.name
            there = _digest(copy)
            if there not in (None, digest, before.get(original.name)):
                kept.append(original.name)
                outdated += [original.name] if before.get(original.name) != digest else []
                continue
            if there != digest:
                _write(copy, original.read_bytes())
                fresh.append(original.name)
            after[original.name] = digest
        _write(state / COPIED, json.dumps(after, indent=1).encode())
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise LabError(f"can't keep notebooks in {folder} ({what}); name another --dir") from None
    return Copied(tuple(fresh), tuple(kept), tuple(outdated))


def _digest(notebook: Path) -> str | None:
    """The SHA-256 of a notebook's cells and outputs, or of the whole file if it is not a notebook.
    None if there is no such file, "" if it is a link or a folder.
    """
    if not notebook.is_file() or notebook.is_symlink():
        return "" if os.path.lexists(notebook) else None
    content = notebook.read_bytes()
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        parts = [
            (
                cell["cell_type"],
                "".join(cell["source"]),
                cell.get("outputs"),
                cell["metadata"].get("tags"),
            )
            for cell in json.loads(content)["cells"]
        ]
        content = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _read(file: Path) -> dict[str, str]:
    """What was copied at last; nothing if that is not known, so that every copy is kept."""
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _write(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
