"""Tables of results: rows by name, a DataFrame without raw samples, and escaped HTML."""

from dataclasses import dataclass, field

import pytest

from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import ResultTable, facts
from perfkit.evidence.tables import LEFT, data_frame, html_list, html_table


@dataclass(frozen=True)
class Row:
    name: str
    took_ms: Interval
    samples: list[float] = field(repr=False)


@dataclass(frozen=True)
class Rows(ResultTable[Row]):
    seed: int


TABLE = Rows((Row("fast", Interval(1.0, 0.5, None, 0.95, ""), [1.0]),), seed=3)


def test_a_row_is_found_by_its_name() -> None:
    assert TABLE.of("fast") is TABLE.rows[0]
    assert [*TABLE] == [*TABLE.rows]
    with pytest.raises(KeyError, match="no 'slow' in this table; there are fast"):
        TABLE.of("slow")


def test_a_frame_spreads_intervals_and_leaves_raw_samples_out() -> None:
    pd = pytest.importorskip("pandas")
    frame = TABLE.to_frame()
    assert [*frame.columns] == ["name", "took_ms", "took_ms_low", "took_ms_high"]
    assert frame["took_ms_low"][0] == 0.5
    assert pd.isna(frame["took_ms_high"][0])
    assert Rows((), seed=3).to_frame().empty
    assert [*data_frame([{"a": 1, "b": 2}], ["b"]).columns] == ["b"]


def test_html_is_escaped_and_unknown_facts_are_named() -> None:
    assert "<th>a&amp;b</th><td>unknown</td>" in facts({"a&b": None}).html
    shown = html_table("<caption>", ["x"], [["<td>"]], ["a note"])
    assert "&lt;caption&gt;" in shown
    assert "&lt;td&gt;" in shown
    assert "<p>a note</p>" in shown
    chip = html_table("", ("goal", "verdict"), [("met", "missed")])
    assert f'<td{LEFT}>met</td><td{LEFT}><span class="badge missed">missed</span></td>' in chip
    headless = html_table("title", (), [("a < b", "1")])
    assert "<tbody><tr><th>a &lt; b</th><td>1</td></tr>" in headless
    assert "thead" not in headless
    wordy = html_table(
        "", ("name", "found"), [("a", "1"), ("b", "a sentence that is long enough to read")]
    )
    assert f"<td{LEFT}>a</td><td{LEFT}>1</td>" in wordy
    assert html_list(["a < b", "c"]) == "<ul><li>a &lt; b</li><li>c</li></ul>"
