"""A network in an ONNX Runtime session, with the provider that really runs it.

The runtime lists an execution provider as soon as it is registered, even if it was given no node,
and its Python wrapper falls back to the CPU when a provider fails. Here the fall-back is off, the
nodes given to each provider are counted, and a provider without nodes is not named.

A session has one thread and does not spin: on small machines two workers of one thread beat one
worker of two, and a spinning thread takes the core of another worker.

A graph is served if its inputs and its output are tensors of numbers with the batch as first axis.
Each run's output is checked against its batch before anyone's rows are cut from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.manifest import Manifest, ModelError, needs_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"

#: From the most to the least wanted: providers for AMD cards first, the processor last.
PREFERENCE = (
    "MIGraphXExecutionProvider",
    "ROCMExecutionProvider",
    "WebGpuExecutionProvider",
    CPU,
)

_FATAL_ONLY = 4

#: The types of numbers, by the runtime's names for tensors of them.
_TYPES = {
    f"tensor({name})": {"float": "float32", "double": "float64"}.get(name, name)
    for name in (
        *("float", "double", "float16", "bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
}


class Network:
    """One session, from inputs by name to its first output.

    ``provider`` received nodes of the graph; ``nodes_by_provider`` counts them as assigned before
    fusion. It is None for a runtime too old to tell, and then a provider other than the CPU must
    take the whole graph. ``row_shape`` is one row of the first input, empty if the graph leaves it
    open; ``classes`` is the width of the output, None if open. ``inputs`` maps the inputs that need
    a value to what they take, such as ``float32[N, 64]``, with ? for an open extent. ``optimized``
    says that the runtime has optimised the file already, see `cluster.models.sharing`.

    Raises:
        ModelError: onnxruntime is missing or refuses the file, no provider can run it, or its
        inputs or its output can't be served.
    """

    def __init__(
        self,
        manifest: Manifest,
        path: Path,
        threads: int = 1,
        preference: Sequence[str] = PREFERENCE,
        *,
        optimized: bool = False,
    ) -> None:
        self.name = manifest.name
        self.threads = threads
        self._optimized = optimized
        self.provider, self._session, self.nodes_by_provider = self._open(path, preference)
        ports, outputs = self._session.get_inputs(), self._session.get_outputs()
        if not ports or not outputs:
            raise ModelError(f"model {self.name!r}: {path} has no input or no output")
        self.inputs = {it.name: self._describe(it, "input", manifest) for it in ports}
        output = outputs[0]
        if not self._describe(output, "output", manifest).startswith("float"):
            raise ModelError(
                f"model {self.name!r}: its output {output.name!r} is a {output.type}; an answer "
                "is read from one of float, float16 or double"
            )
        first = ports[0]
        self.input_name: str = first.name
        self._output_name: str = output.name
        row = first.shape[1:]
        self.row_shape: tuple[int, ...] = (
            tuple(row) if all(isinstance(extent, int) for extent in row) else ()
        )
        width = output.shape[-1] if len(output.shape) == 2 else None
        self.classes: int | None = width if isinstance(width, int) else None

    def run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The first output for these inputs, rows in their order.

        Raises:
            ModelError: the runtime refused or failed, or the output has other rows than the inputs
            or another width than the graph says.
        """
        try:
            (output,) = self._session.run([self._output_name], dict(feed))
        except Exception as error:  # the runtime's errors share no base of their own
            raise ModelError(f"model {self.name!r} failed: {_one_line(error)}") from error
        result: NDArray[Any] = output
        rows = len(next(iter(feed.values())))
        if result.shape[:1] != (rows,) or self.classes not in (None, *result.shape[1:]):
            raise ModelError(
                f"model {self.name!r} gave {result.dtype}{list(result.shape)} for a batch of "
                f"{rows} rows; which row is whose can't be told"
            )
        return result

    def expect(self, kind: str, inputs: Mapping[str, str]) -> None:
        """Raise ModelError unless the graph takes exactly these ``inputs``."""
        if self.inputs != inputs:
            wanted, found = (
                " and ".join(f"{name} ({what})" for name, what in some.items())
                for some in (inputs, self.inputs)
            )
            raise ModelError(
                f"model {self.name!r}: kind {kind!r} wants a graph that takes {wanted}; this one "
                f"takes {found}"
            )

    def _describe(self, port: Any, what: str, manifest: Manifest) -> str:
        """What an input or output carries; ModelError if that can't be served."""
        if port.type not in _TYPES:
            raise ModelError(
                f"model {self.name!r}: its {what} {port.name!r} is a {port.type}; only tensors of "
                "numbers can be served"
            )
        batch, *row = port.shape or [0]
        if isinstance(batch, int) and (batch, manifest.batch_rows_max) != (1, 1):
            raise ModelError(
                f"model {self.name!r}: its {what} {port.name!r} has shape {port.shape}, without an "
                "open first axis for the rows of a batch; export it with one, or, if it is 1, set "
                "batch_rows_max = 1"
            )
        extents = [str(extent) if isinstance(extent, int) else "?" for extent in row]
        return f"{_TYPES[port.type]}[{', '.join(['N', *extents])}]"

    def _open(
        self, path: Path, preference: Sequence[str]
    ) -> tuple[str, Any, dict[str, int] | None]:
        onnxruntime = load_runtime(self.name)
        available = onnxruntime.get_available_providers()
        tells = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
        reasons = []
        for provider in [name for name in preference if name in available]:
            alone = provider == CPU or not tells
            options = session_options(onnxruntime, self.threads)
            if self._optimized:
                options.graph_optimization_level = (
                    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                )
            if alone and provider != CPU:
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            if tells:
                options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            try:
                session = onnxruntime.InferenceSession(
                    str(path),
                    options,
                    providers=[provider] if alone else [provider, CPU],
                    enable_fallback=False,
                )
            except Exception as error:  # as above
                reasons.append(f"{provider}: {_one_line(error)}")
                continue
            nodes = _count_nodes(session) if tells else None
            if nodes is None or nodes.get(provider):
                return provider, session, nodes
            reasons.append(f"{provider}: it takes no part of the graph")
        why = "; ".join(reasons) or f"only {', '.join(available)} available"
        raise ModelError(f"model {self.name!r}: onnxruntime cannot run {path}: {why}")


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
