"""A network: what a graph takes and gives, and its runs.

A graph is served if its inputs and its output are tensors of numbers with the batch as first axis.
Each run's output is checked against its batch before anyone's rows are cut from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.repository.manifest import Manifest, ModelError
from cluster.models.runtime.session import PREFERENCE, Provider, one_line, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    `cluster.models.runtime.session` explains ``provider``, ``nodes_by_provider`` and ``optimized``.
    ``row_shape`` is one row of the first input, empty if the graph leaves it open; ``classes`` is
    the width of the output, None if open. ``inputs`` maps the inputs that need a value to what they
    take, such as ``float32[N, 64]``, with ? for an open extent.

    Raises:
        ModelError: onnxruntime is missing or refuses the file, no provider can run it, or its
        inputs or its output can't be served.
    """

    def __init__(
        self,
        manifest: Manifest,
        path: Path,
        threads: int = 1,
        preference: Sequence[Provider] = PREFERENCE,
        *,
        optimized: bool = False,
    ) -> None:
        self.name = manifest.name
        self.threads = threads
        #: the session, and what is known of it
        self.opened = open_session(self.name, path, threads, preference, optimized=optimized)
        self._session, self.provider, self.nodes_by_provider, self.device = self.opened
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
            raise ModelError(f"model {self.name!r} failed: {one_line(error)}") from error
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
