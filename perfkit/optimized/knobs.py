"""The knobs of a spec, read from its types: name, value, the values it takes, and its meaning; and
specs as they are written in a line, by a name and ``KNOB=VALUE``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import reduce
from operator import attrgetter, getitem
from typing import Any, NamedTuple

import msgspec

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.optimized.specs import spec_named


class SettingError(Exception):
    """A setting or an argument is wrong; the message is one line that names it."""


class Knob(NamedTuple):
    """A knob as ``--set`` names it; ``takes`` is its range or its choices, as text."""

    name: str
    value: Any
    baseline: Any
    takes: str
    about: str


def knobs(spec: ClusterSpec) -> list[Knob]:
    """Every knob of a spec, in the order of its declaration."""
    return [
        Knob(name, value_of(spec, name), value_of(BASELINE, name), _takes(field), about)
        for name, field in fields().items()
        if (about := field.get("description"))
    ]


def fields() -> dict[str, dict[str, Any]]:
    """What each knob may be, as JSON Schema says it, by the name that ``--set`` takes."""
    schema = msgspec.json.schema(ClusterSpec)["$defs"]
    return dict(_walk(schema, "ClusterSpec"))


def value_of(spec: ClusterSpec, name: str) -> Any:
    """The value of a knob."""
    return attrgetter(name)(spec)


def with_knobs(spec: ClusterSpec, values: Mapping[str, Any], name: str) -> ClusterSpec:
    """The spec with other values of some knobs, and a name of its own.

    Raises ClusterError for a value that a knob does not take.
    """
    tables = msgspec.to_builtins(spec) | {"name": name}
    for knob, value in values.items():
        *path, last = knob.split(".")
        reduce(getitem, path, tables)[last] = value
    try:
        return msgspec.convert(tables, ClusterSpec)
    except msgspec.ValidationError as error:
        raise ClusterError(f"not a value of a knob: {error}") from None


def changes(spec: ClusterSpec) -> list[Knob]:
    """The knobs in which a spec differs from the baseline."""
    return [knob for knob in knobs(spec) if knob.value != knob.baseline]


def build_spec(name: str, knobs: Mapping[str, Any]) -> ClusterSpec:
    """The spec of that name, or in that file, with some of its knobs changed; the new name tells
    which.

    Raises:
        SettingError: no such spec or knob, or a value that the knob does not take.
    """
    try:
        spec = spec_named(name)
    except ClusterError as error:
        raise SettingError(str(error)) from None
    return turn_knobs(spec, knobs) if knobs else spec


def turn_knobs(spec: ClusterSpec, knobs: Mapping[str, Any]) -> ClusterSpec:
    """The spec with some of its knobs changed, whose values may be text; SettingError as in
    `build_spec`.
    """
    values = msgspec.to_builtins(spec)
    known = flat(values)
    del known["name"]
    for knob, value in knobs.items():
        part_of = [other for other in known if other.startswith(f"{knob}.")]
        if part_of:
            raise SettingError(f"{knob!r} is several knobs: {', '.join(part_of)}")
        check_known("knob", knob, known)
        *tables, last = knob.split(".")
        reduce(getitem, tables, values)[last] = value
    label = "+".join([spec.name, *(f"{knob}-{value}" for knob, value in knobs.items())])
    values["name"] = re.sub(r"[^a-z0-9+._-]+", "-", label.lower())
    turned: ClusterSpec = converted(values, ClusterSpec, "knob ")
    return turned


def parse_pairs(pairs: Iterable[str], source: str) -> dict[str, str]:
    """The values of ``NAME=VALUE`` texts by name; SettingError for any other text."""
    found = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not all(name.split(".")):
            raise SettingError(f"{source}: {pair!r} is not NAME=VALUE")
        found[name] = value
    return found


def check_known(what: str, word: str, known: Collection[str], place: str = "") -> None:
    """Raises SettingError, with the closest known word or all of them, unless the word is known."""
    if word not in known:
        hint = did_you_mean(word, known) or f"; there are {', '.join(known)}"
        raise SettingError(f"{place}there is no {what} {word!r}{hint}")


def converted(value: Any, wanted: Any, place: str) -> Any:
    """The value as the wanted type. Text may stand for a number, as the environment has only text.

    Raises:
        SettingError: it does not fit; the message names ``place`` and the path within the value.
    """
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError as error:
        said, _, path = str(error).replace("`", "").partition(" - at $")
        names = path.split(".")[1:]
        given = reduce(getitem, names, value)
        said = (said[:1].lower() + said[1:]).replace(" | null", "")
        raise SettingError(f"{place}{'.'.join(names)}: {said} ({given!r} was given)") from None


def flat(tables: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names: ``limits.heartbeat_s``."""
    found: dict[str, Any] = {}
    for name, value in tables.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{path}{name}.") if inner else {path + name: value}
    return found


def _walk(
    schema: dict[str, Any], table: str, prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema[table]["properties"].items():
        inner = field.get("$ref", "").rpartition("/")[2]
        if inner:
            yield from _walk(schema, inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _takes(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(sorted(field["enum"]))
    least, most = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum")
    if least is None:
        return {"boolean": "true or false", "string": "a name"}[field["type"]]
    low = f"over {least:g}" if "exclusiveMinimum" in field else f"{least:g}"
    return f"{low} to {most:g}" if most is not None else f"{low} or more"
