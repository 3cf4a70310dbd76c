"""Temporary folders of processes that were killed go with the next start, those of others stay."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from cluster.scratch import MARK, ScratchFolder

PROGRAM = """
import sys
from cluster import LocalCluster
from cluster.scratch import ScratchFolder
with {expression} as made:
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Run a program in a with block, whose temporary files are in the folder ``tmp_path``."""
    started = []

    def run(expression):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(expression=expression)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_process_leaves_its_folder_to_the_next_start(start, tmp_path):
    killed, living = start("ScratchFolder('killed-')"), start("ScratchFolder('living-')")
    (tmp_path / "of-another-program").mkdir()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [name.partition("-")[0] for name in sorted(os.listdir(tmp_path))] == [
        "killed",
        "living",
        "of",
    ]
    with ScratchFolder("next-", str(tmp_path)) as folder:
        assert os.listdir(folder) == [MARK]
        names = [name.partition("-")[0] for name in sorted(os.listdir(tmp_path))]
        assert names == ["living", "next", "of"]
    living.communicate()
    assert os.listdir(tmp_path) == ["of-another-program"]


def test_a_killed_cluster_leaves_its_folder_to_the_next_one(start, tmp_path):
    killed = start("LocalCluster(0)")
    (left,) = os.listdir(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert os.listdir(tmp_path) == [left]
    start("LocalCluster(0)")
    (new,) = os.listdir(tmp_path)
    assert new != left


def test_a_folder_that_is_not_made_by_this_is_never_removed(tmp_path):
    strange = tmp_path / "strange"
    strange.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MARK).touch()
    strange_file = tmp_path / "file"
    strange_file.touch()
    with ScratchFolder("next-", str(tmp_path)):
        pass
    assert strange.is_symlink()
    assert strange_file.exists()


def test_without_locks_a_folder_is_made_all_the_same(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError

    monkeypatch.setattr("fcntl.flock", fails)
    with ScratchFolder("one-", str(tmp_path)) as one, ScratchFolder("two-", str(tmp_path)):
        assert os.path.isdir(one)
    assert os.listdir(tmp_path) == []
    assert tempfile.gettempdir() != str(tmp_path)
