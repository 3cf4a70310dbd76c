"""Where a command's settings come from: a TOML file, the environment, flags; the later wins.

Somebody who starts a cluster every day writes a file, a container sets variables, and a flag is for
this once. All three say the same few things by the same names, so they are one Struct, and whatever
is wrong with a value is told with the place it came from.

A file, with every key there is::

    [cluster]
    bind = "tcp://127.0.0.1:5577"       # where a coordinator listens
    endpoint = "tcp://10.0.0.5:5577"    # where to find it, if not at `bind`
    workers = 2
    capacity = 1                        # tasks at once, per worker
    models = ["magika", "digits"]
    handlers = "cluster.work.workloads:HANDLERS"
    spec = "baseline"
    insecure = false                    # listen beyond this machine

    [cluster.set]                       # knobs of the spec
    policy = "adaptive"
    limits.heartbeat_s = 0.5
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from cluster.spec import DEFAULT_ENDPOINT, ClusterSpec
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.optimized.specs import spec_named

DEFAULT_BIND = DEFAULT_ENDPOINT
DEFAULT_FILE = Path("perfkit.toml")
FILE_VARIABLE = "PERFKIT_CONFIG"
PREFIX = "PERFKIT_"

ENDPOINT = re.compile(r"tcp://([^:/\s\[\]]+|\[[0-9a-fA-F:]+\]):(\d{1,5}|\*)|ipc://\S+")
PORT_MAX = 65_535

Workers = Annotated[int, Meta(ge=0, le=4_096)]
Capacity = Annotated[int, Meta(ge=1, le=4_096)]


class SettingError(Exception):
    """A setting or an argument that cannot be used: one sentence with its place and its name."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the commands of ``perfkit cluster`` need to know; the file's top explains the names.

    ``set`` holds the knobs of the spec that are to differ, nested as in `ClusterSpec`.
    """

    bind: str = DEFAULT_BIND
    endpoint: str | None = None
    workers: Workers = 2
    capacity: Capacity = 1
    models: list[str] = []
    handlers: str = "cluster.work.workloads:HANDLERS"
    spec: str = "baseline"
    set: dict[str, Any] = {}
    insecure: bool = False

    @property
    def coordinator(self) -> str:
        """Where to find the coordinator: at ``endpoint``, or else where one would listen by these
        settings.

        Raises:
            SettingError: it would listen at a port that the system chooses.
        """
        if self.endpoint is not None:
            return self.endpoint
        if self.bind.startswith("tcp://") and self.bind.endswith(":*"):
            raise SettingError(f"{self.bind} names no port to connect to; use --endpoint")
        return re.sub(r"//(0\.0\.0\.0|\*)(?=:\d+$)", "//127.0.0.1", self.bind)


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def load(
    config_path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Settings:
    """The settings of one call.

    ``config_path`` None means the file that the environment names, or ``perfkit.toml`` in the
    working directory if there is one. ``flags`` are by field; None is a flag that was not given.

    Raises:
        SettingError: a file that is missing or not TOML, an unknown key, a wrong type or value.
    """
    values: dict[str, Any] = {}
    for source, layer in (
        _file_layer(_chosen_file(config_path, environ)),
        ("environment", _environment_layer(environ)),
        ("command line", {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in layer.items():
            checked = _checked(source, name, value)
            values[name] = _merged(values.get(name, {}), checked) if name == "set" else checked
    return Settings(**values)


def build_spec(name: str, knobs: Mapping[str, Any]) -> ClusterSpec:
    """The named spec with some of its knobs turned; its name then says which.

    Raises:
        SettingError: no such spec or knob, or a value that the knob does not take.
    """
    try:
        spec = spec_named(name)
    except ClusterError as error:
        raise SettingError(str(error)) from None
    if not knobs:
        return spec
    turned: ClusterSpec = _turned(spec, knobs, "")
    marks = (f"{knob}-{value}" for knob, value in _flat(knobs))
    label = re.sub(r"[^a-z0-9+._-]+", "-", "+".join([name, *marks]).lower())
    return msgspec.structs.replace(turned, name=label)


def parse_knobs(pairs: Iterable[str], source: str) -> dict[str, Any]:
    """``limits.heartbeat_s=0.5`` as the nested tables that TOML would make of it.

    Raises:
        SettingError: text without a name and an equals sign.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not all(name.split(".")):
            raise SettingError(
                f"{source}: {pair!r} is no knob; write it as NAME=VALUE, "
                "for example limits.heartbeat_s=0.5"
            )
        *tables, last = name.split(".")
        table: dict[str, Any] = {last: _literal(text)}
        for outer in reversed(tables):
            table = {outer: table}
        found = _merged(found, table)
    return found


