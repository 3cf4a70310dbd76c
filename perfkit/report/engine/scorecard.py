"""The scorecard of a run: the plan's figures, claimed, asked for, and measured before and after.

Notebook 06 writes it as `scorecard.json` among the results; the index of the run opens with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perfkit.evidence.results import write
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame, encode_rows
from perfkit.evidence.text import estimate
from perfkit.evidence.verdicts import Direction, Verdict
from perfkit.report.engine.outcome import ReportError

if TYPE_CHECKING:
    import pandas as pd

FILE = "scorecard.json"
HEADER = ("figure", "claimed", "target", "baseline", "optimised", "verdict", "what was measured")


class ScoreRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the plan, in `unit`.

    `claimed` and `target` are the plan's words, `goal` is the target as a number, None without one.
    `baseline` and `optimized` are what this machine measured; `verdict` judges the latter by the
    goal, and `note` says what exactly was measured.
    """

    figure: str
    unit: str
    better: Direction
    claimed: str
    target: str
    goal: float | None
    baseline: Interval
    optimized: Interval
    verdict: Verdict
    note: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The row under HEADER, without what was measured."""
        return (
            self.figure,
            self.claimed,
            self.target,
            estimate(self.baseline, self.unit),
            estimate(self.optimized, self.unit),
            str(self.verdict),
        )


class Scorecard(Showable, msgspec.Struct, frozen=True):
    """The rows of the plan's table, in its order."""

    rows: tuple[ScoreRow, ...]

    def record(self, out_dir: Path | str) -> Path:
        """Write the rows among the results of a run, one to a line; returns the path."""
        path = Path(out_dir) / FILE
        write(encode_rows(msgspec.structs.asdict(row) for row in self.rows), path)
        return path

    def to_frame(self) -> pd.DataFrame:
        """A row for each figure of the plan."""
        return data_frame(self.rows)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            "The plan's figures, claimed for a platform that never ran, and measured here",
            HEADER,
            [(*row.texts, row.note) for row in self.rows],
            ("95 % intervals. The verdict is about the optimised figure and its target.",),
        )


def load(folder: Path | str) -> Scorecard | None:
    """The scorecard among the results in `folder`, or None if there is none.

    Raises ReportError for a file that is not a scorecard.
    """
    path = Path(folder) / FILE
    try:
        return Scorecard(msgspec.json.decode(path.read_bytes(), type=tuple[ScoreRow, ...]))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReportError(f"{path.name} is not a scorecard: {error}") from error
