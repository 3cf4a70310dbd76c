"""From files to payloads, by the kind of model that is asked."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.models.inference import PayloadError, file_payload
from cluster.vocabulary.printable import count_of

if TYPE_CHECKING:
    from cluster.models.inference import ModelInfo

Reader: TypeAlias = Callable[[Path], bytes]

TEXT_EMBEDDING = "text-embedding"
ROW_NUMBERS = 64


def reader(info: ModelInfo | None) -> Reader:
    """Makes a file the payload of a model; of a handler, which is None, it is the file's bytes."""
    readers: dict[str, Reader] = {"file-type": file_payload, TEXT_EMBEDDING: text_payload}
    if info is None:
        return Path.read_bytes
    if info.kind == "rows":
        return partial(row_payload, width=info.inputs[0].shape[-1])
    return readers.get(info.kind) or partial(tensors_payload, info=info)


def row_payload(path: Path, width: int = ROW_NUMBERS) -> bytes:
    """The tensor float32[width] or float32[N, width] in a file: a .npy array, or text as in
    `_text_rows`.

    Raises:
        PayloadError: it holds anything else. OSError: it cannot be read.
    """
    from cluster.models.frames.tensor import pack_tensor

    np = _numpy()
    try:
        is_array = path.suffix == ".npy"
        rows = np.load(path, allow_pickle=False) if is_array else _text_rows(path, width)
        array = np.asarray(rows, np.float32)
    except (ValueError, TypeError, EOFError) as error:
        raise PayloadError(f"{path} is not a .npy array of numbers: {error}") from None
    return pack_tensor(array[0] if array.ndim == 2 and len(array) == 1 else array)


def text_payload(path: Path) -> bytes:
    """The text in a file; several words that name no file are the text themselves.

    Raises:
        PayloadError: a single word, probably a misspelt file. OSError: the file cannot be read.
    """
    words = str(path)
    if os.path.exists(words):  # Path.exists refuses very long text
        return path.read_bytes()
    if not any(map(str.isspace, words)):
        raise PayloadError(f"there is no file {words}; a text of one word goes with --payload")
    return words.encode("utf-8", "surrogateescape")


def tensors_payload(path: Path, info: ModelInfo) -> bytes:
    """The frame of a model's inputs in a file: .npz with an array for each, .npy for the only one,
    or CSV as in `_from_csv`.

    Raises:
        PayloadError: it holds anything else. OSError: it cannot be read.
    """
    from cluster.models.frames.arrays import converted, load_arrays, to_tensor
    from cluster.models.frames.tensor import TensorError
    from cluster.models.frames.tensors import encode_tensors

    np = _numpy()
    try:
        if path.suffix == ".npz":
            arrays = load_arrays(path)
        elif path.suffix == ".npy":
            arrays = {_only_input(path, info): np.load(path, allow_pickle=False)}
        else:
            arrays = _from_csv(path, info)
    except (ValueError, EOFError) as error:
        raise PayloadError(f"{path} is no file of arrays: {error}") from None
    except TensorError as error:
        raise PayloadError(str(error)) from None
    if all(name == f"arr_{number}" for number, name in enumerate(arrays)):
        arrays = dict(zip((it.name for it in info.inputs), arrays.values(), strict=False))
    tensors = []
    ports = {port.name: port for port in info.inputs}
    for name, array in arrays.items():
        if name not in ports:
            known = ", ".join(ports)
            raise PayloadError(f"{path}: there is no input {name!r}; the model takes {known}")
        port = ports[name]
        if info.batches and array.ndim == len(port.shape) - 1:
            array = array[np.newaxis]
        try:
            tensors.append(to_tensor(name, port.datatype, converted(array, port.datatype)))
        except TensorError as error:
            raise PayloadError(f"{path}: {name!r}: {error}") from None
    try:
        return encode_tensors(tensors)
    except TensorError as error:
        raise PayloadError(f"{path}: {error}") from None


def _from_csv(path: Path, info: ModelInfo) -> dict[str, Any]:
    """The inputs in lines of text: the columns that a header names after them, one number or text a
    line for each; or, for a model with one input, whole rows, with any header or none.
    """
    np = _numpy()
    lines = list(_lines(path))
    if not lines:
        raise PayloadError(f"{path} holds no rows")
    header = [word.strip() for word in lines[0][1]]
    ports = {port.name: port for port in info.inputs}
    found = {}
    if ports.keys() <= {*header}:
        for name, port in ports.items():
            if len(port.shape) > 2 or port.shape[1:] not in ((), (1,), (-1,)):
                raise PayloadError(f"{path}: {port} is more than a column; give it in a .npz")
            at = header.index(name)
            cells = [_cell(path, port.datatype, n, row[at : at + 1]) for n, row in lines[1:]]
            found[name] = np.array(cells).reshape(-1, *([1] if len(port.shape) == 2 else []))
        return found
    name = _only_input(path, info)
    port = ports[name]
    if len(port.shape) not in (1, 2):
        raise PayloadError(f"{path}: {port} is no table; give it as .npy or .npz")
    if port.datatype != "BYTES" and not any(map(_is_number, header)):
        lines = lines[1:]
    if not lines:
        raise PayloadError(f"{path} holds no rows below its header {','.join(header)!r}")
    rows = [[_cell(path, port.datatype, n, [word]) for word in row] for n, row in lines]
    width = port.shape[1] if len(port.shape) == 2 and port.shape[1] > 0 else len(rows[0])
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != width:
            raise PayloadError(
                f"{path}, line {number}: {count_of(len(row), 'value')}; a row has {width}"
            )
    array = np.array(rows)
    return {name: array.reshape(-1) if len(port.shape) == 1 else array}


def _only_input(path: Path, info: ModelInfo) -> str:
    if len(info.inputs) != 1:
        takes = ", ".join(map(str, info.inputs))
        raise PayloadError(
            f"{path} does not say which input is which: the model takes {takes}; give it a .npz "
            "with these names, or CSV with them as its header"
        )
    return info.inputs[0].name


def _cell(path: Path, datatype: str, line: int, words: Sequence[str]) -> float | int | str:
    if not words:
        raise PayloadError(f"{path}, line {line}: it is too short")
    word = words[0].strip()
    if datatype == "BYTES":
        return word
    if datatype.startswith("FP"):
        return _number(path, line, word)
    try:
        return int(word)
    except ValueError as error:
        raise PayloadError(f"{path}, line {line}: {error}") from None


def _number(path: Path, line: int, word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise PayloadError(f"{path}, line {line}: {error}") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that is neither empty nor a comment, with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            return [(rows.line_num, row) for row in rows if row and row[0][:1] != "#"]
    except UnicodeDecodeError:
        raise PayloadError(f"{path} is neither text nor named .npy or .npz") from None
    except csv.Error as error:
        raise PayloadError(f"{path} is no CSV: {error}") from None


def _text_rows(path: Path, width: int) -> list[list[float]]:
    """A row per line, its numbers separated by commas or blanks; # begins a comment line."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise PayloadError(f"{path} is neither text nor named .npy") from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        rows.append([_number(path, number, word) for word in words])
        if len(words) != width:
            raise PayloadError(
                f"{path}, line {number}: {count_of(len(words), 'number')}; a row has {width}"
            )
    if not rows:
        raise PayloadError(f"{path} holds no numbers; a line of {width} is a row")
    return rows


def _numpy() -> Any:
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise PayloadError("this needs the extra [infer]: pip install 'perfkit[infer]'") from None
    return np
