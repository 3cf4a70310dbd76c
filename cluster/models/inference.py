"""Real models for the cluster: found in folders, opened in ONNX Runtime, run on batches.

A worker calls `model_handlers` with the names it serves and gets a batch handler for each: a list
of payloads in, a list of results out, in order. **A bad payload does not fail its batch: its place
in the list holds the exception** (a `PayloadError` or a `ModelError`) instead of a result.

Every model takes frames of named tensors (`cluster.models.frames.tensors`); what else, depends on
its kind: see the modules of `cluster.models.kinds`. This module imports neither numpy nor
onnxruntime until a model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeAlias

from cluster.models.exam import exam_of, first_look
from cluster.models.kinds.adapter import Adapter, Question
from cluster.models.kinds.embedding import TextEmbedding
from cluster.models.kinds.filetypes import FileTypes, file_payload
from cluster.models.kinds.named_tensors import NamedTensors
from cluster.models.kinds.rows import Rows
from cluster.models.loaded import Model, ModelInfo
from cluster.models.repository.folders import (
    ModelFolder,
    default_repository,
    is_path,
    model_folders,
    model_name,
    read_model,
)
from cluster.models.repository.manifest import Manifest, ModelError, PayloadError
from cluster.models.runtime.cache import Cache
from cluster.models.runtime.candidates import PART_ROWS
from cluster.models.runtime.choice import AS_IS, AUTO, Wish, choose
from cluster.models.runtime.network import Network, Outputs
from cluster.models.runtime.session import CPU, PREFERENCE
from cluster.models.runtime.sharing import SHARED_BYTES_MIN, Workshop, open_network
from cluster.models.runtime.trial import read_golden, try_out
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
    "model_kinds",
    "model_name",
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


class ModelRepository:
    """The models that come with the cluster, and those of the repository ``root``, by default the
    user's own (`cluster.models.repository.folders` describes one).

    One in ``root`` replaces a built-in one of the same name; `Model.describe` tells the served
    file's hash. Wherever a name is taken, the path of a model's file or folder is too.

    Workers of one host share the weights of models of ``share_bytes_min`` bytes or more, unless
    ``share`` is false. The files this needs are kept in ``cache``, by default the user's. A run
    takes ``threads`` threads, by default as many as the model's configuration says.

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
        threads: int | None = None,
    ) -> None:
        self._threads = threads
        self._share_bytes_min = share_bytes_min if share else None
        self._cache = cache or Cache()
        if root is not None and not Path(root).is_dir():
            raise ModelError(f"the model directory {root} does not exist")
        self._roots = [BUILT_IN, Path(root) if root is not None else default_repository()]

    def names(self) -> list[str]:
        """Every model's name, sorted; nothing is opened, so a listed model may fail to load."""
        return sorted(model_folders(self._roots))

    def find(self, name: str) -> ModelFolder:
        """The model of that name or at that path, as its configuration describes it.

        Raises:
            ModelError: there is none, or its configuration is wrong.
        """
        if is_path(name):
            return read_model(Path(name))
        folders = model_folders(self._roots)
        if name not in folders:
            hint = did_you_mean(name, folders) or f"; there are {', '.join(sorted(folders))}"
            raise ModelError(f"there is no model {name!r}{hint}")
        found = read_model(folders[name])
        if found.manifest.kind not in KINDS:
            raise ModelError(
                f"model {name!r}: there is no kind {found.manifest.kind!r}; there are "
                f"{', '.join(KINDS)}"
            )
        return found

    def workshop(self, name: str, version: int | str | None = None) -> Workshop:
        """What makes the files to open for a model, by default its newest version.

        Raises:
            ModelError: there is no such model or version.
        """
        found = self.find(name)
        number = found.served()[-1] if version is None else _version(found, version)
        return Workshop(self._cache, found.manifest.name, found.files[number])

    def load(
        self,
        name: str,
        version: int | str | None = None,
        *,
        threads: int | None = None,
        wish: Wish | None = None,
        preference: Sequence[str] | None = None,
    ) -> Model:
        """Open a model, by default its newest version that is served, on the card of this process
        or the CPU in the precision of ``wish`` (default: as its configuration says).

        With a ``preference`` it is the first of these providers that runs it, and nothing is tried.
        Golden outputs are checked in any case.

        Raises:
            ModelError: there is no such model, it is broken, or a package is not installed.
        """
        found = self.find(name)
        if threads is not None and threads < 1:
            raise ModelError(f"model {name!r}: threads must be 1 or more, not {threads}")
        served = found.served()
        wanted = served[-1] if version is None else _version(found, version)
        threads = threads or self._threads or found.manifest.threads
        manifest = found.manifest
        if wish is None:
            provider = manifest.provider if preference is None else "cpu"
            wish = Wish(provider, manifest.precision, manifest.loss_points_max)
        return self._load(found, wanted, served, threads, wish, preference)

    def _load(
        self,
        found: ModelFolder,
        version: int,
        served: Sequence[int],
        threads: int,
        wish: Wish,
        preference: Sequence[str] | None,
    ) -> Model:
        started_s = time.perf_counter()
        manifest, path = found.manifest, found.files[version]
        places = [path.parent, *([found.folder] if found.folder else [])]
        golden = lru_cache(partial(_golden_inputs, manifest, places))
        choice = choose(
            manifest.name,
            lambda: Workshop(self._cache, manifest.name, path),
            wish,
            lambda plain: (
                exam_of(manifest, partial(_reader, manifest, path, plain), golden())
                if wish.precision == AUTO
                else first_look(golden())
            ),
            lambda: [(name, it.dtype.str, it.tobytes()) for name, it in (golden() or {}).items()],
            threads=threads,
            rows_max=manifest.batch_items_max or PART_ROWS,
        )
        network, file = open_network(
            manifest, path, self._cache, threads, preference or choice.preference or PREFERENCE,
            self._share_bytes_min, choice.precision,
        )  # fmt: skip
        choice.accept(network.opened)
        opened_s = time.perf_counter()
        network.declare(found.inputs, found.outputs)
        # Golden outputs are those of the file as it is; the loss of a conversion has been measured.
        places = places if choice.precision == AS_IS else []
        # In Triton, max_batch_size alone does not yet have clients share a run.
        told = manifest.batches is not None and found.is_ours
        asks = manifest.kind == "tensors" and not told
        trial = try_out(manifest, network, places, asks=asks)
        adapter = KINDS[manifest.kind](manifest, path, network)
        ended_s = time.perf_counter()
        info = ModelInfo(
            name=manifest.name,
            version=str(version),
            versions=tuple(map(str, served)),
            kind=manifest.kind,
            description=manifest.description,
            platform="onnxruntime_onnx",
            inputs=tuple(network.inputs.values()),
            outputs=tuple(network.outputs.values()),
            batches=network.batches,
            batch_items_max=network.rows_max,
            labels=adapter.labels,
            provider=network.provider,
            device=network.device,
            nodes_by_provider=network.nodes_by_provider,
            precision=choice.precision,
            threads=network.threads,
            sessions=1,
            golden=trial.golden,
            load_ms=(ended_s - started_s) * 1e3,
            network_ms=(opened_s - started_s) * 1e3,
            file_size_bytes=file.size_bytes,
            file_sha256=self._cache.sha256(path),
            shared=file.shared,
            loss=choice.row.loss if choice.row else None,
            notes=(*found.notes, *choice.notes, *file.notes, *trial.notes),
        )
        frames = NamedTensors(manifest, path, network)
        return Model(network, adapter, frames, info, refusal=trial.refusal)


