"""What the base of all results does: text, files by suffix, and clear refusals."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perfkit.evidence.showing import Sheet, Showable, ShowError, facts


@dataclass(frozen=True)
class Times(Showable):
    fast: float
    slow: float | None

    def _sheets(self) -> Iterator[Sheet]:
        yield facts({"fast <b>": self.fast, "slow": self.slow}, "Times")


TIMES = Times(1.5, None)


def test_the_text_stands_in_columns_and_unknown_says_so() -> None:
    assert str(TIMES) == "Times\nfast <b>  1.5\nslow      unknown"
    sheet = Sheet("", ("name", "n"), [("long name", "1")], ["A note."])
    assert sheet.text == "name       n\nlong name  1\nA note."


def test_html_is_escaped() -> None:
    assert "fast &lt;b&gt;" in TIMES._repr_html_()


def test_the_suffix_says_what_is_written(tmp_path: Path) -> None:
    saved = {end: TIMES.save(tmp_path / f"times{end}") for end in (".json", ".csv", ".html")}
    assert json.loads(saved[".json"].read_text()) == {"fast": 1.5, "slow": None}
    assert saved[".csv"].read_text() == "fast,slow\n1.5,\n"
    assert "<table>" in saved[".html"].read_text()
    assert {it.suffix for it in tmp_path.iterdir()} == set(saved)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("times.xls", r"one of .json, .csv, .html, .txt, .svg"),
        ("times", "its name has to end in"),
        ("missing/times.csv", "there is no folder"),
    ],
)
def test_what_cannot_be_saved_says_why(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ShowError, match=message):
        TIMES.save(tmp_path / path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_files_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "times.csv").mkdir()
    with pytest.raises(ShowError, match=r"Can't write .*times.csv: Is a directory"):
        TIMES.save(tmp_path / "times.csv")
