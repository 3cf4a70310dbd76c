"""``python -m perfkit`` is the command ``perfkit``, for places where that is not on the path."""

from perfkit.cli import app

if __name__ == "__main__":
    app(prog_name="perfkit")
