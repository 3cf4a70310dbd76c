"""ONNX Runtime sessions, and the provider that really runs each.

The runtime lists an execution provider as soon as it is registered, even if it was given no node,
and its Python wrapper falls back to the CPU when a provider fails. Here the fall-back is off, the
nodes given to each provider are counted, and a provider without nodes is not named.

WebGPU takes part only after `cluster.models.runtime.choice` has registered it.

A session has one thread and does not spin: on small machines two workers of one thread beat one
worker of two, and a spinning thread takes the core of another worker.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from cluster.models.providers.webgpu import WEBGPU, CardSession, check_options, claimed_card
from cluster.models.repository.manifest import ModelError, needs_extra
from cluster.models.runtime.subnormals import readable

CPU = "CPUExecutionProvider"

#: From the most to the least wanted, where nothing is chosen by a trial: providers for AMD cards
#: first, the processor last.
PREFERENCE = (
    "MIGraphXExecutionProvider",
    "ROCMExecutionProvider",
    CPU,
)

#: A provider, alone or with its options, as the runtime takes them.
Provider: TypeAlias = str | tuple[str, Mapping[str, str]]

_FATAL_ONLY = 4


class OpenSession(NamedTuple):
    """A session of the runtime, the provider that received nodes of the graph, and the nodes that
    each provider was assigned before fusion. These are None for a runtime too old to tell; then a
    provider other than the CPU must take the whole graph. ``device`` names the processor or the
    card, and is empty for other providers.
    """

    session: Any
    provider: str
    nodes_by_provider: dict[str, int] | None
    device: str


def open_session(
    name: str,
    path: Path,
    threads: int = 1,
    preference: Sequence[Provider] = PREFERENCE,
    *,
    optimized: bool = False,
) -> OpenSession:
    """A session for the file of the model ``name``, on the first provider that can run it.

    ``optimized`` says that the runtime has optimised the file already, see
    `cluster.models.runtime.sharing`.

    Raises:
        ModelError: onnxruntime is missing or refuses the file, no provider can run it, or WebGPU
            has no such option.
    """
    onnxruntime = load_runtime(name)
    available = onnxruntime.get_available_providers()
    tells = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
    reasons = []
    for provider, provider_options in map(_with_options, preference):
        if provider not in available:
            continue
        if provider == WEBGPU:
            check_options(provider_options)
        alone = provider == CPU or not tells
        options = session_options(onnxruntime, threads)
        if optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if alone and provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if tells:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        others: list[Provider] = [] if alone else [CPU]
        create = partial(
            onnxruntime.InferenceSession,
            str(path) if optimized else readable(path),
            options,
            providers=[(provider, dict(provider_options)), *others],
            enable_fallback=False,
        )
        try:
            session = CardSession(create) if provider == WEBGPU else create()
        except Exception as error:  # as above
            reasons.append(f"{provider}: {one_line(error)}")
            continue
        nodes = _count_nodes(session) if tells else None
        if nodes is None or nodes.get(provider) or (provider == CPU and not nodes):
            return OpenSession(session, provider, nodes, _device(provider))
        reasons.append(f"{provider}: it takes no part of the graph")
    why = "; ".join(reasons) or f"only {', '.join(available)} available"
    raise ModelError(f"model {name!r}: onnxruntime cannot run {path}: {why}")


def _with_options(provider: Provider) -> tuple[str, Mapping[str, str]]:
    return (provider, {}) if isinstance(provider, str) else provider


def _device(provider: str) -> str:
    if provider == WEBGPU:
        return str(claimed_card())
    return processor_name() if provider == CPU else ""


@lru_cache(maxsize=1)
def processor_name() -> str:
    """The processor's own name, or its architecture where the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open() as cpuinfo:
            found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read(4096), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def load_runtime(name: str) -> Any:
    """The module onnxruntime without its telemetry; ``name`` is the model that needs it.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise needs_extra(name) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def session_options(onnxruntime: Any, threads: int) -> Any:
    """The options of a model's session; see the top of this file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors are raised as well, and a provider tried in vain needs no line in the log.
    options.log_severity_level = _FATAL_ONLY
    return options


def _count_nodes(session: Any) -> dict[str, int]:
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def one_line(error: Exception) -> str:
    """The message of one of the runtime's errors, on one line."""
    return " ".join(str(error).split())
