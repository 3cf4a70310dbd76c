"""The index: what a person reads first, from the files of a run and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfkit.report import ExitCode, Headline, ReportRun
from perfkit.report.engine.plan import Plan
from perfkit.report.page.index import machine_facts, render_index


def row_of(page: str, finding: str) -> str:
    return page[page.index(f">{finding}</a>") :].partition("</tr>")[0]


def test_the_index_shows_findings_beside_their_claims(gallery: ReportRun) -> None:
    page = gallery.index_path.read_text()
    row = row_of(page, "Throughput")
    for text in ("an echo of 200 bytes", "1,000 tasks/s", "41,000 tasks/s", "40,000 to 42,000"):
        assert text in row
    assert '<span class="badge faster">faster</span>' in row
    assert 'href="good.html"' in page
    unknown = row_of(page, "GPU memory")
    assert unknown.count(">unknown<") == 2
    assert ">0" not in unknown


def test_the_index_leads_everywhere(gallery: ReportRun) -> None:
    page = gallery.index_path.read_text()
    for link in ("good.html", "dying.ipynb", "run.json", "environment.json", "results/raw.json"):
        assert f'href="{link}"' in page
        assert (gallery.path / link).is_file()
    assert "perfkit report " in page
    assert "exit code 5" in page
    assert "ZeroDivisionError: division by zero" in page


def index(plan: Plan, **facts: Any) -> str:
    empty = ReportRun(Path("none"), "quick", "now", 1.0, ExitCode.DONE, (), (), ())
    return render_index(replace(empty, **facts), plan)


def test_an_empty_run_still_reads(plan: Plan) -> None:
    page = index(plan)
    assert "No notebook of this run recorded a headline finding" in page
    assert "unknown (unknown)" in page


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><b>'])
def test_nothing_a_notebook_says_becomes_markup(plan: Plan, hostile: str) -> None:
    found = Headline(hostile, 1.0, hostile, claim=hostile, note=hostile)
    page = index(plan, headlines=(found,), command=(hostile,), problems=(hostile,))
    assert hostile not in page


def test_parameters_that_differ_name_their_notebooks(gallery: ReportRun, plan: Plan) -> None:
    good = gallery.notebooks[0]
    other = replace(good, name="other", parameters={**good.parameters, "workers": 8})
    assert "4 in good; 8 in other" in index(plan, notebooks=(good, other))


def test_a_machine_in_words() -> None:
    environment = {
        "cpu_model": "Some CPU", "architecture": "x86_64", "cores_available": 0.5,
        "cores_logical": 8, "memory_total_bytes": 8 * 2**30, "memory_limit_bytes": 2**30,
        "git_commit": "abc", "git_dirty": True,
    }  # fmt: skip
    facts = dict(machine_facts(environment))
    assert facts["Processor"] == "Some CPU (x86_64)"
    assert facts["Cores"] == "0.5 available of 8 logical, unknown physical"
    assert facts["Memory"] == "8.0 GiB, limited to 1.0 GiB"
    assert facts["Code"] == "abc with uncommitted changes"
