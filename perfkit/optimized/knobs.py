"""The knobs of a spec, read from its types: name, value, the values it takes, and its meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from cluster.spec import BASELINE, ClusterSpec


class Knob(NamedTuple):
    """A knob as ``--set`` names it; ``takes`` is its range or its choices, as text."""

    name: str
    value: Any
    baseline: Any
    takes: str
    about: str


def knobs(spec: ClusterSpec) -> list[Knob]:
    """Every knob of a spec, in the order of its declaration."""
    schema = msgspec.json.schema(ClusterSpec)
    return [*_walk(schema, "ClusterSpec", spec, BASELINE)]


def changes(spec: ClusterSpec) -> list[Knob]:
    """The knobs in which a spec differs from the baseline."""
    return [knob for knob in knobs(spec) if knob.value != knob.baseline]


def _walk(
    schema: dict[str, Any], table: str, spec: Any, baseline: Any, prefix: str = ""
) -> Iterator[Knob]:
    for name, field in schema["$defs"][table]["properties"].items():
        value, plain = getattr(spec, name), getattr(baseline, name)
        if isinstance(value, msgspec.Struct):
            yield from _walk(schema, type(value).__name__, value, plain, f"{prefix}{name}.")
        elif "description" in field:
            yield Knob(prefix + name, value, plain, _takes(field), field["description"])


def _takes(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(sorted(field["enum"]))
    least, most = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum")
    if least is None:
        return {"boolean": "true or false", "string": "a name"}[field["type"]]
    low = f"over {least:g}" if "exclusiveMinimum" in field else f"{least:g}"
    return f"{low} to {most:g}" if most is not None else f"{low} or more"
