"""Functions of the user's as handlers: packed by the program that has them, unpacked by workers.

A function takes and returns plain data (`cluster.work.plain_data`); a registry of `Handlers` holds
handlers of bytes. Both are named, and tasks ask for them by name. They reach only workers that this
program has started itself, through a folder of its own (`cluster.work.pack_folder`), never over the
wire.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from cluster.vocabulary.errors import ClusterError, did_you_mean
from cluster.work.handlers import Handler, Handlers, Told
from cluster.work.plain_data import pack_result, read_call
from cluster.work.travel import Snapshot, dump_functions, import_anew, show_sources

#: begins the part of a failure's message that is the worker's traceback
TRACEBACK = "\n\nRaised in the worker:\n"
#: of a kind of task
NAME_LENGTH_MAX = 128
MESSAGE_LENGTH_MAX = 700
TRACEBACK_LENGTH_MAX = 1_200

#: for a worker that has only what it is sent
NO_HANDLERS = Handlers()

Function: TypeAlias = Callable[..., Any]
#: what can be given as ``handlers``: a registry, a function, or functions, perhaps by name
Work: TypeAlias = Handlers | Function | Sequence[Function] | Mapping[str, Function]

#: callables whose results are no plain data, and what to do instead
_UNFIT: Sequence[tuple[Callable[[Any], bool], str]] = (
    (inspect.isclass, "a class, whose objects are not plain data; register a function"),
    (inspect.iscoroutinefunction, "a coroutine function; register one that calls asyncio.run"),
    (inspect.isgeneratorfunction, "a generator function; have it return a list"),
    (inspect.isasyncgenfunction, "an asynchronous generator function; have it return a list"),
)


class Part(msgspec.Struct, array_like=True):
    """What a pack has under one name: a function, or a handler of bytes."""

    name: str
    how: Literal["function", "single", "batch"]
    views: bool = False


class PackContent(msgspec.Struct, array_like=True):
    """A pack: its parts, their functions by name as `travel` gives them, their source text, and the
    folders with what they import when they are called.
    """

    parts: list[Part]
    functions: bytes
    sources: dict[str, str]
    folders: list[str]


class Pack(NamedTuple):
    """Functions or handlers on their way to the workers; ``functions`` has those of plain data, and
    ``snapshot`` what all of them depend on.
    """

    names: frozenset[str]
    functions: Mapping[str, Function]
    snapshot: Snapshot
    data: bytes


def pack_work(work: Work, name: str | None = None) -> list[Pack]:
    """Functions, one a pack, or the handlers in a registry as one; a single function may be given a
    ``name``. Functions have what they use for themselves, handlers of a registry share it.

    Raises ClusterError for what is neither or can't travel.
    """
    if name is not None and not callable(work):
        raise ClusterError(f"the name {name!r:.100} is for a single function, not {work!r:.100}")
    if isinstance(work, Handlers):
        return [_pack(*_handlers_of(work), {})]
    if callable(work):
        functions = {name_of(work, name): work}
    elif isinstance(work, Mapping):
        functions = {name_of(function, name): function for name, function in work.items()}
    elif isinstance(work, list | tuple):
        functions = {name_of(function): function for function in work}
        if len(functions) < len(work):
            raise ClusterError(f"two functions have one name: {', '.join(map(name_of, work))}")
    else:
        raise ClusterError(
            "handlers are a Handlers registry, a function, or several functions in a list "
            f"or in a mapping from names, not {work!r:.100}"
        )
    single = ({name: function} for name, function in functions.items())
    return [_pack([Part(name, "function", True) for name in one], one, one) for one in single]


def _pack(
    parts: list[Part], callables: Mapping[str, Function], functions: Mapping[str, Function]
) -> Pack:
    snapshot = Snapshot(*callables.values())
    found = dump_functions(callables)
    content = PackContent(parts, found, snapshot.sources, snapshot.folders)
    names = frozenset(part.name for part in parts)
    return Pack(names, functions, snapshot, msgspec.msgpack.encode(content))


def _handlers_of(handlers: Handlers) -> tuple[list[Part], dict[str, Function]]:
    if handlers.models:
        raise ClusterError("a registry with models can't travel; name them: LocalCluster(models=…)")
    parts: list[Part] = []
    found: dict[str, Function] = {}
    for kind in handlers.kinds():
        single = handlers.single(kind)
        how: Literal["single", "batch"] = "batch" if single is None else "single"
        parts.append(Part(kind, how, handlers.converter(kind) is not bytes))
        found[kind] = handlers[kind] if single is None else single
    return parts, found


def unpack_work(data: bytes) -> Handlers:
    """The handlers of a pack that this user's own program has made: it is run as code.

    Raises ClusterError if that fails here, such as for a package that is missing.
    """
    import cloudpickle

    content = msgspec.msgpack.decode(data, type=PackContent)
    show_sources(content.sources)
    if content.folders:
        import_anew(content.folders)
    names = ", ".join(part.name for part in content.parts)
    try:
        functions: dict[str, Any] = cloudpickle.loads(content.functions)
    except BaseException as error:
        raise ClusterError(
            f"{names} can't be loaded in a worker: {type(error).__name__}: {error}"
        ) from error
    handlers = Handlers()
    for part in content.parts:
        function = functions[part.name]
        if part.how == "batch":
            handlers.register_batch(part.name, views=part.views)(function)
        else:
            handler = as_handler(function) if part.how == "function" else function
            handlers.register(part.name, views=part.views)(handler)
    return handlers


def as_handler(function: Function) -> Handler:
    """The handler that calls a function with the arguments in its payload. What the function raises
    is told with the traceback.
    """

    def handle(payload: bytes | memoryview) -> bytes:
        items = read_call(payload)
        try:
            result = function(*items)
        except Exception as error:
            raise Told(type(error), _told(error)) from None
        return pack_result(result)

    return handle


def _told(error: Exception) -> str:
    """A failure's message and its traceback without the frame of this module."""
    try:
        message = _cut(str(error), MESSAGE_LENGTH_MAX)
    except Exception as broken:
        message = f"its message can't be had: {type(broken).__name__}"
    inner = error.__traceback__ and error.__traceback__.tb_next
    if inner is None:  # it was called with the wrong number of arguments
        return message
    text = "".join(traceback.format_exception(type(error), error, inner))
    return message + TRACEBACK + _cut(text, TRACEBACK_LENGTH_MAX)


