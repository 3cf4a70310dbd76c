"""Functions as bytes, for the workers of this machine: what they need comes along, and what can't
is named.

A function travels by value, with the variables that it uses as they are now, if it is defined in a
notebook or a script, or in a file of the user's own: the workers might have that file as it was
when they started. What an installed package has travels by name. cloudpickle does it:
https://github.com/cloudpipe/cloudpickle. A file that a function imports when it is called is looked
for where it is found here.
"""

from __future__ import annotations

import dis
import functools
import io
import linecache
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib import invalidate_caches
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any, NamedTuple, TypeAlias

from cluster.vocabulary.errors import ClusterError

BYTES_MAX = 32 << 20
#: of a value that is compared with what it was
INSIDE_BYTES_MAX = 64 << 10
#: how far into a function's variables the search for what can't travel goes
DEPTH_MAX = 8
PARTS_MAX = 256
#: packages that every worker has as they are here
WITH_WORKERS = ("cluster", "perfkit")

#: the file name of all code that cloudpickle takes by value
UNNAMED = "<dynamic-code>"

#: the folder of the standard library
_STANDARD = str(Path(linecache.__file__).parent)
_LOCKS = type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event
#: what to do about a value that can't travel
_ADVICE: Iterable[tuple[type | tuple[type, ...], str]] = (
    (io.IOBase, "open it inside the function, or pass its name as an item"),
    (socket.socket, "connect inside the function"),
    (GeneratorType, "make it a list"),
    (_LOCKS, "each worker is a process of its own, so a lock would protect nothing: leave it out"),
)

#: a function with `functools.cache`
Cached = functools._lru_cache_wrapper
#: what the import system writes into a module
_OF_IMPORT = {"__builtins__", "__cached__", "__loader__", "__spec__"}

#: one process-wide setting of cloudpickle's is changed meanwhile
_dumping = threading.Lock()


def dump(value: Any) -> bytes:
    """A value as bytes for `cloudpickle.loads`; raises whatever pickling raises."""
    cloudpickle = _cloudpickle()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
        """Keeps the file names of code, for tracebacks, leaves out how a module was imported, takes
        functions with a cache, and refuses an open file, which cloudpickle would read to its end.
        """

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, CodeType) and value.co_filename != UNNAMED:
                return _name_file, (value.replace(co_filename=UNNAMED), value.co_filename)
            if isinstance(value, ModuleType) and _is_own(value):
                own = {k: v for k, v in vars(value).items() if k not in _OF_IMPORT}
                return ModuleType, (value.__name__,), own
            if isinstance(value, Cached) and _is_own(value):
                return _cache, (value.__wrapped__, value.cache_parameters())
            if isinstance(value, io.IOBase) and value not in (sys.stdout, sys.stderr):
                raise TypeError(f"cannot pickle {type(value).__name__!r} object")
            return super().reducer_override(value)

    file = io.BytesIO()
    with _dumping, _own_by_value(cloudpickle):
        Pickler(file).dump(value)
    return file.getvalue()


def dump_functions(functions: Mapping[str, Callable[..., Any]]) -> bytes:
    """Functions by name as bytes; what they share, they share afterwards.

    Raises ClusterError if one can't travel: the message says which of its variables, and what to
    do.
    """
    try:
        data = dump(dict(functions))
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(_trouble(functions, error)) from None
    if len(data) > BYTES_MAX:
        name, path = _largest(functions)
        raise ClusterError(
            f"{name} has {len(data) >> 20} MiB to take along to each worker, most of it in {path}; "
            f"at most {BYTES_MAX >> 20} MiB can travel: load it inside the function, or pass it as "
            "an item"
        )
    return data


def _name_file(code: CodeType, path: str) -> CodeType:
    return code.replace(co_filename=path)


def _cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


class Use(NamedTuple):
    """Something that a function depends on, how to look it up again, and what it was."""

    name: str
    look: Callable[[], Any]
    value: Any


