"""Which types of object grew in number over a piece of work, by way of objgraph.

A leak of small objects is a few hundred bytes an event and lost in the noise of RSS, but it is one
object of a type for each event, exactly. Only objects that the garbage collector follows are
counted: instances and containers, not strings, bytes or numbers, and not what `gc.freeze()` has set
aside. It counts in this process only: a running coordinator or worker can't be asked from outside.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from perfkit.evidence.tables import html_table
from perfkit.profile.findings import MemoryFinding

#: How many types a table shows, those that grew most.
TYPES_LIMIT = 10


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    """How many objects of a type there are, and how many more than before the work."""

    type: str
    objects: int
    growth_objects: int


@dataclass(frozen=True)
class ObjectGrowth:
    """The types of which there are more objects than before, those that grew most first.

    `growth_objects` is the growth of all types that grew; those that shrank are not told. It is
    None, and `reason` says why, where nobody could count.
    """

    name: str
    types: tuple[TypeGrowth, ...] = ()
    growth_objects: int | None = None
    reason: str | None = None

    def of(self, type_name: str) -> int | None:
        """By how many objects a type grew, by its qualified name; None if nobody counted."""
        if self.growth_objects is None:
            return None
        return next((row.growth_objects for row in self.types if row.type == type_name), 0)

    def findings(self) -> tuple[MemoryFinding, ...]:
        """A row for each type, at most TYPES_LIMIT."""
        return tuple(
            MemoryFinding(
                "objgraph",
                self.name,
                row.type,
                count=row.objects,
                growth_count=row.growth_objects,
                counted="objects",
            )
            for row in self.types[:TYPES_LIMIT]
        )

    def _repr_html_(self) -> str:
        rows = [
            (row.type, f"{row.objects:,}", f"{row.growth_objects:+,}")
            for row in self.types[:TYPES_LIMIT]
        ]
        total = "unknown" if self.growth_objects is None else f"{self.growth_objects:+,}"
        title = f"Objects that {self.name} left behind: {total}"
        notes = [self.reason] if self.reason else []
        return html_table(title, ("type", "objects", "growth"), rows, notes)


def object_growth(work: Callable[[], object], name: str = "the work") -> ObjectGrowth:
    """Count the objects of each type, by qualified name, before and after `work()`.

    Garbage is collected before either count. What the work fills once, caches and modules, is in
    the figures: let it warm up first. Without objgraph the work is not done and `reason` says why.
    """
    objgraph, reason = _objgraph()
    if objgraph is None:
        return ObjectGrowth(name, reason=reason)
    before: dict[str, int] = {}
    objgraph.growth(limit=None, peak_stats=before, shortnames=False)
    work()
    grown = objgraph.growth(limit=None, peak_stats=before, shortnames=False)
    types = tuple(TypeGrowth(*row) for row in grown)
    return ObjectGrowth(name, types, sum(growth for _, _, growth in grown))


def _objgraph() -> tuple[ModuleType | None, str | None]:
    """The package, or why there is none."""
    try:
        return importlib.import_module("objgraph"), None
    except ImportError as error:
        return None, (
            f"growth by type needs objgraph, which cannot be imported ({error}): "
            'pip install "perfkit[profile]"'
        )
