"""Real models for the cluster: found in folders, opened in ONNX Runtime, run on batches.

A worker calls `model_handlers` with the names it serves and gets a batch handler for each: a list
of payloads in, a list of results out, in order. **A bad payload does not fail its batch: its place
in the list holds the exception** (a `PayloadError` or a `ModelError`) instead of a result.

The format of payloads and results depends on the model's kind: see the modules of
`cluster.models.kinds`. This module imports neither numpy nor onnxruntime until a model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from cluster.models.frames.tensors import DESCRIBE, MAGIC
from cluster.models.kinds.adapter import Adapter, Question
from cluster.models.kinds.embedding import TextEmbedding
from cluster.models.kinds.filetypes import FileTypes, file_payload
from cluster.models.kinds.named_tensors import NamedTensors, NoFrame
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
from cluster.models.runtime.network import Network, Outputs, TensorMetadata
from cluster.models.runtime.session import PREFERENCE
from cluster.models.runtime.sharing import SHARED_BYTES_MIN, open_network
from cluster.vocabulary.errors import did_you_mean

__all__ = [
    "BatchHandler",
    "Model",
    "ModelError",
    "ModelInfo",
    "ModelRepository",
    "PayloadError",
    "Question",
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
    "tensors": NamedTensors,
    "text-embedding": TextEmbedding,
}


class ModelInfo(msgspec.Struct, frozen=True):
    """A loaded model: what `DESCRIBE` is answered with, as JSON.

    ``versions`` are those served here. ``inputs`` and ``outputs`` are the graph's own, -1 for an
    open axis; with ``batches`` the first axis of each is that of a batch, of at most
    ``batch_items_max`` rows in one run of the session. ``load_ms`` is how long this load took,
    ``network_ms`` of it for the network; the first load of a process includes the import of the
    runtime. `cluster.models.runtime.session` explains ``provider`` and ``nodes_by_provider``.
    ``shared`` says that its weights are mapped, once for all workers of the host; ``notes`` tell
    what this load had to make, and why: see `cluster.models.runtime.sharing`.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    kind: str
    description: str
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    batches: bool
    batch_items_max: int
    labels: tuple[Label, ...]
    provider: str
    device: str | None
    nodes_by_provider: dict[str, int] | None
    precision: str
    threads: int
    sessions: int
    load_ms: float
    network_ms: float
    file_size_bytes: int
    file_sha256: str
    shared: bool
    notes: tuple[str, ...]