class Snapshot:
    """What functions depend on, as it is now: code, and the values of variables by identity. What
    is changed inside a value shows to those who look closely, up to ``INSIDE_BYTES_MAX`` of it.
    """

    def __init__(self, *functions: Any) -> None:
        self._uses: list[Use] = []
        self._inside: list[tuple[Use, bytes]] = []
        self._seen: set[int] = set()
        #: the text of cells that the code is from, and of files that it imports, by file name
        self.sources: dict[str, str] = {}
        #: the folders to look for those files, if there are any
        self.folders: list[str] = []
        for function in functions:
            self._visit(function)

    def changed(self, *, closely: bool = False) -> str | None:
        """The name of something that has been defined anew since, or None. ``closely`` finds also
        what was changed inside a list, a dict, an array, an object or a class, for microseconds a
        kilobyte.
        """
        found = (name for name, look, value in self._uses if look() is not value)
        if (name := next(found, None)) is not None or not closely:
            return name
        inside = (use.name for use, data in self._inside if _content(use.look()) != data)
        return next(inside, None)

    def _visit(self, value: Any) -> None:
        if id(value) in self._seen or not isinstance(value, _FOLLOWED):
            return
        self._seen.add(id(value))
        if isinstance(value, FunctionType | type | ModuleType) and not _is_own(value):
            return
        if isinstance(value, FunctionType):
            self._note_source(value.__code__.co_filename)
            for name in _names(value.__code__, "IMPORT_NAME"):
                self._note_import(name)
        for use in _uses(value):
            if isinstance(value, FunctionType) or isinstance(use.value, FunctionType | type):
                self._uses.append(use)
            if not isinstance(use.value, _PLAIN) and (data := _content(use.value)) is not None:
                self._inside.append((use, data))
            self._visit(use.value)
            self._visit(type(use.value))
        for base in value.__bases__ if isinstance(value, type) else ():
            self._visit(base)

    def _note_source(self, path: str) -> None:
        if path not in self.sources and not Path(path).exists():
            self.sources[path] = "".join(linecache.getlines(path))

    def _note_import(self, name: str) -> None:
        path = _own_file_of(name.partition(".")[0])
        if path is not None and path not in self.sources:
            self.sources[path] = Path(path).read_text(errors="replace")
            self.folders = [os.path.abspath(folder) for folder in sys.path]
            self._uses.append(Use(name, partial(_version, path), _version(path)))


def show_sources(sources: Mapping[str, str]) -> None:
    """Have tracebacks show the lines of these files, which this machine may not have."""
    for path, text in sources.items():
        linecache.cache[path] = len(text), None, text.splitlines(keepends=True), path


def import_anew(folders: Iterable[str]) -> None:
    """Have the user's own files imported as they are now, also from these folders."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and _is_own_module(name, module):
            del sys.modules[name]
    sys.path += [folder for folder in folders if folder not in sys.path]
    invalidate_caches()


#: values whose parts are looked at
_FOLLOWED = (FunctionType, type, ModuleType, MethodType, partial, Cached)
#: values with nothing inside that could be changed, or whose parts are looked at
_PLAIN = (*_FOLLOWED, BuiltinFunctionType, CodeType, NoneType)


def _content(value: Any) -> bytes | None:
    """What is inside a value as bytes; None if that is too much, or can't be told."""
    data = b""
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # whatever the user's own objects raise, such as those of a local class
        with suppress(Exception):
            data = pickle.dumps(vars(value), pickle.HIGHEST_PROTOCOL)
    return data if 0 < len(data) <= INSIDE_BYTES_MAX else None


def _uses(value: Any) -> Iterator[Use]:
    """What a function, a class or a module of the user's own depends on."""
    if isinstance(value, FunctionType):
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            part = getattr(value, attribute)
            yield Use(value.__name__, partial(getattr, value, attribute), part)
        for name in sorted(_names(value.__code__, "LOAD_GLOBAL")):
            look = partial(value.__globals__.get, name)
            yield Use(name, look, look())
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=False):
            look = partial(getattr, cell, "cell_contents", None)
            yield Use(name, look, look())
    elif isinstance(value, partial | MethodType | Cached):
        for name in ("func", "args", "keywords", "__func__", "__self__", "__wrapped__"):
            if hasattr(value, name):
                yield Use(name, partial(getattr, value, name), getattr(value, name))
    else:
        own: Mapping[str, Any] = vars(value)
        for name, part in list(own.items()):
            if isinstance(part, FunctionType | type) or not name.startswith("__"):
                yield Use(name, partial(own.get, name), part)


def _names(code: CodeType, opname: str) -> set[str]:
    """The names that code loads or imports, and those of functions inside it."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == opname}
    inner = (_names(const, opname) for const in code.co_consts if isinstance(const, CodeType))
    return names.union(*inner)


def _own_file_of(name: str) -> str | None:
    """The file of a module or package if it is the user's own, imported already or not."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None) if module else PathFinder.find_spec(name)
    path = getattr(spec, "origin", None)
    if not isinstance(path, str) or name in WITH_WORKERS or not _is_own_file(path):
        return None
    return path if os.path.exists(path) else None


