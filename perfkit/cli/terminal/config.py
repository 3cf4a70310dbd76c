"""Settings from TOML files, the environment and flags; the later source wins.

All of them use the same names. An error names the source, the setting and the value.

A file is read because ``--config`` or ``PERFKIT_CONFIG`` names it. Without either, the user's own
``$XDG_CONFIG_HOME/perfkit/perfkit.toml`` is read, then ``perfkit.toml`` in the working folder. The
latter may be a stranger's, as in an unpacked archive, so the keys of `GUARDED` are refused there.

A file, with every key there is::

    [cluster]
    bind = "tcp://127.0.0.1:5577"       # where a coordinator listens
    endpoint = "tcp://10.0.0.5:5577"    # where to find it, if not at `bind`
    workers = 2
    capacity = 1                        # tasks at once, per worker
    models = ["magika", "digits"]       # names, or paths of .onnx files and models' folders
    repository = "/srv/models"          # where your own models are, if not in your data folder
    handlers = "cluster.work.workloads:HANDLERS"
    spec = "baseline"                   # or a file, "tuned.json"
    insecure = false                    # listen beyond this machine

    [cluster.set]                       # knobs of the spec
    policy = "adaptive"
    limits.heartbeat_s = 0.5
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from cluster.spec import DEFAULT_ENDPOINT, ClusterSpec
from cluster.vocabulary.errors import did_you_mean
from perfkit.optimized.knobs import (
    SettingError,
    build_spec,
    check_known,
    converted,
    flat,
    parse_pairs,
)
from perfkit.optimized.specs import FILE_SUFFIX

DEFAULT_BIND = DEFAULT_ENDPOINT
DEFAULT_FILE = Path("perfkit.toml")
FILE_VARIABLE = "PERFKIT_CONFIG"
PREFIX = "PERFKIT_"
#: Other programs may use this prefix, so only a variable this close to a setting is an error.
SLIP_CUTOFF = 0.9

ENDPOINT = re.compile(r"tcp://(?:[^:/\s\[\]]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5}|\*)|ipc://\S+")
PORT_MAX = 65_535

#: What may run code, load files or open this machine: the worker's kinds, and parts of the spec,
#: which are imported by name.
GUARDED = frozenset(
    {"handlers", "models", "repository", "insecure"}
    | {
        f"set.{field.name}"
        for field in msgspec.structs.fields(ClusterSpec)
        if isinstance(field.default, str) and ":" in field.default
    }
)

#: The place to name in an error, the setting's name, and its value.
Given: TypeAlias = tuple[str, str, Any]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of ``perfkit cluster``; the top of this file explains them.

    ``set`` maps a knob of the spec, such as ``limits.heartbeat_s``, to its value.
    """

    bind: str = DEFAULT_BIND
    endpoint: str | None = None
    workers: Annotated[int, Meta(ge=0, le=4_096)] | None = None
    capacity: Annotated[int, Meta(ge=1, le=4_096)] = 1
    models: list[str] = []
    repository: str | None = None
    handlers: str = "cluster.work.workloads:HANDLERS"
    spec: str | None = None
    set: dict[str, Any] = {}
    insecure: bool = False

    @property
    def worker_count(self) -> int:
        """How many workers are wanted, two if nothing says it."""
        return 2 if self.workers is None else self.workers

    @property
    def coordinator(self) -> str:
        """Where to find the coordinator: ``endpoint`` or, without one, where ``bind`` listens.

        Raises:
            SettingError: ``bind`` lets the system choose the port.
        """
        if self.endpoint is not None:
            return self.endpoint
        if self.bind.startswith("tcp://") and self.bind.endswith(":*"):
            raise SettingError(f"{self.bind} names no port to connect to; use --endpoint")
        return re.sub(r"//(0\.0\.0\.0|\*)(?=:\d+$)", "//127.0.0.1", self.bind)

    def cluster_spec(self) -> ClusterSpec:
        """The chosen spec with its knobs set; see `build_spec`."""
        return build_spec(self.spec or "baseline", self.set)

    def peer_spec(self) -> ClusterSpec | None:
        """The spec chosen for a client or a worker; None to adopt the coordinator's."""
        return self.cluster_spec() if self.spec or self.set else None


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def load(
    config_path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    tell: Callable[[str], None] = lambda _: None,
) -> Settings:
    """The settings of one call.

    ``config_path`` is what ``--config`` named; see the top of this file. ``flags`` maps the fields
    that were given to values. ``tell`` gets a line for each file that was read.

    Raises:
        SettingError: a file that is missing or not TOML, an unknown key, a wrong type or value, a
        guarded key in a file that nobody named.
    """
    values: dict[str, Any] = {"set": {}}
    from_flags = ((f"--{name.replace('models', 'model')}", name, flags[name]) for name in flags)
    for place, name, value in (
        *_from_files(config_path, environ, tell),
        *_from_environment(environ),
        *from_flags,
    ):
        checked = converted(value, FIELDS[name].type, place)
        if name in ("bind", "endpoint"):
            _check_endpoint(checked, place, any_port=name == "bind")
        if name == "set":
            values["set"] |= flat(checked)
        else:
            values[name] = checked
    return Settings(**values)


