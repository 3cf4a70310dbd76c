"""Files that are written whole or not at all, so that no reader sees half of one."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(target: Path, data: bytes) -> None:
    """Put `data` in a file, in place of the one that is there; raises OSError.

    A pipe or a device is written to and stays what it is.
    """
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    # Beside the target, because a rename is atomic only within one file system.
    draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
