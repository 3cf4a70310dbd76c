"""Puts a user's model into a repository, once it has been opened and has run; takes it out again.

A model appears whole or not at all: it is put together in a hidden folder beside its place, tried
there, and renamed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cluster.models.inference import KINDS, Model, ModelRepository
from cluster.models.loaded import ModelInfo
from cluster.models.repository.folders import TOKENIZER, VERSION_MAX, is_path, read_model
from cluster.models.repository.manifest import (
    MANIFEST,
    MODEL_FILE,
    KindError,
    ModelError,
    check_name,
)
from cluster.models.repository.triton import CONFIG
from cluster.models.repository.weights import leaves_folder, weight_files
from cluster.models.runtime.trial import GOLDEN_IN, GOLDEN_OUT

#: What a sentence encoder may have beside its tokenizer: see `cluster.models.kinds.embedding`.
COMPANIONS = (
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config.json",
    "1_Pooling/config.json",
)
TEXT_EMBEDDING = "text-embedding"
SENTENCE = b"A man is eating food."
#: How the name of a folder begins that a model is put together in, and how long it may be unlocked.
HIDDEN, NEW_S = ".perfkit-", 60.0


class NewModel(NamedTuple):
    """What to add: a graph under a name; None where the user did not say."""

    name: str
    graph: Path
    golden: tuple[Path, Path] | None = None
    labels: tuple[str, ...] = ()
    kind: str | None = None
    tokenizer: Path | None = None
    version: int | None = None


def add_model(new: NewModel, repository: Path) -> ModelInfo:
    """Put a model, or one more version of it, into a repository; its description.

    Raises:
        ModelError: it can't be served, and why; nothing is left of it. OSError: a file can't be
        read or written.
    """
    check_name(new.name)
    if is_path(new.name):
        raise ModelError(f"{new.name!r} would be taken for a file; leave out the suffix")
    _check_files(new)
    folder = repository / new.name
    version = _new_version(new, folder)
    repository.mkdir(parents=True, exist_ok=True)
    with _hidden_folder(repository) as hidden:
        draft = hidden / new.name
        place = draft / str(version)
        place.mkdir(parents=True)
        _copy_graph(new, place)
        if folder.exists():
            _copy_configuration(new, folder, draft)
            model = _tried(draft, version, new)
            source, target = place, folder / str(version)
        else:
            model = _first_try(new, draft, version)
            source, target = draft, folder
        try:
            os.rename(source, target)
        except OSError as error:
            raise ModelError(f"model {new.name!r}: {target} was added meanwhile") from error
    return model.describe()


def remove_model(name: str, repository: Path, version: int | None = None) -> list[int]:
    """Take a model, or one version of it, out of a repository; the versions it had there.

    Raises:
        ModelError: it is not there, or the version is its only one. OSError: it can't be removed.
    """
    folder = repository / check_name(name)
    if not folder.is_dir():
        there = sorted(it.name for it in repository.glob("[!.]*") if it.is_dir())
        raise ModelError(
            f"there is no model {name!r} in {repository}; there are {', '.join(there) or 'none'}"
        )
    numbers = sorted(int(it.name) for it in folder.iterdir() if it.name.isdecimal() and it.is_dir())
    if version is not None and (version not in numbers or numbers == [version]):
        said = "is the only one; remove the model" if version in numbers else "is not there"
        raise ModelError(f"model {name!r}: version {version} {said}")
    place = folder if version is None else folder / str(version)
    if place.is_symlink():
        place.unlink()
    else:
        with _hidden_folder(repository) as hidden:
            os.rename(place, hidden / "gone")
    return numbers if version is None else [version]


def read_labels(text: str) -> tuple[str, ...]:
    """The labels in a file, a line each, or those of a list with commas.

    Raises:
        ModelError: there are none, or two are the same. OSError: the file can't be read.
    """
    if os.path.isfile(text):
        lines = Path(text).read_text("utf-8-sig").rstrip().splitlines()
    elif "," in text:
        lines = text.split(",")
    else:
        raise ModelError(f"labels: there is no file {text!r}, and a list has commas: cat,dog")
    labels = tuple(line.strip() for line in lines)
    for trouble, is_so in (
        ("there are none", not labels),
        ("one is empty", "" in labels),
        ("two are the same", len({*labels}) < len(labels)),
    ):
        if is_so:
            raise ModelError(f"labels: {trouble} in {text[:200]}")
    return labels


def _check_files(new: NewModel) -> None:
    if new.kind is not None and new.kind not in KINDS:
        raise ModelError(f"there is no kind {new.kind!r}; there are {', '.join(KINDS)}")
    if new.kind == "file-type":
        raise ModelError("kind 'file-type' is for the package magika; take another kind")
    if new.tokenizer is not None and new.kind not in (None, TEXT_EMBEDDING):
        raise ModelError(f"a tokenizer goes with kind {TEXT_EMBEDDING!r}, not {new.kind!r}")
    for path in (new.graph, *(new.golden or ()), *([new.tokenizer] if new.tokenizer else [])):
        if not path.is_file():
            there = "is no regular file" if path.exists() else "is not there"
            what = "is a folder" if path.is_dir() else there
            raise ModelError(f"model {new.name!r}: the file {path} {what}")
    for weights in weight_files(new.graph):
        if leaves_folder(new.graph, weights):
            raise ModelError(
                f"model {new.name!r}: its weights lie outside its folder, in {weights}, where the "
                "runtime takes none; save it again with its weights beside it"
            )
        if not weights.is_file():
            raise ModelError(
                f"model {new.name!r}: its weights are missing: {weights}; put the file there, "
                "which was written with the graph"
            )


def _new_version(new: NewModel, folder: Path) -> int:
    """The number of the new version; ModelError if it is there."""
    files = read_model(folder).files if folder.exists() else {}
    if any(folder / str(it) not in path.parents for it, path in files.items()):
        raise ModelError(
            f"model {new.name!r} has its only version in {folder} itself; move it to {folder}/1 "
            "to add another"
        )
    there = sorted(files)
    if new.version in there:
        raise ModelError(
            f"model {new.name!r} has a version {new.version}; take another, or remove it first: "
            f"perfkit model remove {new.name} --version {new.version}"
        )
    version = new.version or max(there, default=0) + 1
    if version > VERSION_MAX:
        raise ModelError(f"model {new.name!r}: version {version} is over {VERSION_MAX:,}")
    return version


@contextmanager
def _hidden_folder(repository: Path) -> Iterator[Path]:
    """A folder that no listing shows, removed at the end with all that is in it.

    It is locked meanwhile, so the next one removes what a killed process has left.
    """
    for left in repository.glob(f"{HIDDEN}*"):
        with suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > NEW_S:
                shutil.rmtree(left, ignore_errors=True)
    hidden = Path(tempfile.mkdtemp(prefix=HIDDEN, dir=repository))
    with ExitStack() as held:
        held.callback(shutil.rmtree, hidden, ignore_errors=True)
        with suppress(OSError):  # a file system without locks
            held.enter_context(_locked(hidden))
        yield hidden


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which opens when its holder dies; OSError if another process has it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _copy_graph(new: NewModel, place: Path) -> None:
    """Copy the graph and all that belongs to this version."""
    shutil.copyfile(new.graph, place / MODEL_FILE)
    for weights in weight_files(new.graph):
        target = place / weights.relative_to(new.graph.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, target)
    for file, name in zip(new.golden or (), (GOLDEN_IN, GOLDEN_OUT), strict=False):
        shutil.copyfile(file, place / name)
    if tokenizer := _tokenizer(new):
        shutil.copyfile(tokenizer, place / TOKENIZER)
        for companion in COMPANIONS:
            if (tokenizer.parent / companion).is_file():
                (place / companion).parent.mkdir(exist_ok=True)
                shutil.copyfile(tokenizer.parent / companion, place / companion)


def _tokenizer(new: NewModel) -> Path | None:
    if new.tokenizer is not None or new.kind != TEXT_EMBEDDING:
        return new.tokenizer
    places = (new.graph.parent, new.graph.parent.parent)
    return next((it / TOKENIZER for it in places if (it / TOKENIZER).is_file()), None)


def _copy_configuration(new: NewModel, folder: Path, draft: Path) -> None:
    """Copy what all versions of a model share, which the user can't give anew."""
    for path in folder.iterdir():
        if path.is_file():
            shutil.copyfile(path, draft / path.name)
    manifest = read_model(draft).manifest
    other_labels = new.labels and tuple(map(str, manifest.labels)) != new.labels
    kind = new.kind or (TEXT_EMBEDDING if new.tokenizer else manifest.kind)
    if kind != manifest.kind or other_labels:
        where = folder / (CONFIG if (folder / CONFIG).exists() else MANIFEST)
        raise ModelError(
            f"model {new.name!r}: kind and labels are those of all its versions, in {where}; "
            "change them there, or take another name"
        )


