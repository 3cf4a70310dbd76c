"""Real models for the cluster: found in folders, opened in ONNX Runtime, run on batches.

A worker calls `model_handlers` with the names it serves and gets a batch handler for each: a list
of payloads in, a list of results out, in order. **A bad payload does not fail its batch: its place
in the list holds the exception** (a `PayloadError` or a `ModelError`) instead of a result.

The format of payloads and results depends on the model's kind: see the modules of
`cluster.models.kinds`. This module imports neither numpy nor onnxruntime until a model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from cluster.models.kinds.adapter import Adapter, Question
from cluster.models.kinds.embedding import TextEmbedding
from cluster.models.kinds.filetypes import FileTypes, file_payload
from cluster.models.kinds.rows import Rows
from cluster.models.repository.manifest import (
    MANIFEST,
    Label,
    Manifest,
    ModelError,
    PayloadError,
    model_path,
    read_manifest,
)
from cluster.models.runtime.cache import Cache
from cluster.models.runtime.choice import DEFAULT_WISH, Wish, choose
from cluster.models.runtime.network import Network
from cluster.models.runtime.session import PREFERENCE
from cluster.models.runtime.sharing import SHARED_BYTES_MIN, Workshop, open_network
from cluster.vocabulary.errors import did_you_mean

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
    "model_handlers",
]

#: Payloads to results in the same order, an exception in the place of each that failed.
BatchHandler: TypeAlias = Callable[[list[bytes]], list[bytes | Exception]]

BUILT_IN = Path(__file__).parent

#: The adapter of each kind of model. A new kind is an `Adapter` and a line here.
KINDS: Mapping[str, Callable[[Manifest, Path, Network], Adapter]] = {
    "file-type": FileTypes,
    "rows": Rows,
    "text-embedding": TextEmbedding,
}


class ModelInfo(msgspec.Struct, frozen=True):
    """A loaded model for a status page: its kind, its exact file, and where it runs.

    ``load_ms`` is how long this load took, ``network_ms`` of it for the network; the first load of
    a process includes the import of the runtime. `cluster.models.runtime.session` explains
    ``provider`` and ``nodes_by_provider``. ``shared`` says that its weights are mapped, once for
    all workers of the host; ``notes`` tell what this load had to make, and why: see
    `cluster.models.runtime.sharing`.
    """

    name: str
    kind: str
    description: str
    provider: str
    device: str
    nodes_by_provider: dict[str, int] | None
    precision: str
    threads: int
    labels: int
    load_ms: float
    network_ms: float
    file_size_bytes: int
    file_sha256: str
    shared: bool
    notes: tuple[str, ...]


class Model:
    """A loaded model, made by `ModelRepository.load`."""

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
        """The model's description as plain data."""
        return self._info

    def handle_batch(self, payloads: list[bytes]) -> list[bytes | Exception]:
        """The result of each payload, or the exception in its place."""
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
            ModelError: the first exception among the results of `handle_batch`.
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
            # The runtime does not say which one failed: run each alone.
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self._answer([question])]
        results: list[bytes | Exception] = []
        start = 0
        for question in questions:
            end = start + len(question.rows)
            try:
                results.append(self._adapter.write(question, outputs[start:end]))
            except ModelError as error:
                results.append(ModelError(f"model {self.name!r} {error}"))
            start = end
        return results

    def _run(self, questions: list[Question]) -> NDArray[Any]:
        import numpy as np

        feeds = self._adapter.feeds(questions, self._batch_rows_max)
        parts = [self._network.run(feed) for feed in feeds]
        if len(parts) == 1:  # the usual case needs no copy
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, len(self.labels)), np.float32)


class ModelRepository:
    """The models that come with the cluster, and those in the folders of ``root``.

    A folder with a ``model.toml`` is a model of the folder's name. One in ``root`` replaces a
    built-in one of the same name; `Model.describe` tells the served file's hash.

    Workers of one host share the weights of models of ``share_bytes_min`` bytes or more, unless
    ``share`` is false. The files this needs are kept in ``cache``, by default the user's.

    Raises:
        ModelError: ``root`` is not a directory.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        share: bool = True,
        share_bytes_min: int = SHARED_BYTES_MIN,
        cache: Cache | None = None,
    ) -> None:
        self._roots = [BUILT_IN]
        self._share_bytes_min = share_bytes_min if share else None
        self._cache = cache or Cache()
        if root is not None:
            if not Path(root).is_dir():
                raise ModelError(f"the model directory {root} does not exist")
            self._roots.append(Path(root))

    def names(self) -> list[str]:
        """Every model's name, sorted; nothing is opened, so a listed model may fail to load."""
        return sorted(self._folders())

    def load(
        self,
        name: str,
        *,
        threads: int = 1,
        wish: Wish = DEFAULT_WISH,
        preference: Sequence[str] = PREFERENCE,
    ) -> Model:
        """Open a model as ``wish`` says: on the card of this process, if it has one and that is
        faster, or else on the first provider of ``preference`` that runs it.

        Raises:
            ModelError: there is no such model, it is broken, or a package is not installed.
        """
        folders = self._folders()
        if name not in folders:
            hint = did_you_mean(name, folders) or f"; there are {', '.join(sorted(folders))}"
            raise ModelError(f"there is no model {name!r}{hint}")
        if threads < 1:
            raise ModelError(f"model {name!r}: threads must be 1 or more, not {threads}")
        started_s = time.perf_counter()
        manifest = read_manifest(folders[name])
        if manifest.kind not in KINDS:
            raise ModelError(
                f"model {name!r}: there is no kind {manifest.kind!r}; there are {', '.join(KINDS)}"
            )
        path = model_path(manifest, folders[name])
        choice = choose(Workshop(self._cache, name, path), self._cache, wish, threads=threads)
        network, file = open_network(
            manifest, path, self._cache, threads, choice.preference or preference,
            self._share_bytes_min, choice.precision,
        )  # fmt: skip
        choice.accept(network.opened)
        opened_s = time.perf_counter()
        adapter = KINDS[manifest.kind](manifest, path, network)
        ended_s = time.perf_counter()
        info = ModelInfo(
            name=manifest.name,
            kind=manifest.kind,
            description=manifest.description,
            provider=network.provider,
            device=network.device,
            nodes_by_provider=network.nodes_by_provider,
            precision=choice.precision,
            threads=network.threads,
            labels=len(adapter.labels),
            load_ms=(ended_s - started_s) * 1e3,
            network_ms=(opened_s - started_s) * 1e3,
            file_size_bytes=path.stat().st_size,
            file_sha256=self._cache.sha256(path),
            shared=file.shared,
            notes=(*choice.notes, *file.notes),
        )
        return Model(manifest, network, adapter, info)

    def _folders(self) -> dict[str, Path]:
        return {
            path.parent.name: path.parent
            for root in self._roots
            for path in sorted(root.glob(f"*/{MANIFEST}"))
        }


def model_handlers(
    names: Iterable[str], root: str | Path | None = None, *, share: bool = True
) -> dict[str, BatchHandler]:
    """A batch handler for each of these models, by name, as described at this file's top.

    Raises:
        ModelError: from the first of them that cannot be loaded.
    """
    repository = ModelRepository(root, share=share)
    return {name: repository.load(name).handle_batch for name in names}
