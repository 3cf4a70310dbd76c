"""The history of runs: a line per figure with gaps and marks, and broken runs by name."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from perfkit.report import Headline, ReportError, write_history
from perfkit.report.page.history import Line, read_runs
from perfkit.report.page.html import PAGE_BYTES_MAX


def write_run(folder: Path, day: int, value: float | None, **facts: Any) -> str:
    """A run of 2026-03-`day` with one figure, as a report leaves it behind."""
    run = {"profile": "quick", "machine": "m1", "title": "Task <overhead>", **facts}
    name = f"202603{day:02}T000000Z-abc-{run['profile']}"
    path = folder / name
    path.mkdir()
    finding = {"title": run["title"], "value": value, "unit": "ms", "notebook": "01_baseline"}
    stored = {
        "started_utc": f"2026-03-{day:02}T00:00:00+00:00", "profile": run["profile"],
        "commit": "abc", "exit_code": 0, "headlines": [{**finding, "verdict": "met"}],
        "schema": 1,
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(stored))
    (path / "environment.json").write_text(json.dumps({"machine_id": run["machine"]}))
    (path / "index.html").touch()
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five runs: the third without a value, the fourth on another machine, the last longer."""
    values = (3.0, 2.0, None, 1.0, 1.0)
    others: tuple[dict[str, str], ...] = ({}, {}, {}, {"machine": "m2"}, {"machine": "m2"})
    for day, (value, other) in enumerate(zip(values, others, strict=True), 1):
        write_run(tmp_path, day, value, profile="full" if day == 5 else "quick", **other)
    return tmp_path


def test_a_line_has_gaps_where_unknown_and_marks_where_something_changed(folder: Path) -> None:
    runs, broken = read_runs(folder)
    assert [run.started_utc[8:10] for run in runs] == ["01", "02", "03", "04", "05"]
    assert broken == {}
    line = Line(("01_baseline", "Task <overhead>", "ms"), runs)
    drawn = ET.fromstring(line.svg())
    assert [len(stretch.get("points", "").split()) for stretch in drawn.findall("polyline")] == [
        2,
        2,
    ]
    assert [mark.findtext("title") for mark in drawn.findall("line")] == [
        "another machine",
        "another profile",
    ]
    links = [link.get("href") for link in drawn.findall("a")]
    assert links == [run.address for run in runs if run.started_utc[8:10] != "03"]
    assert all((folder / str(link)).is_file() for link in links)
    heights = [float(dot.get("cy", "")) for dot in drawn.iter("circle")]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    assert line.alt == "Task <overhead> over 5 runs: 1 to 3 ms, unknown in 1."


def test_the_page_names_broken_runs_and_links_the_others(folder: Path) -> None:
    (folder / "20260306T000000Z-abc-quick").mkdir()
    broken = folder / write_run(folder, 7, 1.0)
    (broken / "run.json").write_text('{"headlines": 3}')
    (folder / "baselines").mkdir()
    (folder / ".partial-1").mkdir()
    page = write_history(folder).read_text()
    assert "20260306T000000Z-abc-quick: " in page
    assert f"{broken.name}: " in page
    assert str(folder) not in page
    assert "baselines" not in page
    assert "partial" not in page
    assert "<h1>5 runs, the newest of 2026-03-05</h1>" in page
    assert page.count('index.html">2026') == 5
    assert "Task &lt;overhead&gt;" in page
    assert "Task <overhead>" not in page
    assert [path.name for path in folder.glob(".index*")] == []


def test_a_long_history_stays_a_small_page(tmp_path: Path) -> None:
    findings = [
        {"title": f"Figure number {n} of many", "value": 1.0 + n, "unit": "ms", "verdict": "met"}
        for n in range(60)
    ]
    for number in range(150):
        folder = tmp_path / write_run(tmp_path, number + 10, 1.0)
        stored = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**stored, "headlines": findings}))
    page = write_history(tmp_path).read_text()
    assert "<h1>150 runs" in page
    assert "The newest 25 runs are drawn." in page
    assert "50 older runs are in the folder." in page
    assert page.count("<circle") == 60 * 25
    assert len(page.encode()) < PAGE_BYTES_MAX


def test_a_figure_that_the_newest_run_lacks_says_so(folder: Path) -> None:
    write_run(folder, 8, 4.0, title="Another")
    page = write_history(folder).read_text()
    assert "unknown: not in the newest run" in page
    assert "Another" in page


def test_a_figure_that_nobody_knows_is_no_line(tmp_path: Path) -> None:
    write_run(tmp_path, 1, None)
    runs, _ = read_runs(tmp_path)
    line = Line(("01_baseline", "Task <overhead>", "ms"), runs)
    assert "<circle" not in line.svg()
    assert line.alt == "Task <overhead>: unknown in every run."
    assert isinstance(line.last, Headline)


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    page = write_history(tmp_path).read_text()
    assert "There is no run here yet" in page
    with pytest.raises(ReportError, match="none has no reports to list"):
        write_history(tmp_path / "none")
    (tmp_path / "index.html").unlink()
    (tmp_path / "index.html").mkdir()
    with pytest.raises(ReportError, match=r"index\.html can't be written"):
        write_history(tmp_path)
