"""The parts and the knobs of a whole cluster, in one value that every role is given.

Parts are named ``"module:attribute"``, so that a spawned process can load them, and so that a spec
can name parts of other packages.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cluster.protocol.codec import Codec
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.limits import Limits, Period, Whole, about

#: Where a coordinator listens and where its peers look for it by default.
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"

Size = Annotated[int, Meta(ge=0)]


class SocketOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ZeroMQ's and the kernel's buffers, and how a dead connection is noticed."""

    high_water_mark: Annotated[Whole, about("messages a peer may wait before a send blocks")] = (
        10_000
    )
    buffer_bytes: Annotated[Size, about("kernel buffers of a connection; 0: the system's")] = 0
    zero_copy_bytes: Annotated[Size, about("frames from this size are sent uncopied; 0: none")] = 0
    hello_s: Annotated[Period, about("a connection that says nothing in it is cut")] = 1.0
    silence_s: Annotated[
        Period, about("a peer asks a silent coordinator for a sign of life, twice, then reconnects")
    ] = 1.0
    pong_s: Annotated[
        float,
        Meta(ge=0.1, le=3_600.0),
        about("a connection without a sign of life ends; longer than the largest frame takes"),
    ] = 30.0


class ClusterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster under study: its parts and its knobs, which `describe` lists."""

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9+._-]*$")]
    codec: Annotated[str, about("how messages are written")] = "cluster.protocol.codec:DictCodec"
    queue: Annotated[str, about("where queued runs wait")] = "cluster.core.queue:RunQueue"
    policies: Annotated[str, about("the policies there are")] = "cluster.core.policy:POLICIES"
    policy: Annotated[str, about("how a worker is chosen")] = "least-loaded"
    burst: Annotated[Whole, about("tasks in a message of a client")] = 1
    drain: Annotated[Whole, about("messages that a loop reads before it answers")] = 64
    credit: Annotated[
        Whole, about("tasks that a worker may hold for each that it can run at once")
    ] = 2
    answer_after_s: Annotated[
        float,
        Meta(ge=0.0, le=0.5),
        about("an acceptance may wait this long for a message to travel with; 0: not at all"),
    ] = 0.0
    trim_bytes: Annotated[
        Size, about("after this much traffic an idle coordinator returns free memory; 0: never")
    ] = 0
    checks: Annotated[bool, about("messages carry a sum on loopback, too")] = False
    transport: Annotated[
        Literal["tcp", "ipc"], about("what a local cluster's processes talk over")
    ] = "tcp"
    sockets: SocketOptions = SocketOptions()
    limits: Limits = Limits()


BASELINE = ClusterSpec(name="baseline")


def load_part(path: str) -> Any:
    """The object that ``"module:attribute"`` names; ClusterError says which half is wrong, and
    where the attribute is if its module has moved.
    """
    module, _, attribute = path.partition(":")
    if not attribute or not module or module.startswith("."):
        raise ClusterError(f"{path!r} names no part; write it as 'module:attribute'")
    try:
        found = import_module(module)
    except (ImportError, SyntaxError) as error:
        trouble = str(error)
        is_missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(
            f"{error.name}."
        )
        if is_missing and (moved := _find_moved(module, attribute)):
            trouble = f"there is no module {module!r}; did you mean {moved!r}?"
        raise ClusterError(f"part {path!r}: {trouble}") from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise ClusterError(f"part {path!r}: module {module!r} has no {attribute!r}") from error


def _find_moved(module: str, attribute: str) -> str | None:
    """The part of that name in a module of the same last name elsewhere in the package."""
    package, _, path = module.partition(".")
    found = find_spec(package) if path else None
    for folder in (found and found.submodule_search_locations) or ():
        for file in sorted(Path(folder).rglob(f"{path.rpartition('.')[2]}.py")):
            if re.search(rf"(?m)^(class |def )?{re.escape(attribute)}\b", file.read_text()):
                place = file.relative_to(folder).with_suffix("").parts
                return f"{'.'.join((package, *place))}:{attribute}"
    return None


def load_codec(spec: ClusterSpec) -> Codec:
    """A codec of the kind the spec names; raises ClusterError when there is none."""
    codec: Codec = load_part(spec.codec)(spec.limits.message_bytes)
    return codec


def encode_spec(spec: ClusterSpec) -> str:
    """The spec as JSON, for the command line of a spawned process."""
    return msgspec.json.encode(spec).decode()


def decode_spec(text: str) -> ClusterSpec:
    """The spec that JSON describes; ClusterError names the field that is wrong."""
    try:
        return msgspec.json.decode(text, type=ClusterSpec)
    except msgspec.DecodeError as error:
        raise ClusterError(f"not a cluster spec: {error}") from error
