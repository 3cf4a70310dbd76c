"""A model's ``config.toml``, read strictly: a slip is an error. Every key there is, all optional::

    kind = "tensors"          # how payloads are read and results written: tensors (any graph),
                              # rows, text-embedding, file-type
    description = "…"
    labels = ["cat", "dog"]   # one for each class; kind rows needs them
    batches = true            # false: each question runs alone; by default found out at load
    batch_items_max = 256     # the most rows of one run; by default 256 of 8 MiB of inputs, and 16
                              # where the graph leaves more axes open than that of the batch
    versions = 1              # how many of the newest are served; or "all"; or a list: [1, 3]
    threads = 1               # of one run
    provider = "auto"         # the faster of what the worker has; or "cpu", or "webgpu", the card
    precision = "fp32"        # the file as it is; or "fp16", "int8", "int4", "sparse", or "auto",
                              # the fastest that loses at most …
    loss_points_max = 0.5     # … this: cluster.models.runtime.loss
    golden_rtol = 1e-3        # how far an output may be from the golden one, relatively …
    golden_atol = 1e-4        # … and beyond that
    tokens_max = 256          # text-embedding: where to cut a text, if not where its files say
    input_min = 0.0           # rows: the bounds of a number
    input_max = 16.0
    file = "model.onnx"       # in the folder of each version, or in the installed `package`
    package = "magika"
    install = "pip install …" # for a package that the extra does not bring

Without this file, Triton's ``config.pbtxt`` is read (`cluster.models.repository.triton`); without
either, a folder with a ``tokenizer.json`` is of kind text-embedding, any other of kind tensors.
"""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from cluster.vocabulary.errors import ClusterError, did_you_mean
from cluster.vocabulary.task import Name

MANIFEST = "config.toml"
MODEL_FILE = "model.onnx"
BATCH_ITEMS_MAX = 65_536

#: A model's name is a folder's, a task's kind and a part of a URL.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Label: TypeAlias = int | str
PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
Tolerance: TypeAlias = Annotated[float, Meta(ge=0)]


class ModelError(ClusterError):
    """A model that cannot be found, loaded or run; the message says which one and what to do."""


class PayloadError(ModelError):
    """A payload the model does not take; it fails alone, not the rest of its batch."""


class KindError(ModelError):
    """A graph that models of this kind do not have; those of another kind may."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model as its folder describes it, under the folder's name; see the top of this file.

    ``file`` may hold wildcards, for packages that put a version into the path; the last match
    counts. A ``file`` of safetensors is converted before it is opened. ``batch_items_max`` bounds
    the rows of one run of the session: larger batches soon cost memory without being faster, and
    some graphs round differently in them.
    """

    name: Name
    kind: Name = "tensors"
    file: Name = MODEL_FILE
    description: str = ""
    labels: tuple[Label, ...] = ()
    batches: bool | None = None
    batch_items_max: Annotated[int, Meta(ge=1, le=BATCH_ITEMS_MAX)] | None = None
    versions: PositiveInt | Literal["all"] | tuple[PositiveInt, ...] = 1
    threads: Annotated[int, Meta(ge=1, le=1_024)] = 1
    provider: Literal["auto", "cpu", "webgpu"] = "auto"
    precision: Literal["fp32", "fp16", "int8", "int4", "sparse", "auto"] = "fp32"
    loss_points_max: Tolerance = 0.5
    golden_rtol: Tolerance = 1e-3
    golden_atol: Tolerance = 1e-4
    tokens_max: PositiveInt | None = None
    input_min: float | None = None
    input_max: float | None = None
    package: Name | None = None
    install: str | None = None


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``.

    Raises:
        ModelError: the manifest cannot be read, or breaks the rules above.
    """
    path = folder / MANIFEST
    try:
        found = tomllib.loads(path.read_text("utf-8"))
        for key in found.keys() - {*Manifest.__struct_fields__}:
            known = Manifest.__struct_fields__
            hint = did_you_mean(key, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"there is no key {key!r}{hint}")
        manifest = msgspec.convert({"name": folder.name, **found}, Manifest)
    except OSError as error:
        raise ModelError(f"model {folder.name!r}: cannot read {path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ModelError(f"model {folder.name!r}: {path}: {error}") from error
    if manifest.name != folder.name:
        raise ModelError(
            f"model {folder.name!r}: {path} names it {manifest.name!r}; rename one of the two"
        )
    return manifest


def check_name(name: str) -> str:
    """The name of a model; ModelError if it can't be one."""
    if not MODEL_NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} is no name for a model: a letter or digit, then at most 99 letters, digits, "
            "dots, dashes and underscores"
        )
    return name


def needs_extra(name: str) -> ModelError:
    """The error for a model whose packages are not installed."""
    return ModelError(f"model {name!r} needs the extra [infer]: pip install 'perfkit[infer]'")


def package_folder(name: str, package: str, install: str | None = None) -> Path:
    """An installed package's folder, found without importing it.

    Raises:
        ModelError: it is not installed; the message says how to install it.
    """
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # a name with dots, or of a module without a spec
        spec = None
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
