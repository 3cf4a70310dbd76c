"""Real models for the cluster: found in folders, opened in ONNX Runtime, asked in batches.

A worker calls `model_handlers` with the names it was told to serve and gets a batch handler for
each: a list of payloads in, a list of results out, in order. **A payload that cannot be answered
does not fail its batch: its place in the list holds the exception** (a `PayloadError` or a
`ModelError`) instead of the bytes of a result.

What a payload and a result look like depends on the model's kind: see `cluster.models.rows` and
`cluster.models.filetypes`. This module imports neither numpy nor onnxruntime until a model is
loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from cluster.models.adapter import Adapter, Question
from cluster.models.filetypes import FileTypes, file_payload
from cluster.models.manifest import (
    MANIFEST,
    Label,
    Manifest,
    ModelError,
    PayloadError,
    model_path,
    read_manifest,
)
from cluster.models.network import PREFERENCE, Network
from cluster.models.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BatchHandler",
    "Model",
    "ModelError",
    "ModelInfo",
    "ModelRepository",
    "PayloadError",
    "file_payload",
    "load_models",
    "model_handlers",
]

#: A list of payloads to a list of results in the same order, an exception in the place of each that
#: failed.
BatchHandler: TypeAlias = Callable[[list[bytes]], list[bytes | Exception]]

BUILT_IN = Path(__file__).parent / "models"

#: How payloads of each kind of model are read. A new kind is an `Adapter` and a line here.
KINDS: Mapping[str, Callable[[Manifest, Path, Network], Adapter]] = {
    "file-type": FileTypes,
    "rows": Rows,
}


class ModelInfo(msgspec.Struct, frozen=True):
    """A loaded model for a status page: what it is, which file exactly, and where it runs.

    ``load_ms`` is how long it took to read and open it this once; the first load of a process
    includes the import of the runtime. ``provider`` and ``nodes_by_provider`` are explained at
    `cluster.models.network.Network`.
    """

    name: str
    kind: str
    description: str
    provider: str
    nodes_by_provider: dict[str, int] | None
    threads: int
    labels: int
    load_ms: float
    file_size_bytes: int
    file_sha256: str


class Model:
    """A model that is loaded and can be asked; made by `ModelRepository.load`."""

    def __init__(self, manifest: Manifest, network: Network, adapter: Adapter, info: ModelInfo):
        self.name = manifest.name
        self.provider = network.provider
        self.threads = network.threads
        self.labels: tuple[Label, ...] = adapter.labels
        self._batch_rows_max = manifest.batch_rows_max
        self._network = network
        self._adapter = adapter
        self._info = info

    def describe(self) -> ModelInfo:
        """What there is to know about it, as plain data."""
        return self._info

    def handle_batch(self, payloads: list[bytes]) -> list[bytes | Exception]:
        """The result of each payload, or the exception that took its place."""
        answers: list[bytes | Exception | Question] = []
        for payload in payloads:
            try:
                answers.append(self._adapter.read(payload))
            except PayloadError as error:
                answers.append(PayloadError(f"model {self.name!r}: {error}"))
        results = iter(self._answer([it for it in answers if isinstance(it, Question)]))
        return [next(results) if isinstance(it, Question) else it for it in answers]

    def infer_batch(self, payloads: list[bytes]) -> list[bytes]:
        """The result of each payload.

        Raises:
            ModelError: the first exception that `handle_batch` has among its results.
        """
        results = []
        for result in self.handle_batch(payloads):
            if isinstance(result, Exception):
                raise result
            results.append(result)
        return results

    def _answer(self, questions: list[Question]) -> list[bytes | Exception]:
        if not questions:
            return []
        try:
            outputs = self._run(questions)
        except ModelError as error:
            # Which one it was is not said: ask each alone, so that the others get their answers.
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self._answer([question])]
        results: list[bytes | Exception] = []
        start = 0
        for question in questions:
            end = start + len(question.rows)
            results.append(self._adapter.write(question, outputs[start:end]))
            start = end
        return results

    def _run(self, questions: list[Question]) -> NDArray[Any]:
        import numpy as np

        feed = self._adapter.join(questions)
        rows = sum(len(question.rows) for question in questions)
        step = self._batch_rows_max
        parts = [
            self._network.run({name: array[start : start + step] for name, array in feed.items()})
            for start in range(0, rows, step)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.labels)), np.float32)


class ModelRepository:
    """The models that come with the cluster and those in the folders of ``root``, if one is given.

    A folder with a ``model.toml`` is a model, and its name is the model's. One in ``root`` stands
    before a built-in one of the same name; `Model.describe` tells by its hash which file is being
    served.

    Raises:
        ModelError: ``root`` is not a directory.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._roots = [BUILT_IN]
        if root is not None:
            if not Path(root).is_dir():
                raise ModelError(f"the model directory {root} does not exist")
            self._roots.append(Path(root))

    def names(self) -> list[str]:
        """Every model's name, sorted; nothing is opened, so a name is no promise that it loads."""
        return sorted(self._folders())

    def load(self, name: str, *, threads: int = 1, preference: Sequence[str] = PREFERENCE) -> Model:
        """Open a model on the first provider of ``preference`` that runs it, with so many threads.

        Raises:
            ModelError: there is no such model, it is broken, or what it needs is not installed.
        """
        folders = self._folders()
        if name not in folders:
            close = difflib.get_close_matches(name, folders, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ModelError(
                f"there is no model {name!r}; {hint}available: {', '.join(sorted(folders))}"
            )
        if threads < 1:
            raise ModelError(f"model {name!r}: threads must be 1 or more, not {threads}")
        started_s = time.perf_counter()
        manifest = read_manifest(folders[name])
        if manifest.kind not in KINDS:
            raise ModelError(
                f"model {name!r}: there is no kind {manifest.kind!r}; known: {', '.join(KINDS)}"
            )
        path = model_path(manifest, folders[name])
        network = Network(manifest, path, threads, preference)
        adapter = KINDS[manifest.kind](manifest, path, network)
        load_ms = (time.perf_counter() - started_s) * 1e3
        return Model(manifest, network, adapter, _info(manifest, path, network, adapter, load_ms))

    def _folders(self) -> dict[str, Path]:
        return {
            path.parent.name: path.parent
            for root in self._roots
            for path in sorted(root.glob(f"*/{MANIFEST}"))
        }


def load_models(
    names: Iterable[str], root: str | Path | None = None, *, threads: int = 1
) -> dict[str, Model]:
    """Each of these models, loaded, by name.

    Raises:
        ModelError: from the first of them that cannot be loaded.
    """
    repository = ModelRepository(root)
    return {name: repository.load(name, threads=threads) for name in names}


def model_handlers(
    names: Iterable[str], root: str | Path | None = None, *, threads: int = 1
) -> dict[str, BatchHandler]:
    """A batch handler for each of these models, by name; their convention is at this file's top.

    Raises:
        ModelError: from the first of them that cannot be loaded.
    """
    loaded = load_models(names, root, threads=threads)
    return {name: model.handle_batch for name, model in loaded.items()}


def _info(
    manifest: Manifest, path: Path, network: Network, adapter: Adapter, load_ms: float
) -> ModelInfo:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    return ModelInfo(
        name=manifest.name,
        kind=manifest.kind,
        description=manifest.description,
        provider=network.provider,
        nodes_by_provider=network.nodes_by_provider,
        threads=network.threads,
        labels=len(adapter.labels),
        load_ms=load_ms,
        file_size_bytes=size_bytes,
        file_sha256=sha256,
    )
