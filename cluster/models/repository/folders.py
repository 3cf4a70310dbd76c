"""Finds models: in repositories by name, or by the path of a file or folder.

A repository is a folder of models of this layout, that of Triton's::

    <name>/config.toml              cluster.models.repository.manifest; or config.pbtxt; or neither
    <name>/<version>/model.onnx     a version is 1, 2, 3 …; files of weights lie beside it
    <name>/golden_in.npz            cluster.models.golden; also in a version's folder,
    <name>/golden_out.npz           where they concern that version alone

A folder without numbered folders is version 1 itself, with its file in it or, as Hugging Face's
Optimum writes it, in ``onnx/``. A lone ``.onnx`` file is a model too, of the file's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cluster.models.repository.manifest import (
    MANIFEST,
    MODEL_FILE,
    Manifest,
    ModelError,
    check_name,
    model_path,
    read_manifest,
)
from cluster.models.repository.triton import CONFIG, Declared, read_triton
from cluster.models.repository.weights import weight_files

#: Names the folder of the user's own models.
VARIABLE = "PERFKIT_REPOSITORY"
SUFFIX = ".onnx"
TOKENIZER = "tokenizer.json"

_VERSION = re.compile(r"[1-9]\d{0,8}")
VERSION_MAX = 999_999_999


class ModelFolder(NamedTuple):
    """A model as it was found: its file by version, and what its configuration says.

    ``folder`` is None for a lone file. A ``config.pbtxt`` declares ``inputs`` and ``outputs``.
    """

    manifest: Manifest
    folder: Path | None
    files: dict[int, Path]
    inputs: tuple[Declared, ...] = ()
    outputs: tuple[Declared, ...] = ()
    notes: tuple[str, ...] = ()

    def stamp(self) -> Hashable:
        """Changes when a file of the model does: the names, sizes and times of its files.

        Raises:
            ModelError: they can't be read.
        """
        try:
            files = set(self.files.values())
            for graph in self.files.values():
                files.update(weight_files(graph) if graph.suffix == SUFFIX else ())
            if self.folder is not None:
                for place in {self.folder, *(graph.parent for graph in self.files.values())}:
                    files.update(path for path in place.iterdir() if path.is_file())
            stats = [(path, path.stat()) for path in sorted(files)]
        except OSError as error:
            name = self.manifest.name
            raise ModelError(
                f"model {name!r}: cannot read {error.filename}: {error.strerror}"
            ) from error
        return tuple((str(path), it.st_size, it.st_mtime_ns) for path, it in stats)

    @property
    def is_ours(self) -> bool:
        """Whether its configuration is a ``config.toml``."""
        return self.folder is not None and (self.folder / MANIFEST).exists()

    def served(self) -> list[int]:
        """The versions to serve by the manifest's policy, oldest first.

        Raises:
            ModelError: the policy names one that is not there.
        """
        there, policy = sorted(self.files), self.manifest.versions
        if policy == "all":
            return there
        if isinstance(policy, int):
            return there[-policy:]
        missing = [str(it) for it in policy if it not in self.files]
        if missing or not policy:
            raise ModelError(
                f"model {self.manifest.name!r}: its configuration asks for version "
                f"{', '.join(missing) or 'none'}; there are {', '.join(map(str, there))}"
            )
        return sorted(policy)


def default_repository() -> Path:
    """The folder of the user's own models: ``$PERFKIT_REPOSITORY``, else one in `data_folder`."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return data_folder() / "models"


def data_folder() -> Path:
    """The user's own data: ``perfkit`` in ``$XDG_DATA_HOME``, by default ``~/.local/share``, by the
    XDG Base Directory rules.
    """
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local/share") / "perfkit"


def is_path(reference: str) -> bool:
    """Whether a model is given by its path: with a slash, as ``.`` or as an ``.onnx`` file."""
    return os.sep in reference or reference in (".", "..") or reference.endswith(SUFFIX)


