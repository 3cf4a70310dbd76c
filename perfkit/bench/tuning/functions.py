"""A function of the user's as the load of a search: its items are called again and again.

The function travels to the workers as `LocalCluster.register` sends it. What it returns is checked
like every other result, so it has to return the same for an item each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from typing import Any

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError, TaskError
from cluster.work.functions import name_of
from cluster.work.plain_data import pack_call, pack_result
from perfkit.bench.tuning.loads import KINDS, Load, NoSuchLoad, kind_of
from perfkit.bench.workloads.load import ExperimentError, Work, result_of
from perfkit.bench.workloads.rounds import Say, prefixed

ITEMS_MAX = 100_000
#: The name that a lambda or a partial has for the workers.
UNNAMED = "function"


class UnfitFunction(ExperimentError):
    """A function or items that a search can't use; the message says which and why."""


def function_load(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    name: str = "throughput",
    *,
    objective: str | None = None,
    tasks: int | None = None,
    workers: int = 2,
    spec: ClusterSpec = BASELINE,
    progress: Say | None = None,
) -> Load:
    """The load of a kind whose tasks are calls of `function`, one for each item, or `tasks` of them
    if that is given: items are repeated or left out then.

    The calls are made twice on a cluster of `workers` of the `spec`, to learn what is right and how
    long it takes. Raises NoSuchLoad for an unknown kind or objective and a kind with tasks of its
    own, UnfitFunction for items that are missing, too many or not plain data, and for a function
    that fails or returns something else the second time; ClusterError for one that can't travel.
    """
    kind, chosen = kind_of(name, objective)
    if kind.samples is None:
        fitting = ", ".join(kind for kind, it in KINDS.items() if it.samples)
        raise NoSuchLoad(f"{name} has tasks of its own: a function takes {fitting}")
    known = getattr(function, "__name__", "")
    try:
        label = name_of(function, UNNAMED if known in ("", "<lambda>") else None)
    except ClusterError as error:
        raise UnfitFunction(str(error)) from None
    given = _listed(items, label)
    calls = given if tasks is None else [*islice(cycle(given), tasks)]
    handlers = {label: function}
    prefixed(progress, "tune")(f"calls {label} {len(calls):,} times, and again to compare")
    with LocalCluster(workers, spec, handlers=handlers) as local, local.client() as client:
        expected = _results(client, label, calls)
        began_s = time.perf_counter()
        again = _results(client, label, calls)
        once_s = time.perf_counter() - began_s
    for number, (first, second) in enumerate(zip(expected, again, strict=True)):
        if not _same(first, second):
            raise UnfitFunction(
                f"{label} returned {first!r:.60} and then {second!r:.60} for "
                f"{_item(calls, number)}: results are compared, so it has to return the same each "
                "time; pass a seed in the item, or leave out what changes"
            )
    facts = {"function": _place(function), "items": len(given)}
    work = Work(label, calls, expected, same=_same, facts=facts)
    if name == "latency":
        once_s *= workers
    return Load(name, chosen, work, kind.samples, handlers, once_s)


def _listed(items: Iterable[Any], label: str) -> list[Any]:
    try:
        found = [*islice(items, ITEMS_MAX + 1)]
    except TypeError:
        raise UnfitFunction(f"items are a list or another iterable, not {items!r:.60}") from None
    if not 1 <= len(found) <= ITEMS_MAX:
        count = "none" if not found else "more"
        raise UnfitFunction(f"{label} is called with 1 to {ITEMS_MAX:,} items, not {count}")
    for number, item in enumerate(found):
        try:
            pack_call([item], label)
        except TypeError as error:
            raise UnfitFunction(f"item {number + 1} of {len(found):,}: {error}") from None
    return found


def _results(client: Client, label: str, calls: Sequence[Any]) -> list[Any]:
    found = []
    futures = client.submit_batch(label, calls)
    for number, future in enumerate(futures):
        try:
            found.append(result_of(future))
        except TaskError as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            raise UnfitFunction(
                f"{label} fails for {_item(calls, number)}: {error}\n{notes}".rstrip()
            ) from None
    return found


def _item(calls: Sequence[Any], number: int) -> str:
    return f"{calls[number]!r:.60} (item {number + 1} of {len(calls):,})"


def _same(one: Any, other: Any) -> bool:
    """Whether two results are the same; by their bytes, as arrays and NaN do not tell."""
    return pack_result(one) == pack_result(other)


def _place(function: Callable[..., Any]) -> str:
    """Where a function is from: its module and its name there."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
