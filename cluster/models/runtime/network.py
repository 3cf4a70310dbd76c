"""A network: what a graph takes and gives, and its runs.

Any number of inputs and outputs are served, of every type that the Open Inference Protocol names
and ONNX knows. A network *batches* if each of them leaves its first axis open. Then each run's
outputs are checked against its batch before anyone's rows are cut from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.frames.arrays import NUMPY
from cluster.models.frames.metadata import TensorMetadata
from cluster.models.frames.tensor import DIMENSIONS_MAX
from cluster.models.frames.tensors import ITEM_BYTES, NAME_LENGTH_MAX, TENSORS_MAX
from cluster.models.repository.manifest import KindError, Manifest, ModelError
from cluster.models.repository.protobuf import shapeless_inputs
from cluster.models.repository.triton import Declared
from cluster.models.runtime.reasons import explained
from cluster.models.runtime.session import PREFERENCE, Provider, one_line, open_session
from cluster.vocabulary.printable import count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Outputs by name.
Outputs = dict[str, Any]


#: The most rows of a run and the most bytes of its inputs, where the configuration does not say;
#: and the most rows of a graph whose rows may have any length.
ROWS_MAX = 256
RUN_BYTES_MAX = 8 << 20
OPEN_ROWS_MAX = 16

#: The names of types in the Open Inference Protocol by the runtime's. Texts are numpy's objects,
#: each a str: the runtime's interface for Python reads and gives nothing but UTF-8.
DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    **{
        f"tensor({kind}{bits})": f"{kind.upper()}{bits}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}


class Network:
    """One session, from inputs by name to outputs by name.

    `cluster.models.runtime.session` explains ``provider``, ``nodes_by_provider`` and ``optimized``.
    ``inputs`` and ``outputs`` are by name, in the graph's order; inputs with a value of their own
    are left out. ``batches``: see the top of this file. ``rows_max`` bounds the rows of one run.

    Raises:
        ModelError: onnxruntime is missing or refuses the file, no provider can run it, or its
        inputs or outputs can't be served.
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
        try:
            #: the session, and what is known of it
            self.opened = open_session(self.name, path, threads, preference, optimized=optimized)
        except ModelError as error:
            raise explained(self.name, path, error) from error
        self._session, self.provider, self.nodes_by_provider, self.device = self.opened
        self.inputs = self._describe(self._session.get_inputs(), "input")
        self.outputs = self._describe(self._session.get_outputs(), "output")
        if not self.inputs or not self.outputs:
            raise ModelError(f"model {self.name!r}: {path} has no input or no output")
        scalars = {port.name for port in self.inputs.values() if not port.shape}
        if scalars and (shapeless := scalars & shapeless_inputs(path)):
            raise ModelError(
                f"model {self.name!r}: {path} does not tell the shape of its input "
                f"{', '.join(map(repr, sorted(shapeless)))}; export it with one, whose axes may be "
                "open, in skl2onnx by FloatTensorType([None, WIDTH])"
            )
        if all(0 in port.shape for port in self.inputs.values()):
            raise ModelError(
                f"model {self.name!r}: it takes no numbers, as an extent is 0: "
                f"{', '.join(map(str, self.inputs.values()))}; export it with open axes"
            )
        ports = (*self.inputs.values(), *self.outputs.values())
        open_axes = all(port.shape[:1] == (-1,) for port in ports)
        if manifest.batches and not open_axes:
            raise ModelError(
                f"model {self.name!r}: its configuration wants batches, but not every input and "
                f"output leaves its first axis open: {', '.join(map(str, ports))}"
            )
        self.batches = open_axes and manifest.batches is not False
        self._has_batch_axis = self.batches
        self._may_batch = open_axes and manifest.batches is None
        #: the graph's shapes of inputs, and the clients' of outputs, where they differ
        self._inner: dict[str, tuple[int, ...]] = {}
        self._outer: dict[str, tuple[int, ...]] = {}
        self.rows_max = (manifest.batch_items_max or self._rows_max()) if self.batches else 1

    def run(
        self, feed: Mapping[str, NDArray[Any]], outputs: Iterable[str], rows: int | None = None
    ) -> Outputs:
        """Some outputs by name; with ``rows``, each has that many, in the order of the inputs.

        Raises:
            ModelError: the runtime refused or failed, or an output has other rows.
        """
        names = list(outputs)
        try:
            given = self._reshaped(dict(feed), self._inner) if self._inner else dict(feed)
            found = self._session.run(names, given)
        except Exception as error:  # the runtime's errors share no base of their own
            raise ModelError(f"model {self.name!r} failed: {one_line(error)}") from error
        for value in found:
            if rows is not None and value.shape[:1] != (rows,):
                raise ModelError(
                    f"model {self.name!r} gave {value.dtype}{list(value.shape)} for a batch of "
                    f"{count_of(rows, 'row')}; which row is whose can't be told"
                )
        results = dict(zip(names, found, strict=True))
        return self._reshaped(results, self._outer) if self._outer else results

    def run_rows(self, feed: Mapping[str, NDArray[Any]], outputs: Iterable[str]) -> Outputs:
        """Some outputs by name for any number of rows, in runs of at most ``rows_max``.

        Raises:
            ModelError: as `run` does.
        """
        import numpy as np

        names = list(outputs)
        rows, most = len(next(iter(feed.values()))), self.rows_max
        if not rows:
            return self._no_rows(names)
        if rows <= most:  # the usual case needs no copy
            return self.run(feed, names, rows)
        parts = [
            self.run(part, names, len(next(iter(part.values()))))
            for start in range(0, rows, most)
            for part in [{name: it[start : start + most] for name, it in feed.items()}]
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _no_rows(self, outputs: Iterable[str]) -> Outputs:
        """Outputs for a batch of no rows: some providers fail at one."""
        import numpy as np

        empty = {}
        for port in map(self.outputs.__getitem__, outputs):
            shape = [0, *(max(0, extent) for extent in port.row_shape)]
            empty[port.name] = np.empty(shape, NUMPY[port.datatype])
        return empty

    def stop_batching(self) -> None:
        """Run each question alone from now on, whatever its shape."""
        self.batches, self.rows_max = False, 1

    def declare(self, inputs: Sequence[Declared], outputs: Sequence[Declared]) -> None:
        """Take over what a ``config.pbtxt`` declares: its extents, and the outputs to offer.

        Raises:
            ModelError: it does not fit the graph.
        """
        known = {**self.outputs, **self.inputs}
        if self._may_batch and any(
            one.name in known and len(one.inner) == len(known[one.name].shape) for one in inputs
        ):
            self.stop_batching()  # its dims are whole shapes
        for what, declared, ports, shapes in (
            ("input", inputs, self.inputs, self._inner),
            ("output", outputs, self.outputs, self._outer),
        ):
            taken = {one.name: self._declared(one, what, ports) for one in declared}
            missing = [repr(name) for name in ports if name not in taken]
            if declared and what == "input" and missing:
                raise ModelError(
                    f"model {self.name!r}: its configuration does not declare the input "
                    f"{', '.join(missing)}"
                )
            if declared:
                ordered = {name: taken[name] for name in ports if name in taken}
                ports.clear()
                ports.update(ordered)
            for one in declared:
                if one.inner != one.dims:
                    shapes[one.name] = one.inner if what == "input" else one.dims
        self._has_batch_axis = self.batches

    def _declared(
        self, one: Declared, what: str, ports: Mapping[str, TensorMetadata]
    ) -> TensorMetadata:
        """A declared port, narrowed by the graph's own, which it must fit."""
        batch = (-1,) if self.batches else ()
        told = TensorMetadata(one.name, one.datatype, (*batch, *one.inner))
        port = ports.get(one.name)
        if port is None or not _agree(told, port):
            there = f"{port}" if port else " and ".join(map(str, ports.values()))
            raise ModelError(
                f"model {self.name!r}: its configuration declares the {what} {told}; "
                f"the graph has {there}"
            )
        if one.inner != one.dims:
            return TensorMetadata(one.name, one.datatype, (*batch, *one.dims))
        pairs = zip(port.shape, told.shape, strict=True)
        extents = tuple(want if found < 0 else found for found, want in pairs)
        return TensorMetadata(one.name, one.datatype, extents)

    def _reshaped(self, arrays: Outputs, shapes: Mapping[str, tuple[int, ...]]) -> Outputs:
        """The arrays with these shapes behind their batch axis."""
        found = dict(arrays)
        for name in shapes.keys() & arrays.keys():
            batch = arrays[name].shape[:1] if self._has_batch_axis else ()
            found[name] = arrays[name].reshape(*batch, *shapes[name])
        return found

    def expect(self, kind: str, inputs: Mapping[str, str]) -> None:
        """Raise KindError unless the graph takes exactly these ``inputs``, such as
        ``FP32[?, 64]`` by name, and a batch of rows or one row at a time.
        """
        for port in (*self.inputs.values(), *self.outputs.values()):
            if port.shape[:1] not in ((-1,), (1,)):
                raise KindError(
                    f"model {self.name!r}: {port} has no open first axis for the rows of a batch, "
                    f"as kind {kind!r} wants; export it with one, or choose kind 'tensors'"
                )
        wanted = [f"{what} {name!r}" for name, what in inputs.items()]
        found = [str(port) for port in self.inputs.values()]
        if [it.replace("[1", "[?", 1) for it in found] != wanted:
            raise KindError(
                f"model {self.name!r}: kind {kind!r} wants a graph that takes "
                f"{' and '.join(wanted)}; this one takes {' and '.join(found)}"
            )

    def _rows_max(self) -> int:
        """The most rows of a run where the configuration does not say: what a graph computes on the
        way takes several times the memory of its inputs.
        """
        shapes = [port.row_shape for port in self.inputs.values()]
        if any(-1 in shape for shape in shapes):
            return OPEN_ROWS_MAX
        row_bytes = sum(
            prod(port.row_shape) * ITEM_BYTES.get(port.datatype, 1) for port in self.inputs.values()
        )
        return max(1, min(ROWS_MAX, RUN_BYTES_MAX // max(1, row_bytes)))

    def _describe(self, ports: Iterable[Any], what: str) -> dict[str, TensorMetadata]:
        """The ports by name; ModelError if one can't be served, or they are too many."""
        found = {port.name: self._metadata(port, what) for port in ports}
        if len(found) > TENSORS_MAX:
            raise ModelError(
                f"model {self.name!r}: it has {len(found)} {what}s; at most {TENSORS_MAX} can be "
                "served"
            )
        return found

    def _metadata(self, port: Any, what: str) -> TensorMetadata:
        if port.type not in DATATYPES:
            raise ModelError(
                f"model {self.name!r}: its {what} {port.name!r} is a {port.type}, which can't be "
                f"served; tensors of {', '.join(DATATYPES.values())} can"
                + (SEQUENCE_HINT if port.type.startswith("seq(map") else "")
            )
        if len(port.shape) > DIMENSIONS_MAX or len(port.name) > NAME_LENGTH_MAX:
            raise ModelError(
                f"model {self.name!r}: its {what} {port.name[:100]!r} has {len(port.shape)} "
                f"axes and a name of {len(port.name):,} characters; at most {DIMENSIONS_MAX} and "
                f"{NAME_LENGTH_MAX:,} can be served"
            )
        extents = (it if isinstance(it, int) and it >= 0 else -1 for it in port.shape)
        return TensorMetadata(port.name, DATATYPES[port.type], tuple(extents))


SEQUENCE_HINT = "; skl2onnx gives a tensor with options={'zipmap': False}"


def _agree(told: TensorMetadata, port: TensorMetadata) -> bool:
    return (
        told.datatype == port.datatype
        and len(told.shape) == len(port.shape)
        and all(-1 in (a, b) or a == b for a, b in zip(told.shape, port.shape, strict=True))
    )
