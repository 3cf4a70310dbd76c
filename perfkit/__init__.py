"""Make a ZeroMQ inference cluster faster, and measure by how much.

`OptimizedCoordinator` is a coordinator with every optimisation that pays, served from a thread of
this process. Workers and clients connect to its endpoint with the same spec, `OPTIMIZED`; a worker
on any machine is started by ``perfkit cluster worker --spec optimized --endpoint …``:

    with OptimizedCoordinator() as coordinator:
        task = coordinator.submit_task(b"x")
        assert coordinator.get_result(task, timeout=5) == b"x"

`BASELINE` is the plain cluster to compare it with. `profile_cpu` and `track_memory` measure your
own functions, `GpuSampler` watches AMD cards without ROCm, and `MessagePool`, `BufferPool` and
`ConnectionPool` keep objects for reuse. The instruments behind them are in `perfkit.profile`,
`perfkit.gpu` and `perfkit.bench`. Names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.spec import BASELINE as BASELINE
    from perfkit.gpu.sampler import GpuSampler as GpuSampler
    from perfkit.optimized.coordinator import OptimizedCoordinator as OptimizedCoordinator
    from perfkit.optimized.specs import OPTIMIZED as OPTIMIZED
    from perfkit.pool import BufferPool as BufferPool
    from perfkit.pool import ConnectionPool as ConnectionPool
    from perfkit.pool import MessagePool as MessagePool
    from perfkit.profile.cpu import profile_cpu as profile_cpu
    from perfkit.profile.memory import track_memory as track_memory
else:  # a type checker that saw this __getattr__ would accept any name
    _HOME = {
        "BASELINE": "cluster.spec",
        "BufferPool": "perfkit.pool",
        "ConnectionPool": "perfkit.pool",
        "GpuSampler": "perfkit.gpu.sampler",
        "MessagePool": "perfkit.pool",
        "OPTIMIZED": "perfkit.optimized.specs",
        "OptimizedCoordinator": "perfkit.optimized.coordinator",
        "profile_cpu": "perfkit.profile.cpu",
        "track_memory": "perfkit.profile.memory",
    }
    __all__ = list(_HOME)

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
