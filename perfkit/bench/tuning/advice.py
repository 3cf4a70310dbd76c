"""What a doctor says: each finding with why it matters, what to do, and what that is expected to
gain, ranked by the evidence for the gain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from perfkit.evidence.environment import Environment
from perfkit.evidence.painting import Picture
from perfkit.evidence.results import encode_fields
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import ResultTable, Sheet
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, measured, quantity

if TYPE_CHECKING:
    import pandas as pd

#: Raised when a field of the JSON changes its meaning.
SCHEMA = 1
UNMEASURED = Interval(None, None, None, 0.95, "")


class Standing(StrEnum):
    """What a finding is: a `fault` makes figures worthless, `advice` may gain something, `unknown`
    could not be read, `fine` needs nothing.
    """

    FAULT = "fault"
    ADVICE = "advice"
    UNKNOWN = "unknown"
    FINE = "fine"


@dataclass(frozen=True)
class Advice:
    """One finding; `found` None is unknown, and `do` is a command or a sentence.

    `gain` is a ratio measured on this machine, above 1 if following the advice is better.
    `expected` is one from elsewhere, as `evidence` says.
    """

    name: str
    standing: Standing
    found: str | None
    why: str = ""
    do: str = ""
    gain: Interval | None = None
    expected: float | None = None
    evidence: str = ""

    @property
    def gain_text(self) -> str:
        """The gain with its interval and where it is from; "" for what needs nothing."""
        if self.gain is not None:
            text = measured(self.gain.value, "", self.gain.low, self.gain.high)
            return f"× {text}, {self.evidence}"
        if self.standing in (Standing.FINE, Standing.UNKNOWN):
            return self.evidence
        about = "" if self.expected is None else f"× {quantity(self.expected)} elsewhere, "
        return f"{about}not measured here: {self.evidence or 'no figure is known'}"

    @property
    def rank(self) -> tuple[int, float]:
        """Faults first, then measured gains from the surest, then expected ones, then the rest."""
        order = [*Standing].index(self.standing)
        if self.gain is not None and self.gain.value:
            return order, -1e3 - math.log(self.gain.low or self.gain.value)
        return order, -math.log(self.expected) if self.expected else 0.0


@dataclass(frozen=True)
class Checkup(ResultTable[Advice]):
    """Every finding about a machine, most urgent first."""

    environment: Environment

    @property
    def faults(self) -> list[Advice]:
        """What makes figures of this machine worthless."""
        return [row for row in self.rows if row.standing is Standing.FAULT]

    @property
    def headline(self) -> str:
        """How many findings there are of each standing."""
        counts = {it: sum(row.standing is it for row in self.rows) for it in Standing}
        return ", ".join(f"{standing}: {count}" for standing, count in counts.items())

    def encode(self) -> str:
        """JSON with one top-level field per line."""
        fields = {"schema": SCHEMA, "advice": self.rows, "environment": self.environment}
        return encode_fields(fields)

    def to_frame(self) -> pd.DataFrame:
        """A row for each finding, its gain in three columns; an unknown is None."""
        return data_frame([vars(row) | {"gain": row.gain or UNMEASURED} for row in self.rows])

    def plot(self) -> Picture:
        """Each gain, measured with its interval or as it was elsewhere; the text without any."""
        from perfkit.report.figures.charts import Bar, bars_with_intervals

        bars = [
            Bar.of(row.name, row.gain or UNMEASURED, row.expected)
            for row in self.rows
            if row.gain or row.expected
        ]
        if not bars:
            return super().plot()
        return bars_with_intervals(bars, "× as now", claim="elsewhere", title="gain measured here")

    def describe(self, *, all_rows: bool = False) -> str:
        """The text; without `all_rows` only what asks for something or is unknown."""
        shown = [*self._asking(), *(self._fine() if all_rows else ())]
        return "\n".join([self.headline, *(sheet.text for sheet in shown)])

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(self.headline)
        yield from self._asking()
        yield from self._fine()

    def _asking(self) -> Iterator[Sheet]:
        for row in self.rows:
            if row.standing is not Standing.FINE:
                caption = f"{row.standing:<8} {row.name}: {_found_text(row)}"
                yield Sheet(caption, rows=_details(row))

    def _fine(self) -> Iterator[Sheet]:
        fine = [row for row in self.rows if row.standing is Standing.FINE]
        if fine:
            told = [(it.name, ", ".join(filter(None, (it.found, it.gain_text)))) for it in fine]
            yield Sheet(Standing.FINE, rows=told)


def _found_text(row: Advice) -> str:
    return UNKNOWN if row.found is None else row.found


def _details(row: Advice) -> list[tuple[str, str]]:
    asks = row.gain is not None or row.standing in (Standing.FAULT, Standing.ADVICE)
    texts = {"why": row.why, "do": row.do, "gain" if asks else "note": row.gain_text}
    return [(name, text) for name, text in texts.items() if text]


def ranked(rows: list[Advice], environment: Environment) -> Checkup:
    """The findings in their order."""
    return Checkup(tuple(sorted(rows, key=lambda row: row.rank)), environment)