def _chosen_file(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config_path is not None:
        return config_path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _file_layer(path: Path | None) -> tuple[str, dict[str, Any]]:
    if path is None:
        return "", {}
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from None
    for name, table in content.items():
        if name != "cluster":
            raise SettingError(
                f"{path}: unknown key {name!r}; settings belong in the table [cluster]"
            )
        if not isinstance(table, dict):
            raise SettingError(f"{path}: 'cluster' must be a table, written as [cluster]")
    return str(path), content.get("cluster", {})


def _environment_layer(environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields that variables set; one that is nearly such a variable is taken for a slip."""
    known = {PREFIX + name.upper(): name for name in FIELDS}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable in known:
            found[known[variable]] = _from_text(known[variable], text, variable)
            continue
        suffixes = [name.upper() for name in FIELDS]
        if close := get_close_matches(variable.removeprefix(PREFIX), suffixes, n=1, cutoff=0.8):
            raise SettingError(
                f"environment: {variable} is no setting; did you mean {PREFIX}{close[0]}?"
            )
    return found


def _from_text(name: str, text: str, variable: str) -> object:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if name == "set":
        return parse_knobs(parts, f"environment: {variable}")
    if name == "models":
        return parts
    # TOML's own words for numbers and switches, so that a value means the same in both places.
    return _literal(text) if FIELDS[name].type not in (str, str | None) else text


def _literal(text: str) -> object:
    """A number, a switch, a list or a quoted text as TOML reads it; anything else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(source: str, name: str, value: object) -> Any:
    place = _place(source, name)
    if name not in FIELDS:
        known = ", ".join(FIELDS)
        hint = did_you_mean(name, FIELDS) or f"; there are {known}"
        raise SettingError(f"{source}: unknown key 'cluster.{name}'{hint}")
    checked = _converted(value, FIELDS[name].type, place)
    if name in ("bind", "endpoint"):
        _check_endpoint(checked, place, port_chosen=name == "bind")
    return checked


def _place(source: str, name: str) -> str:
    if source == "environment":
        return f"environment: {PREFIX}{name.upper()}"
    if source == "command line":
        return f"--{'model' if name == 'models' else name}"
    return f"{source}: cluster.{name}"


def _check_endpoint(endpoint: str, place: str, *, port_chosen: bool) -> None:
    fits = ENDPOINT.fullmatch(endpoint) is not None
    if fits and endpoint.startswith("tcp://"):
        port = endpoint.rpartition(":")[2]
        fits = port_chosen if port == "*" else 0 < int(port) <= PORT_MAX
    if not fits:
        scheme = urlsplit(endpoint).scheme if "://" in endpoint else ""
        hint = "" if scheme in ("tcp", "ipc") else " (tcp:// or ipc:// comes first)"
        raise SettingError(
            f"{place}: {endpoint!r} is no endpoint{hint}; write it as {DEFAULT_BIND} or ipc://PATH"
        )


def _converted(value: object, wanted: Any, place: str) -> Any:
    """The value as the field's type has it; a whole number will do for a float."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        said = str(error).partition(" - at ")[0]
        said = said[:1].lower() + said[1:].replace("`", "")
        raise SettingError(f"{place}: {said} ({value!r} was given)") from None


def _turned(part: Any, knobs: Mapping[str, Any], path: str) -> Any:
    fields = {field.name: field for field in msgspec.structs.fields(part)}
    changes: dict[str, Any] = {}
    for name, value in knobs.items():
        knob = path + name
        if name not in fields or knob == "name":
            known = [path + other for other in fields if other != "name"]
            hint = did_you_mean(knob, known) or f"; there are {', '.join(known)}"
            raise SettingError(f"the spec has no knob {knob!r}{hint}")
        current = getattr(part, name)
        if isinstance(current, msgspec.Struct):
            if not isinstance(value, Mapping):
                inner = ", ".join(
                    f"{knob}.{field.name}" for field in msgspec.structs.fields(current)
                )
                raise SettingError(f"{knob!r} is not one knob but several: {inner}")
            changes[name] = _turned(current, value, f"{knob}.")
        else:
            changes[name] = _converted(value, fields[name].type, f"knob {knob}")
    return msgspec.structs.replace(part, **changes)


def _flat(knobs: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, object]]:
    for name, value in knobs.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield path + name, value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; where they differ, ``over`` holds."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged
