"""One notebook's kernel: its interpreter, its folder, and how it is ended.

The kernel is always the interpreter that runs the report, never a kernel specification of a user or
a machine: a report measures this installation. It talks over ipc in a folder of its own, so reports
can run side by side without sharing ports, and it reads no IPython profile.

A cell that holds a cluster must get the chance to stop its processes. So a cell that runs out of
time is first interrupted, as by Ctrl-C, and killed only if it does not react. Then the rest of its
process group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.scratch import ScratchFolder
from perfkit.report.engine.floods import ENDED_VARIABLE
from perfkit.report.engine.headlines import NOTEBOOK_VARIABLE

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

#: Time between the interrupt and the kill, for context managers to stop what they started.
GRACE_S = 8.0
#: A socket's path may have about 107 bytes, and `kernel-ipc-5` is appended to the folder's.
_LONGEST_SOCKET_FOLDER = 70


@dataclass
class KernelSession:
    """The kernel of one notebook, whose sockets are in the folder `scratch`.

    `manager_class()` is the kernel manager to hand to nbclient. `timed_out` and `aborted` say why
    this session ended the kernel, if it did. Thread-safe: a timer and a signal may both end it.
    """

    scratch: Path
    environment: Mapping[str, str]
    cell_timeout_s: float | None
    grace_s: float
    timed_out: bool = False
    aborted: bool = False
    _timers: list[threading.Timer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pid: int | None = None

    def manager_class(self) -> type[AsyncKernelManager]:
        """A kernel manager class that starts this interpreter and reports its process here."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        session = self
        # Frozen modules make the kernel's debugger complain about itself on stderr.
        command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]

        class SessionKernelManager(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                return KernelSpec(
                    argv=[*command, "-f", "{connection_file}"],
                    display_name="perfkit report",
                    language="python",
                    env={
                        **session.environment,
                        "IPYTHONDIR": str(session.scratch / "ipython"),
                        ENDED_VARIABLE: str(session.ended),
                    },
                )

            async def _async_launch_kernel(self, kernel_cmd: list[str], **kwargs: Any) -> None:
                # Standard output belongs to the command: a cell's children must not reach it. Under
                # pytest a kernel would not capture what they print.
                kwargs["env"].pop("PYTEST_CURRENT_TEST", None)
                await super()._async_launch_kernel(
                    kernel_cmd, **{**kwargs, "stdout": subprocess.DEVNULL}
                )
                session._started(getattr(self.provisioner, "pid", None))

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.transport = "ipc"
                self.connection_file = str(session.scratch / "kernel.json")
                self.ip = str(session.scratch / "kernel-ipc")

        return SessionKernelManager

    @property
    def ended(self) -> Path:
        """The file that the kernel makes when the running cell ends."""
        return self.scratch / "ended"

    def cell_started(self) -> None:
        """Start counting the time of one cell."""
        self.ended.unlink(missing_ok=True)
        if self.cell_timeout_s is not None:
            self._after(self.cell_timeout_s, self._run_out)

    def cell_finished(self) -> None:
        """Stop counting, and do not end the kernel for this cell any more."""
        with self._lock:
            timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()

    def abort(self) -> None:
        """End the kernel because the whole run is given up."""
        self.aborted = True
        self._stop()

    def close(self) -> None:
        """Kill the kernel's process group at once."""
        self.cell_finished()
        self._kill()

    def _stop(self) -> None:
        """Interrupt the running cell, and kill the kernel's processes if that does not help."""
        self._after(self.grace_s, self._kill)
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT)

    def _run_out(self) -> None:
        # The messages of a cell that has ended may still be on their way.
        if not self.ended.exists():
            self.timed_out = True
            self._stop()

    def _started(self, pid: int | None) -> None:
        self._pid = pid
        if self.aborted:
            self._kill()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        with self._lock:
            self._timers.append(timer)
        timer.start()

    def _kill(self) -> None:
        # The kernel leads a process group of its own, so this reaches no other process.
        if self._pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)


@contextmanager
def kernel_session(
    notebook: str, cell_timeout_s: float | None, grace_s: float = GRACE_S
) -> Iterator[KernelSession]:
    """A session for the notebook of this name; its kernel and its folder end with the context."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST_SOCKET_FOLDER and os.path.isdir("/tmp"):
        base = "/tmp"
    with ScratchFolder("perfkit-", base) as scratch:
        session = KernelSession(Path(scratch), environment_for(notebook), cell_timeout_s, grace_s)
        try:
            yield session
        finally:
            session.close()


def environment_for(notebook: str) -> dict[str, str]:
    """Variables a kernel gets besides ours: which notebook it runs, and where perfkit is.

    The kernel works in the run's folder, so a checkout that is not installed has to be named.
    """
    package_parent = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH", "")
    paths = [package_parent, *filter(None, inherited.split(os.pathsep))]
    absolute = [os.path.abspath(path) for path in dict.fromkeys(paths)]
    return {
        NOTEBOOK_VARIABLE: notebook,
        "PYTHONPATH": os.pathsep.join(absolute),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUTF8": "1",  # a report does not depend on the terminal's encoding
    }
