"""``python -m perfkit`` is the command ``perfkit``, for places where that is not on the path.

Python puts the working folder first on the path, where a ``cluster.py`` or ``numpy.py`` would be
imported instead of what is installed; so it is taken away, unless this package lies there.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not sys.flags.safe_path and Path(sys.path[0]) != Path(__file__).parents[1]:
        del sys.path[0]
    from perfkit.cli import app

    app(prog_name="perfkit")
