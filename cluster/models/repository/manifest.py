"""A model's ``model.toml``, read strictly: a slip is an error.

::

    name = "digits"         # the same as the folder's
    kind = "rows"           # how payloads are read and results written
    file = "model.onnx"     # in this folder, or in the installed package that `package` names
    description = "…"
    labels = [0, 1, 2]      # one for each column of the output; some kinds know their own
"""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.task import Name

MANIFEST = "model.toml"

Label: TypeAlias = int | str
PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]


class ModelError(ClusterError):
    """A model that cannot be found, loaded or run; the message says which one and what to do."""


class PayloadError(ModelError):
    """A payload the model does not take; it fails alone, not the rest of its batch."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model as its folder describes it.

    ``package`` is the installed package that holds ``file``; without one the file is in the model's
    folder. ``file`` may hold wildcards, for packages that put a version into the path; the last
    match counts. A ``file`` of safetensors is converted before it is opened. ``install`` is the
    command for a package that the extra does not bring. ``input_min`` and ``input_max`` bound the
    numbers of a row. ``batch_items_max`` bounds the rows of one run of the session: larger batches
    soon cost memory without being faster, and some graphs round differently in them.
    """

    name: Name
    kind: Name
    file: Name
    description: str
    labels: tuple[Label, ...] = ()
    package: Name | None = None
    install: str | None = None
    input_min: float | None = None
    input_max: float | None = None
    batch_items_max: Annotated[int, Meta(ge=1, le=65_536)] = 256


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``.

    Raises:
        ModelError: the manifest cannot be read, or breaks the rules above.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Manifest)
    except OSError as error:
        raise ModelError(f"model {folder.name!r}: cannot read {path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ModelError(f"model {folder.name!r}: {path}: {error}") from error
    if manifest.name != folder.name:
        raise ModelError(
            f"model {folder.name!r}: {path} names it {manifest.name!r}; rename one of the two"
        )
    inside = PurePosixPath(manifest.file)
    if inside.is_absolute() or ".." in inside.parts:
        raise ModelError(f"model {folder.name!r}: file {manifest.file!r} must lie in its folder")
    return manifest


def needs_extra(name: str) -> ModelError:
    """The error for a model whose packages are not installed."""
    return ModelError(f"model {name!r} needs the extra [infer]: pip install 'perfkit[infer]'")


def package_folder(name: str, package: str, install: str | None = None) -> Path:
    """An installed package's folder, found without importing it.

    Raises:
        ModelError: it is not installed; the message says how to install it.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        if install is None:
            raise needs_extra(name)
        raise ModelError(f"model {name!r} needs the package {package}: {install}")
    return Path(spec.origin).parent


def model_path(manifest: Manifest, folder: Path) -> Path:
    """The file of the model in ``folder``.

    Raises:
        ModelError: the package or the file is missing.
    """
    root = folder
    if manifest.package:
        root = package_folder(manifest.name, manifest.package, manifest.install)
    found = sorted(root.glob(manifest.file))
    if not found:
        raise ModelError(f"model {manifest.name!r}: no file {manifest.file!r} in {root}")
    return found[-1]
