"""A foreign server ends with the benchmark, its processes in sessions of their own too."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.local import Process
from tests.waiting import until

MODULE = "perfkit.bench.serving.guarded"
#: Starts a process in a session of its own that stands still, tells its id, and waits.
SERVER = """
import os, signal, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(99)"]
child = subprocess.Popen(sleeper, start_new_session=True)
child.send_signal(signal.SIGSTOP)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(99)
"""


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_nothing_is_left_however_it_ends(tmp_path: Path, ending: str) -> None:
    told = tmp_path / "pid"
    command = [sys.executable, "-c", SERVER, str(told)]
    process = Process("server", MODULE, command, tmp_path, guarded=True)
    until(lambda: told.exists() and told.read_text() != "")
    grandchild = psutil.Process(int(told.read_text()))
    if ending == "stopped":
        process.stop(time.monotonic() + 20)
    else:
        assert process._pipe is not None
        process._pipe.close()  # as the kernel does when this process dies
        process.wait(20)
    until(lambda: not grandchild.is_running())
    process.stop(time.monotonic() + 1)
