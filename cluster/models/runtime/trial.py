"""Tries a network out when it is loaded: golden outputs, independent rows, a first run.

**Golden output**: ``golden_in.npz`` and ``golden_out.npz``, as numpy's ``savez`` writes them, hold
arrays by the graph's names. A provider whose outputs differ is not used. A number with a fraction
may differ by ``golden_atol + golden_rtol * |golden|``; everything else must be equal.

**Rows**: that a graph leaves its first axes open does not mean that they are those of a batch. They
may be a sequence's steps, or the objects found in a picture. So some rows are run together and
alone, and unless the outputs are the same, questions never share a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.frames.arrays import NUMPY, converted, load_arrays
from cluster.models.frames.metadata import TensorMetadata, fits
from cluster.models.frames.tensor import TENSOR_BYTES_MAX, TensorError
from cluster.models.frames.tensors import ITEM_BYTES
from cluster.models.repository.manifest import Manifest, ModelError
from cluster.models.runtime.golden import gaps
from cluster.models.runtime.network import Network, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN_IN = "golden_in.npz"
GOLDEN_OUT = "golden_out.npz"

#: Tried for the extents that a graph leaves open, until one suits it.
EXTENTS = (8, 32, 64, 224, 1)
ROWS = 4
#: Runs of other sizes round differently; rows that depend on each other differ by far more.
ROWS_RTOL = 1e-2
ROWS_ATOL = 1e-3


class Golden(NamedTuple):
    """Inputs and the outputs that they must give."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    rtol: float
    atol: float

    def take_inputs(self, network: Network) -> dict[str, NDArray[Any]]:
        """The inputs as a network takes them; ModelError if they don't fit it."""
        inputs = fitting(network.name, GOLDEN_IN, self.inputs, network.inputs)
        for name, port in network.inputs.items():
            if name not in inputs or not fits(inputs[name].shape, port.shape):
                given = list(inputs[name].shape) if name in inputs else "nothing"
                raise ModelError(f"model {network.name!r}: {GOLDEN_IN} has {given} for {port}")
        return inputs

    def check(self, network: Network) -> None:
        """Raise ModelError, with the largest difference, unless a network gives these outputs."""
        inputs = self.take_inputs(network)
        expected = fitting(network.name, GOLDEN_OUT, self.outputs, network.outputs)
        if network.batches and len({len(it) for it in inputs.values()}) > 1:
            raise ModelError(f"model {network.name!r}: {GOLDEN_IN} has inputs of unlike rows")
        found = (
            network.run_rows(inputs, expected) if network.batches else network.run(inputs, expected)
        )
        for name, wanted in expected.items():
            if said := mismatch(wanted, found[name], self.rtol, self.atol):
                raise ModelError(
                    f"model {network.name!r} on {network.provider}: the output {name!r} is not the "
                    f"golden one: {said}"
                )


class Trial(NamedTuple):
    """What came of trying a network out: ``golden`` says that it gave its golden outputs,
    ``refusal`` why it took no made-up input, where there was no golden one. ``notes`` are for those
    who look at the model.
    """

    golden: bool
    refusal: str | None
    notes: tuple[str, ...]


def try_out(manifest: Manifest, network: Network, places: Iterable[Path], *, asks: bool) -> Trial:
    """Check a network's golden outputs, and have it run once.

    ``places`` may hold golden files. With ``asks`` a network that batches is asked whether its rows
    are independent, and stops batching unless they are.

    Raises:
        ModelError: the golden outputs differ, or can't be read.
    """
    golden = read_golden(manifest, places)
    notes = []
    feed, refusal = first_run(network)
    if refusal is not None and golden is None:
        notes.append(f"it has not run yet: it takes no made-up input: {refusal}")
    if asks and network.batches:
        # Golden rows may be all alike, and made-up ones may not be taken.
        feeds = [] if refusal else [feed]
        reasons = []
        if golden is not None and _rows(golden.inputs) > 1:
            taken = golden.take_inputs(network)
            feeds.append({name: it[:ROWS] for name, it in taken.items()})
            if len({len(it) for it in taken.values()}) > 1:
                reasons = ["its golden inputs have unlike first extents"]
        reasons = reasons or [why for it in feeds if (why := rows_depend(network, it))]
        if why := refusal if not feeds else next(iter(reasons), None):
            network.stop_batching()
            notes.append(
                f"it does not batch: {why}; `batches = true` in its config.toml has rows run "
                "together all the same"
            )
    if golden is not None:
        golden.check(network)
    return Trial(golden is not None, refusal if golden is None else None, tuple(notes))


def read_golden(manifest: Manifest, places: Iterable[Path]) -> Golden | None:
    """The golden arrays in the first of some folders that has them; None without any.

    Raises:
        ModelError: they cannot be read, or one of the two files is missing.
    """
    for place in places:
        files = place / GOLDEN_IN, place / GOLDEN_OUT
        if any(file.exists() for file in files):
            try:
                inputs, outputs = map(load_arrays, files)
            except TensorError as error:
                raise ModelError(f"model {manifest.name!r}: {error}") from error
            return Golden(inputs, outputs, manifest.golden_rtol, manifest.golden_atol)
    return None