def _cut(text: str, most: int) -> str:
    """A text without its middle if it is too long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n…\n{text[-half:]}"


def name_of(function: Any, name: Any = None) -> str:
    """The name under which a function is called: its own, or ``name``.

    Raises ClusterError if it is not a function, or if its result can't travel.
    """
    if name is not None and not (isinstance(name, str) and name.isprintable() and name):
        raise ClusterError(f"a function's name is a str of printable characters, not {name!r:.100}")
    if not callable(function):
        raise ClusterError(f"{name or 'this'} is no function but {function!r:.100}")
    found = name or getattr(function, "__name__", "")
    if not found or found == "<lambda>":
        what = "a lambda" if found else f"a {type(function).__name__}"
        raise ClusterError(
            f"{what} has no name; give it one: cluster.register(…, name='double'), or "
            "LocalCluster(handlers={'double': …})"
        )
    if len(found) > NAME_LENGTH_MAX:
        raise ClusterError(f"a name has at most {NAME_LENGTH_MAX} characters, not {len(found)}")
    called = getattr(function, "__call__", function)  # noqa: B004  an object's method
    for is_unfit, words in _UNFIT:
        if is_unfit(function) or is_unfit(called):
            raise ClusterError(f"{found} is {words}")
    return found


class Functions:
    """The functions of plain data that a cluster's workers have, as its clients call them."""

    def __init__(self) -> None:
        #: the pack of each by name
        self.known: dict[str, Pack] = {}
        self._names: dict[int, str] = {}

    def add(self, pack: Pack) -> None:
        """Take note that the workers have a pack."""
        self.forget(pack.names)
        for name, function in pack.functions.items():
            self.known[name] = pack
            self._names[id(function)] = name

    def forget(self, names: Iterable[str]) -> None:
        """Take note that the workers may have something else of these names."""
        for name in names:
            self.known.pop(name, None)
        self._names = {id(p.functions[name]): name for name, p in self.known.items()}

    def name_of(self, kind: Any, *, closely: bool = False) -> str:
        """The name of a registered function, or a kind as it is; see `Snapshot.changed`.

        Raises ClusterError if the workers don't have the function, or not as it is now.
        """
        if isinstance(kind, str):
            return kind
        if not callable(kind):
            raise ClusterError(f"no kind {kind!r:.100}: it is a name or a registered function")
        name = self._names.get(id(kind)) or name_of(kind)
        known = self.known.get(name)
        if known is None:
            raise ClusterError(
                f"{name} is not registered: cluster.register({name}) sends it to the workers of a "
                "LocalCluster, and cluster.client() calls it"
                f"{did_you_mean(name, self.known)}"
            )
        is_same = known.functions[name] == kind
        changed = known.snapshot.changed(closely=closely) if is_same else name
        if changed is not None:
            (pack,) = pack_work(kind, name)
            if pack.data != known.data:
                what = "it" if changed == name else f"{changed!r}, which it uses,"
                raise ClusterError(
                    f"the workers have {name} as it was before {what} was changed here; "
                    f"cluster.register({name}) sends it as it is now"
                )
            self.add(pack)
        return name