def _first_try(new: NewModel, draft: Path, version: int) -> Model:
    """The new model after a run, its ``config.toml`` written.

    With labels and no kind it is of kind rows, if that fits, which answers with labels.
    """
    kind = new.kind or (TEXT_EMBEDDING if new.tokenizer else "tensors")
    if new.labels and new.kind is None:
        _configure(draft, kind="rows", labels=new.labels)
        with suppress(KindError):
            return _tried(draft, version, new)
    _configure(draft, kind=kind, labels=new.labels)
    return _tried(draft, version, new)


def _configure(folder: Path, **values: str | Sequence[str]) -> None:
    """Write a ``config.toml``; a TOML value of these types is written as JSON."""
    given: Mapping[str, Any] = {name: it for name, it in values.items() if it != ()}
    lines = [f"{name} = {msgspec.json.encode(it).decode()}\n" for name, it in given.items()]
    (folder / MANIFEST).write_text("".join(lines), "utf-8")


def _tried(draft: Path, version: int, new: NewModel) -> Model:
    """The model after it has run; ModelError, without the draft's path, if it can't be served."""
    try:
        # Weights are shared when it is served: a try leaves nothing in the cache.
        model = ModelRepository(share=False).load(str(draft), version)
    except ModelError as error:
        said = str(error).replace(f"{draft / str(version) / MODEL_FILE}", str(new.graph))
        raise type(error)(said.replace(f"{draft}/", "")) from error
    if model.refusal:
        raise ModelError(
            f"{model.refusal}; that was with made-up input: give it input that it takes, "
            "--golden IN.npz OUT.npz"
        )
    if model.describe().kind == TEXT_EMBEDDING:
        (answer,) = model.handle_batch([SENTENCE])
        if isinstance(answer, Exception):
            raise ModelError(f"{answer}; that was for a text: is the tokenizer this model's own?")
    return model
