"""Make a ZeroMQ inference cluster faster, and measure by how much.

`OptimizedCoordinator` is a coordinator with every optimisation that pays, served from a thread of
this process. Workers and clients connect to its endpoint with the same spec, `OPTIMIZED`; a worker
on any machine is started by ``perfkit cluster worker --spec optimized --endpoint …``:

    with OptimizedCoordinator() as coordinator:
        task = coordinator.submit_task(b"x")
        assert coordinator.get_result(task, timeout=5) == b"x"

`BASELINE` is the plain cluster to compare it with. `profile_cpu`, `track_memory`, `track_latency`
and `track_lines` measure your own functions in a `with` block or as decorators, `measure_latency`
and `profile_lines` call them, and `compare_calls` and `compare_turns` say which of two is faster.
`performance_report` writes a page about your own work on a cluster, `read_cards` and `GpuSampler`
show and watch AMD cards without ROCm, and `MessagePool`, `BufferPool` and `ConnectionPool` keep
objects for reuse. In a notebook ``%load_ext perfkit`` adds magics that do the same from a cell. The
instruments behind them are in `perfkit.profile`, `perfkit.gpu` and `perfkit.bench`. Names are
imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from perfkit.evidence import painting

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from cluster.spec import BASELINE as BASELINE
    from perfkit.bench.calls.latency import measure_latency as measure_latency
    from perfkit.bench.calls.latency import track_latency as track_latency
    from perfkit.bench.calls.lines import profile_lines as profile_lines
    from perfkit.bench.calls.lines import track_lines as track_lines
    from perfkit.bench.calls.versus import compare_calls as compare_calls
    from perfkit.bench.calls.versus import compare_turns as compare_turns
    from perfkit.gpu.readings import read_cards as read_cards
    from perfkit.gpu.sampler import GpuSampler as GpuSampler
    from perfkit.optimized.coordinator import OptimizedCoordinator as OptimizedCoordinator
    from perfkit.optimized.specs import OPTIMIZED as OPTIMIZED
    from perfkit.pool import BufferPool as BufferPool
    from perfkit.pool import ConnectionPool as ConnectionPool
    from perfkit.pool import MessagePool as MessagePool
    from perfkit.profile.cpu import profile_cpu as profile_cpu
    from perfkit.profile.memory import track_memory as track_memory
    from perfkit.report.session.recorder import performance_report as performance_report
else:  # a type checker that saw this __getattr__ would accept any name
    _HOME = {
        "BASELINE": "cluster.spec",
        "BufferPool": "perfkit.pool",
        "ConnectionPool": "perfkit.pool",
        "GpuSampler": "perfkit.gpu.sampler",
        "MessagePool": "perfkit.pool",
        "OPTIMIZED": "perfkit.optimized.specs",
        "OptimizedCoordinator": "perfkit.optimized.coordinator",
        "compare_calls": "perfkit.bench.calls.versus",
        "compare_turns": "perfkit.bench.calls.versus",
        "measure_latency": "perfkit.bench.calls.latency",
        "performance_report": "perfkit.report.session.recorder",
        "profile_cpu": "perfkit.profile.cpu",
        "profile_lines": "perfkit.bench.calls.lines",
        "read_cards": "perfkit.gpu.readings",
        "track_latency": "perfkit.bench.calls.latency",
        "track_lines": "perfkit.bench.calls.lines",
        "track_memory": "perfkit.profile.memory",
    }
    __all__ = list(_HOME)

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magics: what ``%load_ext perfkit`` calls."""
    import_module("perfkit.jupyter.magics").load(shell)


def _paint(result: object) -> painting.Picture:
    picture: painting.Picture = import_module("perfkit.report.figures.painters").picture(result)
    return picture


painting.paint_with(_paint)
