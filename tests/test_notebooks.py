"""The notebooks as they are shipped: each runs from beginning to end and tells its story.

They run with the smallest sizes they take and through the report, as users run them.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.spec import decode_spec
from perfkit.bench.experiments.catalogue import EXPERIMENTS
from perfkit.bench.goals import gpu, memory
from perfkit.cli.report import chosen_notebooks
from perfkit.evidence.results import load
from perfkit.gpu.device.made_up import plant
from perfkit.optimized.specs import ABLATIONS
from perfkit.report import ExitCode, Progress, ReportRun, run_report
from perfkit.report.engine.notebook import read_notebook
from perfkit.report.engine.parameters import ParameterError
from perfkit.report.engine.scorecard import load as load_scorecard
from perfkit.report.page.selfcontained import find_external

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
GPU = NOTEBOOKS / "05_gpu.ipynb"
CLAIMS = {
    *("Message throughput", "Task throughput", "Task overhead", "Worker selection"),
    *("Coordinator memory", "Worker memory", "Worker memory with a model", "API memory"),
}
TARGETS = {"Assignment", "Serialization", "Round trip", "Goal: map_throughput"}


def run_whole(name: str, folder: Path, pictures: int, **parameters: Any) -> tuple[ReportRun, str]:
    """The report of a notebook that must run to its end, and its page."""
    report = run_report(
        [NOTEBOOKS / f"{name}.ipynb"],
        parameters=parameters,
        out_root=folder,
        progress=Progress(),
    )
    (notebook,) = report.notebooks
    assert notebook.failure is None
    assert notebook.cells_run == notebook.cells
    assert report.exit_code is ExitCode.DONE
    page = (report.path / notebook.html).read_text()
    assert find_external(page) == []
    assert len(page.encode()) < 400_000
    assert page.count('role="img"') == page.count("<svg") == pictures
    named = r'<\w+ (?=[^>]*aria-label="[^"]+")[^>]*role="img"'
    assert len(re.findall(named, page)) == pictures
    return report, page


@pytest.mark.slow
def test_the_tour_runs_a_function_of_its_own_and_writes_its_page_and_a_spec(tmp_path: Path) -> None:
    report, page = run_whole("00_tour", tmp_path, 0, workers=4, items=1_000, tune_minutes=0.1)
    assert "ended at" in page, "the live view's last frame"
    assert len(re.findall('<img [^>]*class="curve" [^>]*src="data:image/svg', page)) == 2
    assert find_external((report.path / "results" / "collatz.html").read_text()) == []
    assert decode_spec((report.path / "results" / "tuned.json").read_text()).burst in (1, 64)


def test_the_baseline_tells_of_every_claim_and_saves_every_result(tmp_path: Path) -> None:
    report, _ = run_whole("01_baseline", tmp_path, 9, workers=1, tasks=40, model="digits")
    found = {headline.title: headline for headline in report.headlines}
    assert found.keys() == CLAIMS
    assert {headline.notebook for headline in found.values()} == {"01_baseline"}
    assert [title for title, headline in found.items() if headline.value is None] == []
    folder = report.path / "results"
    paths = [path for path in folder.glob("*.json") if not path.name.startswith("headline-")]
    results = {path.stem: load(path) for path in paths}
    assert results.keys() == {
        *("throughput", "latency", "burst", "startup", "selection", "trace", "roles"),
        *("throughput-digits", "latency-digits", "roles-digits"),
    }
    assert all(result.samples for result in results.values())
    assert results["throughput-digits"].parameters["model"] == "digits"
    assert len(list(folder.glob("coordinator-*.prof"))) == 3


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_hot_paths_tell_of_every_idea(tmp_path: Path) -> None:
    sizes = {"workers": 1, "tasks": 100, "blocks": 4, "block_s": 0.01}
    report, page = run_whole("02_hot_paths", tmp_path, 9, **sizes)
    ideas = {f"Idea: {name}" for name in ABLATIONS}
    assert ideas | TARGETS < {headline.title for headline in report.headlines}
    assert "perfkit profile view results/coordinator-optimized-1.prof" in page
    assert (report.path / "results" / "coordinator-optimized-1.prof").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_memory_notebook_tells_of_every_goal(tmp_path: Path) -> None:
    report, _ = run_whole("03_memory", tmp_path, 4, workers=1, tasks=100)
    goals = {f"Goal: {goal.name}" for goal in memory.GOALS}
    left_out = {"Goal: queue_of_1m", *(f"Goal: streamed_{role}" for role in memory.ROLES)}
    assert goals - left_out <= {headline.title for headline in report.headlines}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_notebook_of_cards_says_whose_card_it_shows(tmp_path: Path) -> None:
    plant(tmp_path / "card")
    sizes = {"workers": 1, "tasks": 100, "seconds": 0.2, "drm_root": tmp_path / "card"}
    report, page = run_whole("05_gpu", tmp_path, 1, **sizes)
    titles = {headline.title: headline.value for headline in report.headlines}
    assert {f"Goal: {goal.name}" for goal in gpu.GOALS} < titles.keys()
    assert titles["Energy per task"] is None
    assert load(report.path / "results" / "gpu-run.json").parameters["cards"] == "given"
    assert "a card of the folder that was given" in page
    assert "No rocprof file was given" in page


def test_a_bad_parameter_of_the_notebook_of_cards_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"'peak_gb_per_s' of 05_gpu is -1\.0, outside"):
        run_report([GPU], parameters={"peak_gb_per_s": "-1"}, out_root=tmp_path)


def test_the_whole_story_runs_by_default_and_ends_with_the_findings() -> None:
    stems = [path.stem for path in chosen_notebooks([], [])]
    assert [stem[:2] for stem in stems] == ["01", "02", "03", "04", "05", "06"]
    assert stems[-1] == "06_findings"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmarks_tell_of_every_experiment_and_goal(tmp_path: Path) -> None:
    report, page = run_whole("04_benchmarks", tmp_path, 11, scale=0.01, peers=False)
    goals = {
        f"Goal: {name}: {goal.what}"
        for name, experiment in EXPERIMENTS.items()
        for goal in experiment.goals
    }
    served = {f"Goal: {name}" for name in ("digits_32_vs_bare", "local_8_vs_bare", "api_loaded")}
    assert goals | served < {headline.title for headline in report.headlines}
    assert "simulated" in page


def test_the_findings_of_a_run_without_results_are_gaps(tmp_path: Path) -> None:
    report, page = run_whole("06_findings", tmp_path, 0)
    assert {headline.value for headline in report.headlines} == {None}
    assert "not measured in this run" in page
    assert load_scorecard(report.path / "results") is not None


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("0*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_clean_and_declares_the_parameters_that_all_have(path: Path) -> None:
    content = json.loads(path.read_text())
    assert "papermill" not in content["metadata"]
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    declared = read_notebook(path).parameters
    assert "out_dir" in declared
    if path.stem != "06_findings":  # it measures nothing
        assert {"profile", "seed"} <= declared.keys()
        assert declared["profile"].choices == ("quick", "full")
    assert all(
        declared[name].low in (1, 20, 100) for name in {"workers", "tasks"} & declared.keys()
    )
    assert all(parameter.help for parameter in declared.values())
