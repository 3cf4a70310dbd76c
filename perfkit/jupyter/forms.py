"""The three forms that each magic has, as a table: what `%perfkit` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame

if TYPE_CHECKING:
    import pandas as pd

#: Magic; function or context manager, with its module; command.
FORMS: tuple[tuple[str, str, str, str], ...] = (
    (
        "%profile_cpu f, %%profile_cpu [NAME]",
        "with profile_cpu(NAME) as it: …; it = profile_cpu(); @it",
        "perfkit",
        "perfkit profile cpu TARGET",
    ),
    (
        "%track_memory f, %%track_memory [NAME]",
        "with track_memory(NAME) as it: …; it = track_memory(); @it",
        "perfkit",
        "perfkit profile memory TARGET",
    ),
    (
        "%latency f, %%latency [NAME]",
        "measure_latency(f); with track_latency(NAME) as it: …; it = track_latency(); @it",
        "perfkit",
        "perfkit profile latency TARGET",
    ),
    (
        "%lines f g [-- STATEMENT], %%lines f g",
        "profile_lines([f, g], work); with track_lines(f, g) as it: …; it = track_lines(); @it",
        "perfkit",
        "perfkit profile lines TARGET",
    ),
    (
        "%compare A B",
        "compare_calls(a, b); with compare_turns(A, B) as it: for arm in it: …",
        "perfkit",
        "perfkit profile compare TARGET TARGET",
    ),
    ("%gpu", "read_cards(); with GpuSampler() as it: …", "perfkit", "perfkit gpu"),
    (
        "%cluster up|status|top|down",
        "with LocalCluster(4) as cluster: …",
        "cluster",
        "perfkit cluster up|status|top",
    ),
)
HEADER = ("magic", "function, context manager", "import from", "command")
NOTES = (
    "Each magic takes --help. What it finds is shown, is `_`, and stays under the name it tells.",
    "`it.result` is what the newest block, or call of a function under `@it`, has found.",
    "Every result has .to_frame(), .save(PATH), .plot(); magics and perfkit profile take --save.",
    "TARGET is SCRIPT.py [ARGS], or a function that takes none: MODULE:NAME, FILE.py:NAME.",
)


@dataclass(frozen=True)
class Forms(Showable):
    """The table of all magics with their functions and commands."""

    rows: tuple[tuple[str, str, str, str], ...] = FORMS

    def to_frame(self) -> pd.DataFrame:
        """A row for each magic."""
        return data_frame([dict(zip(HEADER, row, strict=True)) for row in self.rows])

    def _sheets(self) -> Iterator[Sheet]:
        title = "perfkit in a notebook, in Python and in a terminal"
        yield Sheet(title, HEADER, self.rows, NOTES)
