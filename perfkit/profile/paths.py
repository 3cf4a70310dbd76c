"""Source files as their packages see them, so that no report shows where a machine keeps them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import PurePath

#: Below such a folder the rest of a path names a module.
_LIBRARY_FOLDER = re.compile(r"site-packages|dist-packages|python3\.\d+t?")
#: Shown in place of the file of what a cell defines.
CELL = "<notebook cell>"


def short_path(filename: str) -> str:
    """A source file as its package sees it, `asyncio/events.py` for one.

    The longest entry of `sys.path` above the file is cut off. A path from another machine is cut
    behind its library folder, any other absolute path down to the file's name. Names that are not
    paths, such as `<string>`, stay; a cell of a notebook is `<notebook cell>`.
    """
    if filename.startswith("<ipython-input-"):
        return CELL
    if filename.startswith("<"):
        return filename
    path = PurePath(filename)
    if path.parent.name.startswith("ipykernel_"):
        return CELL
    if not path.is_absolute():
        return path.name if ".." in path.parts else path.as_posix()
    roots = {PurePath(os.path.abspath(entry)) for entry in sys.path}
    depth = max((len(root.parts) for root in roots if root in path.parents), default=1)
    if depth > 1:
        return PurePath(*path.parts[depth:]).as_posix()
    for index in range(len(path.parts) - 2, 0, -1):
        if _LIBRARY_FOLDER.fullmatch(path.parts[index]):
            return PurePath(*path.parts[index + 1 :]).as_posix()
    return path.name
