"""Makes the file that a session opens from the file that a model's folder names, once per host.

Weights without a graph are converted to ONNX. A large model is mapped instead of loaded: a session
that loads a file copies the weights into its own memory and lays them out for the processor, once
in each worker. Here the runtime does that once and writes the optimised graph, with the laid-out
weights in a file beside it. Every worker's session maps that file, so its pages are in memory once
for all workers, and loading takes little more than reading the graph.

The result depends on the model's file, the runtime's version and the processor's extensions, so all
three are part of the entry's name in the cache. Providers other than the CPU move the weights to
their own memory and are given the plain file.

Each step runs in a process of its own (``python -m cluster.models.runtime.sharing``): the worker
would otherwise keep the memory it took.

The settings are described at
https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html and in
``onnxruntime_session_options_config_keys.h``.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cluster.models.providers.webgpu import WEBGPU
from cluster.models.repository.manifest import Manifest, ModelError
from cluster.models.repository.weights import weight_files
from cluster.models.runtime.cache import Cache, sha256_hex
from cluster.models.runtime.network import Network
from cluster.models.runtime.session import CPU, Provider, load_runtime, session_options
from cluster.models.runtime.subnormals import readable

#: Below this, sharing would save a worker too little memory.
SHARED_BYTES_MIN = 16 << 20
#: Smaller tensors stay in the graph's file.
EXTERNAL_BYTES_MIN = 1024

#: Raised with every change of how a shared file is made.
VERSION = 2

WEIGHTS_SUFFIX = ".safetensors"
MODEL_FILE = "model.onnx"

#: A step that takes longer is stopped.
TIMEOUT_S = 300.0


class ModelFile(NamedTuple):
    """A file to open, and the cache's ``entries`` it comes from. ``shared`` says that the runtime
    has optimised it and its weights are mapped; ``notes`` tell what was made for it now, and why.
    ``size_bytes`` are those of the source, with its weights.
    """

    path: Path
    size_bytes: int = 0
    entries: tuple[str, ...] = ()
    shared: bool = False
    notes: tuple[str, ...] = ()


def open_network(
    manifest: Manifest,
    source: Path,
    cache: Cache,
    threads: int,
    preference: Sequence[Provider],
    share_bytes_min: int | None,
    precision: str = "fp32",
) -> tuple[Network, ModelFile]:
    """A session for the model in ``source`` in a precision, and the file it opened.

    The weights are shared if the file has ``share_bytes_min`` bytes or more (None: never) and the
    CPU is the first available provider of ``preference``. Where sharing fails the plain file is
    opened, and the notes say why.

    Raises:
        ModelError: the source cannot be read or converted, or the runtime refuses it.
    """
    workshop = Workshop(cache, manifest.name, source)
    available = load_runtime(manifest.name).get_available_providers()
    wanted = [it if isinstance(it, str) else it[0] for it in preference]
    first = next((provider for provider in wanted if provider in available), None)
    if first != CPU:
        share_bytes_min = None
    form = precision, first == WEBGPU
    file = workshop.file(share_bytes_min, *form)
    try:
        return Network(manifest, file.path, threads, preference, optimized=file.shared), file
    except ModelError as error:
        if not file.entries:
            raise
        for entry in file.entries:
            cache.discard(entry)
        note = f"the file in the cache was refused: {error}"
        file = workshop.file(share_bytes_min, *form)
        file = file._replace(notes=(note, *file.notes))
    return Network(manifest, file.path, threads, preference, optimized=file.shared), file


class Workshop:
    """Makes the file to open for the model ``name`` from ``source``, the file its folder names."""

    def __init__(self, cache: Cache, name: str, source: Path) -> None:
        self.cache = cache
        self.name = name
        self._source = source
        try:
            is_graph = source.suffix != WEIGHTS_SUFFIX
            self._weights = weight_files(source) if is_graph else []
            self._size_bytes = sum(it.stat().st_size for it in (source, *self._weights))
        except OSError as error:
            raise ModelError(
                f"model {name!r}: cannot read {error.filename}: {error.strerror}"
            ) from error

    def file(
        self, share_bytes_min: int | None, precision: str = "fp32", on_card: bool = False
    ) -> ModelFile:
        """The file to open: shared from ``share_bytes_min`` bytes on, unless that fails.

        Raises:
            ModelError: the source cannot be converted.
        """
        plain = self.in_precision(precision, on_card)
        if share_bytes_min is None or plain.size_bytes < share_bytes_min:
            return plain
        try:
            return self._shared(plain)
        except ModelError as error:
            return plain._replace(notes=(*plain.notes, f"not shared: {error}"))

    def in_precision(self, precision: str, on_card: bool) -> ModelFile:
        """The ONNX file in a precision, made for the CPU or a card; see
        `cluster.models.runtime.convert_precision`.

        Raises:
            ModelError: the source cannot be converted.
        """
        plain = self.plain()
        if precision == "fp32":
            return plain
        from cluster.models.runtime.convert_precision import VERSION as FORM_VERSION

        form = precision, "card" if on_card else "cpu"
        depends_on = FORM_VERSION, load_runtime(self.name).__version__, *plain.entries
        made = self._made(plain, "-".join(form), depends_on, "convert_precision", *form)
        return made._replace(size_bytes=made.path.stat().st_size)

    def hashes(self) -> list[str]:
        """The hash of each file of the model; OSError if one can't be read."""
        return [self.cache.sha256(it) for it in (self._source, *self._weights)]

    def plain(self) -> ModelFile:
        """The ONNX file: the source itself, or its conversion.

        Raises:
            ModelError: the source cannot be converted.
        """
        plain = ModelFile(self._source, self._size_bytes)
        if self._source.suffix != WEIGHTS_SUFFIX:
            return plain
        from cluster.models.runtime.convert_bert import VERSION as GRAPH_VERSION

        return self._made(plain, "onnx", (GRAPH_VERSION,), "convert_bert")

    def _shared(self, plain: ModelFile) -> ModelFile:
        """The file optimised for this processor, its weights in a file that all workers map."""
        depends_on = (VERSION, load_runtime(self.name).__version__, processor(), *plain.entries)
        return self._made(plain, "shared", depends_on, "sharing")._replace(shared=True)

    def _made(
        self, of: ModelFile, what: str, depends_on: Sequence[object], module: str, *options: str
    ) -> ModelFile:
        """The file that ``python -m cluster.models.<module> SOURCE TARGET …`` makes, from the
        cache if it is there.
        """
        try:
            content = repr((*self.hashes(), *depends_on)).encode()
            entry = f"{self.name}-{what}-{sha256_hex(content)[:16]}"
            made = self.cache.entry(
                entry, lambda folder: self._run(module, of.path, folder / MODEL_FILE, *options)
            )
        except OSError as error:
            raise ModelError(
                f"model {self.name!r}: the cache in {self.cache.folder} cannot be used: "
                f"{error.strerror or error}; XDG_CACHE_HOME names another place"
            ) from error
        notes = of.notes if made.reason is None else (*of.notes, f"made {entry}: {made.reason}")
        path = made.folder / MODEL_FILE
        return ModelFile(path, of.size_bytes, (*of.entries, entry), notes=notes)

    def _run(self, module: str, source: Path, target: Path, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            f"cluster.models.runtime.{module}",
            str(source),
            str(target),
            *options,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"model {self.name!r}: {module} was not done with {source} in {TIMEOUT_S:g} s"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ModelError(f"model {self.name!r}: cannot make a graph of {source}: {said}")


@lru_cache(maxsize=1)
def processor() -> str:
    """The kind of this processor and, where the system tells, each of its extensions."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return f"{platform.machine()} {flags[1].strip() if flags else platform.processor()}"


def write_shared(source: Path, target: Path) -> None:
    """Optimise the graph in ``source`` for this processor and write it to ``target``, its weights,
    plain and laid out, to a file beside it.

    Raises:
        ModelError: onnxruntime is missing.
    """
    onnxruntime = load_runtime(source.stem)
    options = session_options(onnxruntime, threads=1)
    options.optimized_model_filepath = str(target)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": f"{target.stem}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": EXTERNAL_BYTES_MIN,
        "session.save_external_prepacked_constant_initializers": 1,
    }.items():
        options.add_session_config_entry(key, str(value))
    onnxruntime.InferenceSession(readable(source), options, providers=[CPU], enable_fallback=False)


if __name__ == "__main__":
    write_shared(Path(sys.argv[1]), Path(sys.argv[2]))
