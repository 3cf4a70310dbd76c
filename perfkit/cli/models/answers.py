"""From results to values and lines, by their form: labels, vectors, named tensors, texts, bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from perfkit.evidence.text import quantity

if TYPE_CHECKING:
    from cluster.models.inference import ModelInfo

NUMBERS_SHOWN = 6
TEXT_SHOWN = 40
#: The key of named tensors among the values of a result.
OUTPUTS = "outputs"


def decoded(content: bytes, info: ModelInfo | None) -> Any:
    """A result as plain values or text, a tensor with its numbers in lists, or else hex digits.

    Named tensors are a dict by name under ``outputs``.
    """
    from cluster.models.frames.arrays import to_array
    from cluster.models.frames.tensor import TensorError, unpack_tensor
    from cluster.models.frames.tensors import decode_tensors

    try:
        if info is None:
            return content.decode()
        if info.kind == "tensors":
            tensors = decode_tensors(content).tensors
            return {
                OUTPUTS: {
                    it.port.name: {
                        "datatype": it.port.datatype,
                        "shape": list(it.port.shape),
                        "values": to_array(it).tolist(),
                    }
                    for it in tensors
                }
            }
        return msgspec.msgpack.decode(content)
    except (UnicodeDecodeError, TensorError):
        return content.hex()
    except msgspec.DecodeError:
        pass
    try:
        array = unpack_tensor(content)
    except TensorError:
        return content.hex()
    return {"dtype": array.dtype.name, "shape": array.shape, "values": array.tolist()}


def parts(result: Any, info: ModelInfo | None) -> list[Any]:
    """What of a result has a line of its own: each row, if it has rows."""
    if isinstance(result, dict) and OUTPUTS in result and info is not None and info.batches:
        outputs = result[OUTPUTS]
        rows = [one["values"] for one in outputs.values()]
        return [dict(zip(outputs, row, strict=True)) for row in zip(*rows, strict=True)]
    return result if isinstance(result, list) else [result]


def line(result: Any, info: ModelInfo | None) -> Text:
    """A class with its score and description, or the first numbers of a vector, or each output;
    else as it is.
    """
    if isinstance(result, dict) and info is not None and info.kind == "tensors":
        outputs = result.get(OUTPUTS)
        if outputs is not None:
            result = {f"{name} {_shape(one)}": one["values"] for name, one in outputs.items()}
        shown = Text()
        for name, values in result.items():
            shown.append("  " if shown else "").append(f"{name} ", "dim").append(_values(values))
        return shown
    if isinstance(result, dict) and len(result.get("shape", ())) == 1:
        (length,) = result["shape"]
        name = f"{result['dtype']}[{length}]"
        return Text(name, "bold").append(f"  {_values(result['values'])}", "not bold")
    if not isinstance(result, dict) or "label" not in result:
        return Text(str(result))
    shown = Text(str(result.get("description", result["label"])), "bold")
    about = [str(result["label"])] if "description" in result else []
    about += [str(result["mime_type"])] if "mime_type" in result else []
    about += [quantity(result["score"])] if "score" in result else []
    return shown.append(f"  {', '.join(about)}", "not bold")


def _shape(tensor: dict[str, Any]) -> str:
    return f"{tensor['datatype']}{tensor['shape']}"


def _values(values: Any) -> str:
    """A number or text, or the first of many."""
    found: list[Any] = []
    more = _first(values, found)
    return " ".join(found) + (" …" if more else "")


def _first(values: Any, found: list[str]) -> bool:
    """Collect the first values of nested lists, as they are shown; whether there are more."""
    if isinstance(values, list):
        return any(_first(one, found) for one in values)
    if len(found) == NUMBERS_SHOWN:
        return True
    if isinstance(values, str):
        cut = values[:TEXT_SHOWN] + ("…" if len(values) > TEXT_SHOWN else "")
        found.append(repr(cut))
    elif isinstance(values, float):
        found.append(quantity(values))
    else:
        found.append(str(values))
    return False