def _reader(manifest: Manifest, path: Path, plain: Path) -> Callable[[bytes], object]:
    """What reads payloads into questions, by the ONNX file ``plain`` of a model."""
    network = Network(manifest, plain, preference=(CPU,))
    return KINDS[manifest.kind](manifest, path, network).read


def _golden_inputs(manifest: Manifest, places: Sequence[Path]) -> Outputs | None:
    golden = read_golden(manifest, places)
    return None if golden is None else golden.inputs


def _version(found: ModelFolder, version: int | str) -> int:
    """A version that is there; ModelError if it isn't."""
    there = {str(it): it for it in sorted(found.files)}
    if str(version) not in there:
        raise ModelError(
            f"model {found.manifest.name!r} has no version {version}; there are {', '.join(there)}"
        )
    return there[str(version)]


def model_kinds(names: Iterable[str], root: str | Path | None = None) -> list[str]:
    """The kinds of task that `model_handlers` answers; nothing is loaded.

    Raises:
        ModelError: there is no such model, its configuration is wrong, or two have one name.
    """
    repository = ModelRepository(root)
    found = [repository.find(name) for name in names]
    by_name = {model.manifest.name: model.files for model in found}
    for model in found:
        if model.files != (other := by_name[model.manifest.name]):
            files = " and ".join(str(it[max(it)]) for it in (model.files, other))
            raise ModelError(f"two models are named {model.manifest.name!r}: {files}; rename one")
    return [
        kind
        for model in found
        for kind in (
            model.manifest.name,
            *(f"{model.manifest.name}/{version}" for version in model.served()),
        )
    ]


def model_handlers(
    names: Iterable[str], root: str | Path | None = None, *, share: bool = True
) -> dict[str, BatchHandler]:
    """A batch handler for each of these models, as described at this file's top: ``NAME`` for its
    newest served version, ``NAME/<version>`` for each.

    Raises:
        ModelError: from the first of them that cannot be loaded.
    """
    repository = ModelRepository(root, share=share)
    handlers: dict[str, BatchHandler] = {}
    for name in names:
        for version in repository.find(name).served():
            model = repository.load(name, version)
            handlers[model.name] = handlers[f"{model.name}/{version}"] = model.handle_batch
    return handlers