class Model:
    """A loaded model, made by `ModelRepository.load`.

    ``prepare`` needs no network, so a thread of its own may call it while ``run`` computes. All
    methods may be called from any thread.
    """

    def __init__(self, network: Network, adapter: Adapter, frames: NamedTensors, info: ModelInfo):
        self.name = info.name
        self.version = info.version
        self.provider = network.provider
        self.threads = network.threads
        self.labels = info.labels
        self._network = network
        self._adapter = adapter
        self._frames = frames
        self._info = info

    def describe(self) -> ModelInfo:
        """The model's description as plain data."""
        return self._info

    def prepare(self, payload: bytes | memoryview) -> Question | bytes | Exception:
        """The question in a payload, its result if that needs no run, or why it is refused."""
        if payload == DESCRIBE:
            return msgspec.json.encode(self._info)
        try:
            if bytes(payload[: len(MAGIC)]) == MAGIC:
                try:
                    return self._frames.read(payload)
                except NoFrame:
                    if not self._adapter.takes_any_bytes:
                        raise
            return self._adapter.read(payload)
        except PayloadError as error:
            return PayloadError(f"model {self.name!r}: {error}")

    def run(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """The result of each question of one bucket, or the exception in its place.

        They run together. One that fails inside the runtime does not fail the others: the runtime
        does not say which one it was, so each is run again alone. Rows over ``batch_items_max``
        take a run of their own.
        """
        if not questions:
            return []
        if len(questions) > 1 and not questions[0].by_rows:
            return [answer for question in questions for answer in self.run([question])]
        try:
            outputs = self._run(questions)
        except ModelError as error:
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self.run([question])]
        if not questions[0].by_rows:
            return [self._written(questions[0], outputs)]
        results: list[bytes | Exception] = []
        start = 0
        for question in questions:
            end = start + question.items
            rows = {name: outputs[name][start:end] for name in question.outputs}
            results.append(self._written(question, rows))
            start = end
        return results

    def handle_batch(self, payloads: Sequence[bytes]) -> list[bytes | Exception]:
        """The result of each payload, or the exception in its place: `prepare`, then `run` for
        those of each bucket, as many at once as ``batch_items_max`` allows.
        """
        answers = [self.prepare(payload) for payload in payloads]
        buckets: dict[Hashable, list[int]] = {}
        for at, answer in enumerate(answers):
            if isinstance(answer, Question):
                buckets.setdefault(answer.bucket, []).append(at)
        for places in buckets.values():
            for some in _runs(answers, places, self._info.batch_items_max):
                questions = [it for at in some if isinstance(it := answers[at], Question)]
                for at, result in zip(some, self.run(questions), strict=True):
                    answers[at] = result
        return [it for it in answers if not isinstance(it, Question)]

    def infer_batch(self, payloads: Sequence[bytes]) -> list[bytes]:
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

    def _written(self, question: Question, outputs: Outputs) -> bytes | Exception:
        try:
            return question.write(outputs)
        except ModelError as error:
            return ModelError(f"model {self.name!r} {error}")

    def _run(self, questions: Sequence[Question]) -> Outputs:
        """The outputs that the questions need, of all their rows in order."""
        import numpy as np

        first, *others = questions
        network, feed = self._network, first.inputs
        names = dict.fromkeys(name for question in questions for name in question.outputs)
        if not first.by_rows:
            return network.run(feed, names)
        if others:  # the usual case needs no copy
            feed = {n: np.concatenate([it.inputs[n] for it in questions]) for n in feed}
        rows, most = len(next(iter(feed.values()))), network.rows_max
        if not rows:
            return network.no_rows(names)
        if rows <= most:
            return network.run(feed, names, rows)
        parts = [
            network.run(part, names, len(next(iter(part.values()))))
            for start in range(0, rows, most)
            for part in [{name: it[start : start + most] for name, it in feed.items()}]
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _runs(answers: Sequence[object], places: Sequence[int], items_max: int) -> Iterator[list[int]]:
    """The places of questions in groups of at most ``items_max`` items; a larger one is alone."""
    some: list[int] = []
    items = 0
    for at in places:
        question = answers[at]
        assert isinstance(question, Question)
        if some and items + question.items > items_max:
            yield some
            some, items = [], 0
        some.append(at)
        items += question.items
    if some:
        yield some


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

    def load(self, name: str, *, threads: int = 1, preference: Sequence[str] = PREFERENCE) -> Model:
        """Open a model on the first provider of ``preference`` that runs it.

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
        network, file = open_network(
            manifest, path, self._cache, threads, preference, self._share_bytes_min
        )
        opened_s = time.perf_counter()
        adapter = KINDS[manifest.kind](manifest, path, network)
        ended_s = time.perf_counter()
        info = ModelInfo(
            name=manifest.name,
            version="1",
            versions=("1",),
            kind=manifest.kind,
            description=manifest.description,
            platform="onnxruntime_onnx",
            inputs=tuple(network.inputs.values()),
            outputs=tuple(network.outputs.values()),
            batches=network.batches,
            batch_items_max=network.rows_max,
            labels=adapter.labels,
            provider=network.provider,
            device=None,
            nodes_by_provider=network.nodes_by_provider,
            precision="original",
            threads=network.threads,
            sessions=1,
            load_ms=(ended_s - started_s) * 1e3,
            network_ms=(opened_s - started_s) * 1e3,
            file_size_bytes=path.stat().st_size,
            file_sha256=self._cache.sha256(path),
            shared=file.shared,
            notes=file.notes,
        )
        return Model(network, adapter, NamedTensors(manifest, path, network), info)

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
