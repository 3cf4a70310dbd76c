"""The lab's kernels: when one ends or restarts, all that it has started ends with it.

Jupyter's own manager ends the kernel's process group. `LabKernelManager` takes its place by the
server's configuration, see `perfkit.jupyter.launcher`.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

from perfkit.jupyter.leftovers import kill, marked

#: Names the kernel to all that it starts.
MARK = "PERFKIT_LAB_KERNEL"


class LabKernelManager(ServerKernelManager):
    """Jupyter's kernel manager, which ends the kernel's processes too."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        options["env"][MARK] = self.kernel_id
        await super()._async_launch_kernel(kernel_cmd, **options)

    async def _async_shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        try:
            await super()._async_shutdown_kernel(now=now, restart=restart)
        finally:
            kill(marked(MARK, self.kernel_id))

    shutdown_kernel = _async_shutdown_kernel