def model_name(reference: str) -> str:
    """The name of a model given by name or path, which is the kind of its tasks.

    Raises:
        ModelError: the name of the file or folder can't be a model's.
    """
    if not is_path(reference):
        return reference
    path = Path(os.path.abspath(reference))
    is_file = path.suffix == SUFFIX and not path.is_dir()
    return check_name(path.stem if is_file else path.name)


def model_folders(roots: Iterable[Path]) -> dict[str, Path]:
    """The folders of the models in some repositories, by name; a later root comes first."""
    return {
        path.name: path
        for root in roots
        if root.is_dir()
        for path in sorted(root.iterdir())
        if _is_model(path)
    }


def read_model(path: Path) -> ModelFolder:
    """The model in a folder, or in a lone file.

    Raises:
        ModelError: there is none, or its configuration is wrong.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        return _read_folder(path)
    name = check_name(path.stem)
    if not path.is_file():
        raise ModelError(f"model {name!r}: there is no file or folder {path}")
    manifest = Manifest(name=name, kind=_kind(path.parent), file=path.name)
    return ModelFolder(manifest, None, {1: path})


def _read_folder(folder: Path) -> ModelFolder:
    inputs: tuple[Declared, ...] = ()
    outputs: tuple[Declared, ...] = ()
    notes: tuple[str, ...] = ()
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
    elif (folder / CONFIG).exists():
        manifest, inputs, outputs, notes = read_triton(folder)
    else:
        manifest = Manifest(name=check_name(folder.name), kind=_kind(folder))
    inside = PurePosixPath(manifest.file)
    if inside.is_absolute() or ".." in inside.parts:
        raise ModelError(f"model {manifest.name!r}: file {manifest.file!r} must lie in its folder")
    files = dict(_versions(manifest, folder)) or {1: _only_file(manifest, folder)}
    return ModelFolder(manifest, folder, files, inputs, outputs, notes)


def _versions(manifest: Manifest, folder: Path) -> Iterator[tuple[int, Path]]:
    if manifest.package:
        yield 1, model_path(manifest, folder)
        return
    for path in folder.iterdir():
        if _VERSION.fullmatch(path.name) and path.is_dir():
            # Triton wants a folder of that name around a file with weights in others.
            for place in (path, path / manifest.file):
                if found := [it for it in sorted(place.glob(manifest.file)) if it.is_file()]:
                    yield int(path.name), found[-1]


def _only_file(manifest: Manifest, folder: Path) -> Path:
    """The file of a folder without versions: the one configured, or the only one there is."""
    for place in (folder, folder / "onnx"):
        found = sorted(place.glob(manifest.file))
        if not found and not any((folder / it).exists() for it in (MANIFEST, CONFIG)):
            found = sorted(place.glob(f"*{SUFFIX}"))
            if len(found) > 1:
                raise ModelError(
                    f"model {manifest.name!r}: {place} holds {', '.join(it.name for it in found)}; "
                    f"name one file, or rename one to {MODEL_FILE}"
                )
        if found:
            return found[-1]
    if numbers := [int(it.name) for it in folder.iterdir() if _VERSION.fullmatch(it.name)]:
        place = folder / str(max(numbers))
        raise ModelError(f"model {manifest.name!r}: no file {manifest.file!r} in {place}")
    if inner := model_folders([folder]):
        raise ModelError(
            f"{folder} is a repository of the models {', '.join(inner)}; name one of them, "
            "with --repository for the folder"
        )
    return model_path(manifest, folder)


def _kind(folder: Path) -> str:
    return "text-embedding" if (folder / TOKENIZER).is_file() else "tensors"


def _is_model(path: Path) -> bool:
    """Whether a folder of a repository is a model; nothing in it is read."""
    return path.is_dir() and (
        any((path / it).exists() for it in (MANIFEST, CONFIG, MODEL_FILE, f"onnx/{MODEL_FILE}"))
        or any(path.glob(f"[1-9]*/*{SUFFIX}"))
    )
