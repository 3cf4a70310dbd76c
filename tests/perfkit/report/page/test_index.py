"""The index: what a person reads first, from the files of a run and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfkit.report import ExitCode, Headline, ReportRun, Verdict
from perfkit.report.engine.plan import Plan
from perfkit.report.engine.scorecard import Scorecard
from perfkit.report.page.index import machine_facts, render_index
from tests.perfkit.report.engine.test_scorecard import CARD


def row_of(page: str, finding: str) -> str:
    """The row of a finding, which is a link if its notebook is in the run."""
    return page[page.index(f">{finding}</") :].partition("</tr>")[0]


def test_the_index_shows_findings_beside_their_claims(gallery: ReportRun) -> None:
    page = gallery.index_path.read_text()
    row = row_of(page, "Throughput")
    for text in ("an echo of 200 bytes", "1,000 tasks/s", "41,000 tasks/s (40,000 to 42,000)"):
        assert text in row
    assert '<span class="badge faster">faster</span>' in row
    assert 'href="good.html"' in page
    unknown = row_of(page, "GPU memory")
    assert unknown.count(">unknown<") == 1
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
    return render_index(replace(empty_run(), **facts), plan)


def empty_run() -> ReportRun:
    return ReportRun(Path("none"), "quick", "now", 1.0, ExitCode.DONE, (), (), ())


def test_an_empty_run_still_reads(plan: Plan) -> None:
    page = index(plan)
    assert "No notebook of this run recorded a headline finding" in page
    assert "unknown (unknown)" in page


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><b>'])
def test_nothing_a_notebook_says_becomes_markup(plan: Plan, hostile: str) -> None:
    found = Headline(hostile, 1.0, hostile, claim=hostile, note=hostile)
    page = index(plan, headlines=(found,), command=(hostile,), problems=(hostile,))
    assert hostile not in page


def test_the_first_thing_is_the_verdict_and_no_exit_code(plan: Plan) -> None:
    found = tuple(
        Headline(title, 1.0, "ms", verdict=Verdict(word))
        for title, word in (("A", "met"), ("B", "missed"))
    )
    page = index(plan, headlines=found, warnings=("The machine is busy.",))
    body = page[page.index("<main") :]
    assert body.index('<h1 class="verdict missed">1 of 2 goals met; missed: B.</h1>') < 60
    assert body.index("The machine is busy.") < body.index('id="findings"')
    assert body.index("exit code") > body.index('id="again"')
    assert '<span class="badge missed">missed</span>' in row_of(page, "B")


def test_the_scorecard_is_the_first_picture(plan: Plan) -> None:
    page = render_index(empty_run(), plan, card=CARD)
    section = page[page.index('class="scorecard"') : page.index('id="findings"')]
    assert section.count("<svg ") == 1
    assert (
        'aria-label="baseline and optimised, beside the target of each. Task throughput: ' in page
    )
    assert "8,000 tasks/s → unknown, inconclusive" in section
    assert '<td data-label="baseline">8,000 tasks/s (7,000 to 9,000)</td>' in section
    without = Scorecard(tuple(msgspec.structs.replace(row, goal=None) for row in CARD.rows))
    assert "<svg" not in render_index(empty_run(), plan, card=without)


def test_each_page_has_its_verdict_and_its_picture(gallery: ReportRun) -> None:
    page = gallery.index_path.read_text()
    entry = page[page.index('<ul class="pages">') :].partition("</li>")[0]
    assert '<img src="data:image/svg+xml,' in entry
    assert 'alt="Distribution of latency, 120 samples: ' in entry
    assert "0 of 1 goal met; inconclusive: GPU memory. Comparisons: 1 faster." in entry


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
