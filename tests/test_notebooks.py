"""The notebooks as they are shipped: each runs from beginning to end and tells its story.

They run with as little as they take and through the report, as everybody else runs them.
"""

import json
import re
from pathlib import Path

import pytest

from perfkit.bench.goals import gpu, memory
from perfkit.cli.report import default_notebooks
from perfkit.evidence.results import load
from perfkit.gpu.made_up import plant
from perfkit.optimized.specs import ABLATIONS
from perfkit.report import ReportRun, SilentProgress, run_report
from perfkit.report.engine.outcome import ExitCode
from perfkit.report.engine.parameters import ParameterError, read_parameters
from perfkit.report.page.selfcontained import find_external

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
HOT_PATHS = NOTEBOOKS / "02_hot_paths.ipynb"
BASELINE = NOTEBOOKS / "01_baseline.ipynb"
MEMORY = NOTEBOOKS / "03_memory.ipynb"
GPU = NOTEBOOKS / "05_gpu.ipynb"
CLAIMS = {
    "Message throughput",
    "Task throughput",
    "Task overhead",
    "Worker selection",
    "Coordinator memory",
    "Worker memory",
    "Worker memory with a model",
    "API memory",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportRun:
    return run_report(
        [BASELINE],
        parameters={"tasks": 40, "workers": 1, "model": "digits"},
        out_root=tmp_path_factory.mktemp("reports"),
        progress=SilentProgress(),
    )


def test_the_baseline_runs_to_its_end(report: ReportRun) -> None:
    (notebook,) = report.notebooks
    assert notebook.failure is None
    assert notebook.cells_run == notebook.cells
    assert report.exit_code is ExitCode.DONE


def test_the_index_has_every_claim_and_no_figure_for_what_is_not_built(report: ReportRun) -> None:
    found = {headline.title: headline for headline in report.headlines}
    assert found.keys() == CLAIMS
    assert {headline.notebook for headline in found.values()} == {"01_baseline"}
    unknown = {title for title, headline in found.items() if headline.value is None}
    assert unknown == {"API memory"}


def test_every_result_is_saved_with_its_raw_samples(report: ReportRun) -> None:
    folder = report.path / "results"
    paths = [p for p in folder.glob("*.json") if not p.name.startswith("headline-")]
    results = {path.stem: load(path) for path in paths}
    assert results.keys() == {
        *("throughput", "latency", "burst", "startup", "selection", "trace", "roles"),
        *("throughput-digits", "latency-digits", "roles-digits"),
    }
    assert all(result.samples for result in results.values())
    assert results["throughput-digits"].parameters["model"] == "digits"
    assert len(list(folder.glob("coordinator-*.prof"))) == 3


def test_the_page_is_small_self_contained_and_describes_its_pictures(report: ReportRun) -> None:
    page = (report.path / "01_baseline.html").read_text()
    assert find_external(page) == []
    assert len(page.encode()) < 400_000
    assert page.count('role="img"') == page.count("<svg") == 9
    described = re.findall(r'<figure[^>]* aria-label="([^"]+)"', page)
    assert len(described) == 9
    assert "not built yet" in page


@pytest.fixture(scope="module")
def hot_paths(tmp_path_factory: pytest.TempPathFactory) -> ReportRun:
    return run_report(
        [HOT_PATHS],
        parameters={"tasks": 100, "workers": 1, "blocks": 4, "block_s": 0.01, "peers": False},
        out_root=tmp_path_factory.mktemp("reports"),
        progress=SilentProgress(),
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_hot_paths_run_to_their_end_and_tell_of_every_idea(hot_paths: ReportRun) -> None:
    (notebook,) = hot_paths.notebooks
    assert notebook.failure is None
    assert notebook.cells_run == notebook.cells
    titles = {headline.title for headline in hot_paths.headlines}
    assert {f"Idea: {name}" for name in ABLATIONS} < titles
    assert {"Assignment", "Serialization", "Round trip", "Goal: map_throughput"} < titles


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_hot_paths_page_is_small_and_self_contained(hot_paths: ReportRun) -> None:
    page = (hot_paths.path / "02_hot_paths.html").read_text()
    assert find_external(page) == []
    assert len(page.encode()) < 400_000
    assert page.count('role="img"') == page.count("<svg") == 11
    assert "snakeviz results/coordinator-optimized-1.prof" in page
    assert (hot_paths.path / "results" / "coordinator-optimized-1.prof").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_memory_notebook_runs_to_its_end(
    tmp_path: Path,
) -> None:
    ran = run_report(
        [MEMORY],
        parameters={"tasks": 100, "workers": 1},
        out_root=tmp_path,
        progress=SilentProgress(),
    )
    (notebook,) = ran.notebooks
    assert notebook.failure is None
    assert notebook.cells_run == notebook.cells
    assert {f"Goal: {goal.name}" for goal in memory.GOALS} <= {h.title for h in ran.headlines}
    page = (ran.path / "03_memory.html").read_text()
    assert find_external(page) == []
    assert page.count('role="img"') == page.count("<svg") == 4


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_notebook_of_cards_runs_to_its_end_and_says_whose_card_it_shows(
    tmp_path: Path,
) -> None:
    plant(tmp_path / "card")
    ran = run_report(
        [GPU],
        parameters={"tasks": 100, "workers": 1, "seconds": 0.2, "drm_root": tmp_path / "card"},
        out_root=tmp_path,
        progress=SilentProgress(),
    )
    (notebook,) = ran.notebooks
    assert notebook.failure is None
    assert notebook.cells_run == notebook.cells
    titles = {headline.title: headline.value for headline in ran.headlines}
    assert {f"Goal: {goal.name}" for goal in gpu.GOALS} < titles.keys()
    assert titles["Energy per task"] is None
    assert load(ran.path / "results" / "gpu-run.json").parameters["cards"] == "given"
    page = (ran.path / "05_gpu.html").read_text()
    assert find_external(page) == []
    assert page.count('role="img"') == page.count("<svg") == 1
    assert "a card of the folder that was given" in page
    assert "No rocprof file was given" in page


def test_a_bad_parameter_of_the_notebook_of_cards_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"'peak_gb_per_s' of 05_gpu is -1\.0, outside"):
        run_report([GPU], parameters={"peak_gb_per_s": "-1"}, out_root=tmp_path)


def test_only_the_baseline_is_measured_without_being_asked_for() -> None:
    assert default_notebooks(NOTEBOOKS.parent) == [BASELINE]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_what_a_run_leaves_behind(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["nbformat"] == 4
    assert "papermill" not in content["metadata"]
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_declares_the_parameters_that_all_have(path: Path) -> None:
    declared = read_parameters(path)
    assert {"profile", "seed", "workers", "tasks", "out_dir"} <= declared.keys()
    assert declared["profile"].choices == ("quick", "full")
    assert declared["workers"].low == 1
    assert all(parameter.help for parameter in declared.values())