def mismatch(wanted: NDArray[Any], found: NDArray[Any], rtol: float, atol: float) -> str | None:
    """How an array differs from the wanted one; None within the bounds."""
    import numpy as np

    if wanted.shape != found.shape:
        return f"its shape is {list(found.shape)} instead of {list(wanted.shape)}"
    apart = gaps(wanted, found)
    bounds: NDArray[Any] = np.zeros(wanted.shape)
    allowed = "; they must be equal"
    if found.dtype.kind == "f":
        exact = wanted.astype(np.float64)
        bounds = np.where(np.isfinite(exact), atol + rtol * np.abs(exact), 0.0)
        worst = apart.max(initial=0.0, where=apart > bounds)
        allowed = f", by {worst:.3g}; allowed are {atol:g} + {rtol:g} × the value"
    differs = apart > bounds
    if not differs.any():
        return None
    at = np.unravel_index(int(np.where(differs, apart, 0.0).argmax()), apart.shape)
    return (
        f"{np.count_nonzero(differs):,} of {apart.size:,} values differ, most of all {found[at]!s} "
        f"instead of {wanted[at]!s} at {[int(it) for it in at]}{allowed}"
    )


def made_up(
    inputs: Mapping[str, TensorMetadata], rows: int, extent: int = EXTENTS[0], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Inputs for a graph: fractions from 0 to 1, whole numbers and truths 0 or 1, short texts.

    ``rows`` is the extent of open first axes, ``extent`` that of all other open ones.

    Raises:
        ModelError: an input would be larger than one that can be sent.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    found = {}
    for name, port in inputs.items():
        shape = [it if it >= 0 else extent for it in port.shape]
        if port.shape[:1] == (-1,):
            shape[0] = rows
        if prod(shape) * ITEM_BYTES.get(port.datatype, 1) > TENSOR_BYTES_MAX:
            raise ModelError(
                f"its input {port} is too large with {shape}: at most {TENSOR_BYTES_MAX:,} bytes "
                "can be sent"
            )
        if port.datatype == "BYTES":
            found[name] = random.choice(np.array(["a", "b c"], object), shape)
        elif port.datatype.startswith("FP"):
            found[name] = np.asarray(random.random(shape), NUMPY[port.datatype])
        else:
            found[name] = np.asarray(random.integers(0, 2, shape), NUMPY[port.datatype])
    return found


def first_run(network: Network) -> tuple[dict[str, NDArray[Any]], str | None]:
    """Made-up inputs that a network takes, of several rows if it batches, after a run with them;
    or the last ones tried and why it takes none.
    """
    rows = min(ROWS, network.rows_max)
    feed: dict[str, NDArray[Any]] = {}
    reason = None
    for extent in EXTENTS:
        try:
            feed = made_up(network.inputs, rows if network.batches else extent, extent)
            network.run(feed, network.outputs)
        except ModelError as error:
            reason = reason or str(error)
            if not any(
                -1 in port.shape[int(network.batches) :] for port in network.inputs.values()
            ):
                break
        else:
            return feed, None
    return feed, reason


def rows_depend(network: Network, feed: Mapping[str, NDArray[Any]]) -> str | None:
    """Why questions must not share a run, as the rows of these inputs show; None if they may."""
    import numpy as np

    rows = len(next(iter(feed.values())))
    try:
        together = network.run(feed, network.outputs, rows)
        alone = [
            network.run({name: it[at : at + 1] for name, it in feed.items()}, network.outputs, 1)
            for at in range(rows)
        ]
    except ModelError as error:
        return str(error)
    for name in network.outputs:
        try:
            joined = np.concatenate([one[name] for one in alone])
        except ValueError:
            return f"the output {name!r} has another shape for each row"
        if said := mismatch(joined, together[name], ROWS_RTOL, ROWS_ATOL):
            return f"the output {name!r} of several rows is not that of each: {said}"
    return None


def fitting(
    model: str, file: str, arrays: Mapping[str, NDArray[Any]], ports: Mapping[str, TensorMetadata]
) -> Outputs:
    """The arrays of a file by the graph's names, with its types, in its order.

    Raises:
        ModelError: the graph has no such name, or an array can't be of its type.
    """
    if len(arrays) <= len(ports) and all(it == f"arr_{n}" for n, it in enumerate(arrays)):
        arrays = dict(zip(ports, arrays.values(), strict=False))  # savez without names
    unknown = [repr(name) for name in arrays if name not in ports]
    if unknown or not arrays:
        raise ModelError(
            f"model {model!r}: {file} has {unknown[0] if unknown else 'no array'}; the graph has "
            f"{', '.join(map(repr, ports))}"
        )
    found = {}
    for name, port in ports.items():
        if name not in arrays:
            continue
        try:
            found[name] = converted(arrays[name], port.datatype)
        except TensorError as error:
            raise ModelError(f"model {model!r}: {file}: {name!r}: {error}") from error
    return found


def _rows(arrays: Mapping[str, NDArray[Any]]) -> int:
    return min((len(it) if it.ndim else 1 for it in arrays.values()), default=0)
