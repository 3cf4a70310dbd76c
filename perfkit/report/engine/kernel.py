"""One notebook's kernel: which interpreter it runs, where it lives, and who may end it.

The kernel is always the interpreter that runs the report, whatever kernel specifications a user or
a machine has installed, so that what is measured is what is installed here. It talks over ipc in a
folder of its own, so that reports can run side by side without sharing ports, and it reads nobody's
IPython profile.

Ending it takes care: a cell that holds a cluster must get the chance to stop its processes. So a
cell over its time is interrupted first, as Ctrl-C would, and killed only when it does not react;
what it leaves behind in its process group is killed after it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

#: Time between the interrupt and the kill, for context managers to stop what they started.
GRACE_S = 8.0
#: A socket's path may have about 107 bytes, and `kernel-ipc-5` is appended to the folder's.
_LONGEST_SOCKET_FOLDER = 70


class KernelSession:
    """A kernel for one notebook, as a context manager around its scratch folder.

    `manager_class()` gives the kernel manager to hand to nbclient. `timed_out` and `aborted` say
    why the kernel was ended by us, when it was. Thread-safe: a timer and a signal may both call
    `stop`.
    """

    def __init__(
        self, environment: Mapping[str, str], cell_timeout_s: float | None, grace_s: float = GRACE_S
    ) -> None:
        self._environment = dict(environment)
        self._cell_timeout_s = cell_timeout_s
        self._grace_s = grace_s
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._scratch: Path | None = None
        self.timed_out = False
        self.aborted = False

    def __enter__(self) -> KernelSession:
        base = tempfile.gettempdir()
        if len(os.fsencode(base)) > _LONGEST_SOCKET_FOLDER and os.path.isdir("/tmp"):
            base = "/tmp"
        self._scratch = Path(tempfile.mkdtemp(prefix="perfkit-", dir=base))
        return self

    def __exit__(self, *_: object) -> None:
        self.cell_finished()
        self._signal_group(signal.SIGKILL)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """The folder of the kernel's sockets; it exists while the session is entered."""
        if self._scratch is None:
            raise RuntimeError("enter the kernel session before starting its kernel")
        return self._scratch

    def manager_class(self) -> type[AsyncKernelManager]:
        """A kernel manager class that starts this interpreter and reports its process here."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        session = self
        scratch = self.scratch
        environment = {**self._environment, "IPYTHONDIR": str(scratch / "ipython")}

        class SessionKernelManager(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                return KernelSpec(
                    # Frozen modules make the kernel's debugger complain about itself on stderr.
                    argv=[
                        sys.executable,
                        "-Xfrozen_modules=off",
                        "-m",
                        "ipykernel_launcher",
                        "-f",
                        "{connection_file}",
                    ],
                    display_name="perfkit report",
                    language="python",
                    env=environment,
                )

            async def _async_launch_kernel(self, kernel_cmd: list[str], **kwargs: Any) -> None:
                await super()._async_launch_kernel(kernel_cmd, **kwargs)
                session._started(getattr(self.provisioner, "pid", None))

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.transport = "ipc"
                self.connection_file = str(scratch / "kernel.json")
                self.ip = str(scratch / "kernel-ipc")

        return SessionKernelManager

    def cell_started(self) -> None:
        """Start counting the time of one cell."""
        if self._cell_timeout_s is not None:
            self._after(self._cell_timeout_s, self._run_out)

    def cell_finished(self) -> None:
        """Stop counting; the kernel is not ended any more for this cell."""
        with self._lock:
            timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()

    def abort(self) -> None:
        """End the kernel because the whole run is given up."""
        self.aborted = True
        self.stop()

    def stop(self) -> None:
        """Interrupt the running cell, and kill the kernel's processes if that does not help."""
        self._after(self._grace_s, lambda: self._signal_group(signal.SIGKILL))
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT)

    def _run_out(self) -> None:
        self.timed_out = True
        self.stop()

    def _started(self, pid: int | None) -> None:
        self._pid = pid
        if self.aborted:
            self._signal_group(signal.SIGKILL)

    def _after(self, seconds: float, action: Any) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        with self._lock:
            self._timers.append(timer)
        timer.start()

    def _signal_group(self, number: signal.Signals) -> None:
        """Signals the kernel's process group: it leads one, so this reaches nobody else's."""
        if self._pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)


def environment_for(notebook: str) -> dict[str, str]:
    """Variables a kernel gets on top of ours: which notebook it runs, and where perfkit lives.

    The kernel works in the run's folder, so a checkout that is not installed has to be named.
    """
    from perfkit.report.engine.headlines import NOTEBOOK_VARIABLE

    package_parent = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH", "")
    paths = [package_parent, *filter(None, inherited.split(os.pathsep))]
    absolute = [os.path.abspath(path) for path in dict.fromkeys(paths)]
    return {
        NOTEBOOK_VARIABLE: notebook,
        "PYTHONPATH": os.pathsep.join(absolute),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
