"""A ``perfkit lab`` as a process, and what it and its kernels hold: processes and ports."""

import json
import signal
import subprocess
import sys
from contextlib import suppress

import psutil

from tests.perfkit.cli.conftest import plain_environment


class Lab:
    """A ``perfkit lab`` in the background, and what it said when it was ready."""

    def __init__(self, folder, *flags):
        words = ["lab", "--no-browser", "--port", "0", "--dir", folder / "copy", "--json", *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perfkit", *map(str, words)],
            cwd=folder,
            env=plain_environment(folder)
            | {
                "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.folder = folder / "copy"
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts = json.loads(line)

    def tree(self):
        return descendants(self.process.pid)

    def stop(self):
        """Its exit code, and its standard error."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def ports(processes):
    """The TCP ports at which any of these processes listens."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            listening = process.net_connections("tcp")
            found |= {it.laddr.port for it in listening if it.status == psutil.CONN_LISTEN}
    return found


def all_ports():
    return {it.laddr.port for it in psutil.net_connections("tcp") if it.status == "LISTEN"}