def user_file(environ: Mapping[str, str]) -> Path | None:
    """The user's own settings, by the XDG Base Directory rules; None without a home folder."""
    folder, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(folder):
        folder = f"{home}/.config" if home else ""
    return Path(folder, "perfkit", DEFAULT_FILE) if folder else None


def _from_files(
    config_path: Path | None, environ: Mapping[str, str], tell: Callable[[str], None]
) -> Iterator[Given]:
    named = config_path or environ.get(FILE_VARIABLE)
    if named:
        yield from _from_file(Path(named), tell)
        return
    own = user_file(environ)
    has_own = own is not None and own.is_file()
    if own and has_own:
        yield from _from_file(own, tell)
    if DEFAULT_FILE.is_file() and not (own and has_own and DEFAULT_FILE.samefile(own)):
        for place, name, value in _from_file(DEFAULT_FILE, tell):
            knobs = flat(value, "set.") if name == "set" and isinstance(value, dict) else ()
            # A spec in a file names parts, which are imported.
            guarded = GUARDED | ({"spec"} if str(value).endswith(FILE_SUFFIX) else set())
            for key in guarded.intersection(() if value is False else (name, *knobs)):
                raise SettingError(
                    f"{DEFAULT_FILE}: cluster.{key} may run code or open this machine, so it is "
                    "not taken from a file that nobody named; if the file is yours, say "
                    f"--config {DEFAULT_FILE}" + (f", or move the key to {own}" if own else "")
                )
            yield place, name, value


def _from_file(path: Path, tell: Callable[[str], None]) -> Iterator[Given]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from None
    for key in content:
        if key != "cluster":
            raise SettingError(f"{path}: unknown key {key!r}; settings belong in [cluster]")
    table = content.get("cluster", {})
    if not isinstance(table, dict):
        raise SettingError(f"{path}: 'cluster' must be a table, written as [cluster]")
    found = ", ".join(f"{name} = {value!r}" for name, value in table.items())
    tell(f"settings from {path.absolute()}: {found or 'none'}")
    for name, value in table.items():
        check_known("key", name, FIELDS, f"{path}, [cluster]: ")
        yield f"{path}: cluster.{name}", name, value


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    """The settings in variables; one that is almost such a variable is an error."""
    known = {PREFIX + name.upper(): name for name in FIELDS}
    for variable, text in environ.items():
        place = f"environment: {variable}"
        name = known.get(variable)
        if name is None and variable.startswith(PREFIX) and variable != FILE_VARIABLE:
            if hint := did_you_mean(variable, known, SLIP_CUTOFF):
                raise SettingError(f"{place} is not a setting{hint}")
        elif name in ("models", "set"):
            parts = [part.strip() for part in text.split(",") if part.strip()]
            yield place, name, parts if name == "models" else parse_pairs(parts, place)
        elif name is not None:
            yield place, name, text


def _check_endpoint(endpoint: str, place: str, *, any_port: bool) -> None:
    match = ENDPOINT.fullmatch(endpoint)
    port = match["port"] if match else ""
    if port == "*":
        fits = any_port
    else:
        fits = match is not None and (port is None or 0 < int(port) <= PORT_MAX)
    if not fits:
        raise SettingError(
            f"{place}: {endpoint!r} is not an endpoint; write {DEFAULT_BIND} or ipc://PATH"
        )
