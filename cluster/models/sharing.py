"""From the file that a model's folder names to the one that is opened, made once for each host.

What is no ONNX yet is converted. And a large model is not loaded but mapped: a session that loads a
file copies its weights into memory of its own and lays them out anew for the processor, in each
worker again. Here the runtime does that once, writes the graph as it optimised it with the weights,
laid out, in a file beside it, and every worker's session maps that file: its pages are in memory
once, however many workers there are, and loading is little more than reading the graph.

What is written depends on the runtime's version and on what the processor can do, so both are part
of the entry's name in the cache, as is the content of the model's file. Other providers than the
CPU move the weights to a memory of their own and are given the plain file.

Each step runs as a process of its own (``python -m cluster.models.sharing``), because what it takes
to make a file would stay with the worker that made it.

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

from cluster.models.cache import Cache, sha256_hex
from cluster.models.manifest import Manifest, ModelError
from cluster.models.network import CPU, Network, load_runtime, session_options

#: Below this a model's weights cost a worker less than the files would be worth.
SHARED_BYTES_MIN = 16 << 20
#: Smaller tensors stay in the graph.
EXTERNAL_BYTES_MIN = 1024

#: Counts up with every change of how a shared file is made.
VERSION = 1

WEIGHTS_SUFFIX = ".safetensors"
MODEL_FILE = "model.onnx"

#: How long making a file may take before something must be wrong.
TIMEOUT_S = 300.0


class ModelFile(NamedTuple):
    """A file to open. ``entries`` are those in the cache that it comes from; ``shared`` says that
    the runtime has optimised it and its weights are mapped. ``notes`` tell what had to be made on
    the way and why.
    """

    path: Path
    entries: tuple[str, ...] = ()
    shared: bool = False
    notes: tuple[str, ...] = ()


def open_network(
    manifest: Manifest,
    source: Path,
    cache: Cache,
    threads: int,
    preference: Sequence[str],
    share_bytes_min: int | None,
) -> tuple[Network, ModelFile]:
    """A session for the model in ``source``, and the file that it is for.

    The weights are shared if the file has ``share_bytes_min`` bytes or more and the first provider
    of ``preference`` that there is is the CPU; None shares none. Where sharing fails the plain file
    is opened, and the notes say why.

    Raises:
        ModelError: the source cannot be converted, or the runtime refuses it.
    """
    workshop = Workshop(cache, manifest.name, source)
    may_share = share_bytes_min is not None and _first_provider(manifest.name, preference) == CPU
    least_bytes = share_bytes_min if may_share else None
    file = workshop.file(least_bytes)
    try:
        return Network(manifest, file.path, threads, preference, optimized=file.shared), file
    except ModelError as error:
        if not file.entries:
            raise
        # Whole, but of no use: what the cache holds can be made again.
        file = workshop.again(file, least_bytes, f"the file in the cache was refused: {error}")
    return Network(manifest, file.path, threads, preference, optimized=file.shared), file


class Workshop:
    """Makes what is opened for the model ``name`` from ``source``, the file its folder names."""

    def __init__(self, cache: Cache, name: str, source: Path) -> None:
        self._cache = cache
        self._name = name
        self._source = source

    def file(self, share_bytes_min: int | None) -> ModelFile:
        """The file to open: shared, if it may be and there is no reason why it cannot.

        Raises:
            ModelError: the source cannot be converted.
        """
        plain = self._plain()
        if share_bytes_min is None or plain.path.stat().st_size < share_bytes_min:
            return plain
        try:
            return self._shared(plain)
        except ModelError as error:
            return plain._replace(notes=(*plain.notes, f"not shared: {error}"))

    def again(self, refused: ModelFile, share_bytes_min: int | None, reason: str) -> ModelFile:
        """The same file from the beginning.

        Raises:
            ModelError: as `file`.
        """
        for entry in refused.entries:
            self._cache.discard(entry)
        made = self.file(share_bytes_min)
        return made._replace(notes=(reason, *made.notes))

    def _plain(self) -> ModelFile:
        """The ONNX file: the source itself, or what it is converted to."""
        if self._source.suffix != WEIGHTS_SUFFIX:
            return ModelFile(self._source)
        from cluster.models.convert_bert import VERSION as GRAPH_VERSION

        return self._made(
            ModelFile(self._source), "onnx", (GRAPH_VERSION,), "convert_bert", self._source
        )

    def _shared(self, plain: ModelFile) -> ModelFile:
        """The same, optimised for this processor, its weights in a file that all workers map."""
        depends_on = (VERSION, load_runtime(self._name).__version__, processor(), *plain.entries)
        made = self._made(plain, "shared", depends_on, "sharing", plain.path)
        return made._replace(shared=True)

    def _made(
        self, of: ModelFile, what: str, depends_on: Sequence[object], module: str, source: Path
    ) -> ModelFile:
        """What ``python -m cluster.models.<module> SOURCE TARGET`` makes, or has made before."""
        try:
            content = repr((self._cache.sha256(self._source), *depends_on)).encode()
            entry = f"{self._name}-{what}-{sha256_hex(content)[:16]}"
            made = self._cache.entry(
                entry, lambda folder: self._run(module, source, folder / MODEL_FILE)
            )
        except OSError as error:
            raise ModelError(
                f"model {self._name!r}: the cache in {self._cache.folder} cannot be used: "
                f"{error.strerror or error}; XDG_CACHE_HOME names another place"
            ) from error
        why = f"made {entry}: {made.reason}"
        notes = of.notes if made.reason is None else (*of.notes, why)
        return ModelFile(made.folder / MODEL_FILE, (*of.entries, entry), notes=notes)

    def _run(self, module: str, source: Path, target: Path) -> None:
        command = [sys.executable, "-m", f"cluster.models.{module}", str(source), str(target)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"model {self._name!r}: {module} was not done with {source} in {TIMEOUT_S:g} s"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ModelError(f"model {self._name!r}: cannot make a graph of {source}: {said}")


@lru_cache(maxsize=1)
def processor() -> str:
    """What kind of processor this is and, where the system tells, each of its extensions."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return f"{platform.machine()} {flags[1].strip() if flags else platform.processor()}"


def write_shared(source: Path, target: Path) -> None:
    """Optimise the graph in ``source`` for this processor, and write it as ``target`` with its
    weights, as they are and as laid out, in a file beside it.

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
    onnxruntime.InferenceSession(str(source), options, providers=[CPU], enable_fallback=False)


def _first_provider(name: str, preference: Sequence[str]) -> str | None:
    available = load_runtime(name).get_available_providers()
    return next((provider for provider in preference if provider in available), None)


if __name__ == "__main__":
    write_shared(Path(sys.argv[1]), Path(sys.argv[2]))