def _version(path: str) -> str:
    """A file's time and size as one and the same object for as long as they stay so."""
    with suppress(OSError):
        found = os.stat(path)
        return sys.intern(f"{found.st_mtime_ns} {found.st_size}")
    return ""


# Whose a function is


def _is_own(value: Any) -> bool:
    """Whether a function, class or module is the user's own, so that it travels by value."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__
    if name is None or name == "__main__":
        return True
    module = sys.modules.get(name)
    return module is None or _is_own_module(name, module)


def _is_own_module(name: str, module: Any) -> bool:
    if not isinstance(module, ModuleType) or name.partition(".")[0] in WITH_WORKERS:
        return False
    path = module.__dict__.get("__file__")
    return isinstance(path, str) and _is_own_file(path)


@lru_cache(maxsize=8192)
def _is_own_file(path: str) -> bool:
    """Whether a Python file belongs to no installed package, nor to Python."""
    parts = Path(path).parts
    is_installed = "site-packages" in parts or "dist-packages" in parts
    return path.endswith(".py") and not is_installed and not path.startswith(_STANDARD)


@contextmanager
def _own_by_value(cloudpickle: Any) -> Iterator[None]:
    """Have cloudpickle take the user's own modules by value, not by name."""
    known = cloudpickle.list_registry_pickle_by_value()
    loaded = list(sys.modules.items())
    own = {m.__name__: m for name, m in loaded if _is_own_module(name, m)}
    own = {name: m for name, m in own.items() if name in sys.modules and name not in known}
    for module in own.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own.values():
            cloudpickle.unregister_pickle_by_value(module)


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError as error:
        raise ClusterError(
            "functions of a notebook need the extra [lab]: pip install 'perfkit[lab]'"
        ) from error
    return cloudpickle


# What can't travel

Part: TypeAlias = tuple[str, Any]


def _trouble(functions: Mapping[str, Any], error: Exception) -> str:
    """Which variable of which function can't travel, and what to do about it."""
    causes = ((name, _refusal(function)) for name, function in functions.items())
    name, cause = next((it for it in causes if it[1] is not None), ("a function", error))
    assert cause is not None
    path, value, error = _culprit("", functions.get(name), cause)
    advice = next((words for kinds, words in _ADVICE if isinstance(value, kinds)), "")
    if _is_of_cluster(value):
        advice = "a function can't use the cluster that runs it: hand in its tasks from here"
    path = path.removeprefix(" → ") or "it"
    what = f"{path} is a {type(value).__name__}"
    return (
        f"{name} can't travel to the workers: {what} ({error}); "
        f"{advice or 'make it inside the function, or pass what it holds as plain data'}"
    )


def _refusal(value: Any) -> Exception | None:
    """What pickling a value raises."""
    try:
        dump(value)
    except Exception as error:
        return error
    return None


def _culprit(path: str, value: Any, error: Exception, depth: int = 0) -> tuple[str, Any, Exception]:
    """The innermost part of a value that can't travel: its path, the part, and the error."""
    if depth < DEPTH_MAX:
        for name, part in islice(_parts(value), PARTS_MAX):
            if (inner := _refusal(part)) is not None:
                return _culprit(f"{path}{name}", part, inner, depth + 1)
    return path, value, error


def _parts(value: Any) -> Iterator[Part]:
    """The parts of a value, each with what to add to the value's path."""
    if _is_of_cluster(value):
        return
    if isinstance(value, _FOLLOWED):
        if not isinstance(value, FunctionType | type | ModuleType) or _is_own(value):
            kind = "variable" if isinstance(value, FunctionType | ModuleType) else "part"
            for use in _uses(value):
                yield f" → its {kind} {use.name!r}", use.value
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r:.40}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    else:
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())


def _is_of_cluster(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in WITH_WORKERS


def _largest(functions: Mapping[str, Any]) -> tuple[str, str]:
    """The function with the most bytes to take along, and its variable that has the most."""
    name = max(functions, key=lambda name: len(dump(functions[name])))
    parts = [(len(dump(part)), path) for path, part in _parts(functions[name])]
    return name, max(parts, default=(0, "itself"))[1].removeprefix(" → ")
