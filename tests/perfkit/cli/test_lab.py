"""``perfkit lab`` on the command line: what it refuses before anything is started or written."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from perfkit.cli.report import own_notebooks

Call = Callable[..., Result]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--dir", own_notebooks()[0].parent], 2, "belongs to perfkit itself"),
        (["--dir", own_notebooks()[0].parent / "mine"], 2, "belongs to perfkit itself"),
        (["--dir", "file"], 2, "file is not a folder"),
        (["--dir", "file/mine"], 1, "can't keep notebooks in file/mine"),
        (["--workers", "-1"], 2, "--workers: expected int >= 0"),
        (["--spec", "optimised"], 2, "optimized"),
        (["--model", "nothing"], 2, "nothing"),
    ],
)
def test_a_wrong_argument_is_one_line_and_starts_nothing(
    perfkit: Call, tmp_path: Path, flags: list[object], code: int, said: str
) -> None:
    (tmp_path / "file").touch()
    ended = perfkit("lab", *flags)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_port_in_use_is_refused_before_anything_is_written(perfkit: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = perfkit("lab", "--port", port)
    assert ended.exit_code == 1
    assert f"port {port} is taken" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_jupyterlab_it_names_the_extra(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.jupyter.lab.NEEDS", ("jupyterlab", "not_installed_at_all"))
    ended = perfkit("lab")
    assert ended.exit_code == 2
    assert "needs not_installed_at_all: pip install 'perfkit[lab]'" in ended.stderr
