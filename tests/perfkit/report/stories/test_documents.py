"""The figures in the documents are those of the sample, and no marker is without figures."""

import json
import re
from pathlib import Path

import pytest

from perfkit.evidence.results import save as save_result
from perfkit.optimized.knobs import knobs
from perfkit.optimized.specs import OPTIMIZED
from perfkit.report.engine import headlines
from perfkit.report.engine.outcome import ReportError
from perfkit.report.stories import documents, findings
from tests.perfkit.report.stories.made_up import result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a result, a goal, an idea and a scorecard."""
    folder = tmp_path / "20260101T000000Z-abc-quick"
    (folder / "results").mkdir(parents=True)
    found = result("throughput", 10.0, 9.0, 11.0)
    save_result(found, folder / "results" / "throughput.json")
    headlines.record(folder / "results", "Goal: rate", 10.0, "tasks/s", 9.0, 11.0, 5.0, "met")
    headlines.record(folder / "results", "Goal: wait", 9.0, "ms", 8.0, 10.0, "≤ 5 ms", "missed")
    headlines.record(
        folder / "results", "Idea: pooling", 0.9, "×", 0.8, 1.0, 1.1, "slower", compares=True
    )
    findings.record(folder / "results", findings.scorecard(findings.read(folder / "results")))
    told = {
        "run": folder.name,
        "profile": "quick",
        "command": {"shell": "perfkit report"},
        "notebooks": [{"name": "01", "duration_s": 61.0}, {"name": "02", "duration_s": 4.0}],
    }
    (folder / "run.json").write_text(json.dumps(told))
    environment = json.loads((folder / "results" / "throughput.json").read_text())["environment"]
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_figures_of_the_sample(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert documents.filled(text, documents.load()) == text, (
        "stale: run python -m perfkit.report.stories.documents"
    )


def test_a_sample_is_the_same_after_saving_and_fills_a_text_the_same_way_twice(run: Path) -> None:
    sample = documents.take(run)
    documents.save(sample, run / "sample.json")
    assert documents.load(run / "sample.json") == sample
    text = "".join(f"<!-- figures: {name} -->\nSTALE\n<!-- end -->\n" for name in documents.BLOCKS)
    once = documents.filled(text, sample)
    assert documents.filled(once, sample) == once
    assert "STALE" not in once
    assert "| throughput | 10 tasks/s (9 to 11) | 2 workers | 20 |" in once
    assert "| pooling | 1.1 × | 0.9 × (0.8 to 1) | slower |" in once
    assert "| all | 1 min 5 s |" in once


def test_a_missed_goal_comes_before_one_that_is_met(run: Path) -> None:
    lines = documents.goals(documents.take(run)).splitlines()
    assert lines[2].startswith("| wait | ≤ 5 ms | 9 ms (8 to 10) | missed |")


def test_a_marker_without_figures_and_a_run_without_a_scorecard_are_errors(run: Path) -> None:
    with pytest.raises(ReportError, match="no figures are called 'typed'; there are source"):
        documents.filled("<!-- figures: typed -->\n<!-- end -->", documents.take(run))
    (run / "results" / "scorecard.json").unlink()
    with pytest.raises(ReportError, match="has no scorecard"):
        documents.take(run)


def test_the_tuning_guide_has_a_symptom_for_every_knob() -> None:
    guide = (documents.ROOT / "docs" / "PERFORMANCE_TUNING_GUIDE.md").read_text(encoding="utf-8")
    symptoms = guide.partition("## Every knob")[0]
    named = set(re.findall(r"`([a-z_.]+)`", symptoms))
    assert {knob.name for knob in knobs(OPTIMIZED)} - named == set()
