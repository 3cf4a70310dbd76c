"""A slowdown planted on purpose: the positive control of the check.

The product has no hook for it. A folder with a `sitecustomize.py` on PYTHONPATH makes every fresh
Python process wrap the coordinator's classes before anything runs (see the module `site`), so the
check goes its public way and finds slower code. A turn of the coordinator owes a share of the time
of the fastest turn like it, and the slowed place pays it when it is called.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from perfkit.bench.regression.reference import PIECES, ReferenceLoad

#: With what the wrappers cost, this makes the figures of the gate 6 to 16 % worse, 10 % on average.
SHARE = 0.07
TURN = "cluster.shells.dispatcher:Dispatcher.turn"
CODECS = ("cluster.protocol.codec:DictCodec", "perfkit.optimized.codec:PackedCodec")
#: Where the coordinator gets slower.
PLACES: Mapping[str, tuple[str, ...]] = {
    "dispatcher": (TURN,),
    "scheduler": ("cluster.core.scheduler:Scheduler.handle",),
    "decode": tuple(f"{codec}.events" for codec in CODECS),
    "encode": tuple(f"{codec}.encode" for codec in CODECS),
}
#: What the time is spent in: bytecodes, or C code that no count of bytecodes sees.
KINDS = ("python", "c")
_BLOCK = bytes(256)
CALIBRATION_CALLS = 200


class Debt:
    """Time that a turn owes and that a call pays; `paid_ns` is what the last turn's calls paid."""

    def __init__(self, kind: str) -> None:
        self.share = 0.0
        self.spend = _spin if kind == "python" else _checksum
        self.owed_ns = 0.0
        self.paid_ns = 0
        #: what the two wrappers cost; while this is measured, a call owes next to nothing
        self.own_ns = -1.0
        #: the fastest turn by the messages it got: a busy machine makes nobody owe more
        self.fastest_ns: dict[tuple[int, int], float] = {}

    def turn(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is what a share is owed of."""
        clock = time.perf_counter_ns

        @wraps(function)
        def timed(dispatcher: Any, messages: Any, *arguments: Any, **named: Any) -> Any:
            like = len(messages), len(messages[0][-1]) if messages else 0
            fastest_ns = self.fastest_ns.get(like, math.inf)
            if fastest_ns < math.inf:
                self.owed_ns = self.share * fastest_ns - self.own_ns
            began_ns, self.paid_ns = clock(), 0
            result = function(dispatcher, messages, *arguments, **named)
            self.fastest_ns[like] = min(fastest_ns, clock() - began_ns - self.paid_ns)
            return result

        return timed

    def payer(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which first spends what is owed."""

        @wraps(function)
        def slowed(*arguments: Any, **named: Any) -> Any:
            if self.owed_ns > 0:
                began_ns = time.perf_counter_ns()
                self.spend(began_ns + self.owed_ns)
                self.owed_ns, self.paid_ns = 0.0, time.perf_counter_ns() - began_ns
            return function(*arguments, **named)

        return slowed


def plant(place: str, kind: str, share: float = SHARE) -> Debt:
    """Slow the coordinator of this process down by a share of its time, at one of PLACES."""
    debt = Debt(kind)
    debt.own_ns, debt.share = _wrappers_ns(debt), share
    for target in PLACES[place]:
        _replace(target, debt.payer)
    _replace(TURN, debt.turn)
    return debt


def plant_folder(folder: Path, place: str, kind: str, share: float = SHARE) -> Path:
    """Make `folder`, which plants the slowdown in every process that has it on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    call = f"DEBT = plant({place!r}, {kind!r}, {share!r})"
    (folder / "sitecustomize.py").write_text(f"from {__name__} import plant\n\n{call}\n")
    return folder


def _replace(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = target.partition(":")
    name, _, method = path.partition(".")
    owner = getattr(import_module(module), name)
    setattr(owner, method, wrap(getattr(owner, method)))


def _wrappers_ns(debt: Debt) -> float:
    """What the wrappers cost in a process that does other work in between, as here."""

    def nothing(dispatcher: Any, messages: Any) -> None:
        return None

    wrapped, load, clock = debt.turn(debt.payer(nothing)), ReferenceLoad(), time.perf_counter_ns
    took_ns: dict[Callable[[Any, Any], None], list[int]] = {wrapped: [], nothing: []}
    for number in range(CALIBRATION_CALLS):
        for function, found in took_ns.items():
            load.run(number % PIECES)
            began_ns = clock()
            function(None, [[b""]])
            found.append(clock() - began_ns)
    return median(took_ns[wrapped]) - median(took_ns[nothing])


def _spin(until_ns: float) -> None:
    clock = time.perf_counter_ns
    while clock() < until_ns:
        pass


def _checksum(until_ns: float) -> None:
    while time.perf_counter_ns() < until_ns:
        zlib.crc32(_BLOCK)
