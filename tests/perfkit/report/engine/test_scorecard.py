"""The scorecard is written among the results of a run and read back from there."""

from pathlib import Path

import pytest

from perfkit.evidence.samples import Interval
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine.outcome import ReportError
from perfkit.report.engine.scorecard import FILE, Scorecard, ScoreRow, load

CARD = Scorecard(
    (
        ScoreRow(
            figure="Task throughput",
            unit="tasks/s",
            better="higher",
            claimed="100 tasks/s",
            target="> 500 tasks/s",
            goal=500.0,
            baseline=Interval(8_000.0, 7_000.0, 9_000.0, 0.95, ""),
            optimized=Interval(None, None, None, 0.95, "unknown"),
            verdict=Verdict.INCONCLUSIVE,
        ),
    )
)


def test_a_scorecard_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert CARD.record(tmp_path).name == FILE
    assert load(tmp_path) == CARD


def test_a_file_that_is_no_scorecard_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(ReportError, match=r"scorecard\.json is not a scorecard: .*figure"):
        load(tmp_path)


def test_the_table_shows_both_figures_and_says_what_is_unknown() -> None:
    html = CARD._repr_html_()
    assert "8,000 tasks/s (7,000 to 9,000)" in html
    assert "unknown" in html
