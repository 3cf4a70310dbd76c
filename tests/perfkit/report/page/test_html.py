"""The page of one notebook: complete without the world, readable, bounded, the error on top."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from perfkit.report import NotebookRun, ReportRun, Status
from perfkit.report.engine.plan import Plan
from perfkit.report.page.html import (
    OUTPUT_BYTES_MAX,
    PAGE_BYTES_MAX,
    TEXT_MAX,
    Page,
    render_notebook,
    without_private_paths,
)
from perfkit.report.page.selfcontained import find_external

Render = Callable[..., Page]


def page_of(run: ReportRun, name: str) -> str:
    return (run.path / f"{name}.html").read_text()


@pytest.fixture
def render(plan: Plan) -> Render:
    """Renders cells as the page of a notebook that is done."""
    facts: dict[str, object] = {"commit": "<abc>", "out_dir": "results"}
    run = NotebookRun("n", "A & B", "n", "n.html", "n.ipynb", Status.DONE, 1.0, 1, 1, facts)
    return lambda *cells: render_notebook(nbformat.v4.new_notebook(cells=list(cells)), run, plan)


def shown(data: dict[str, str], source: str = "x") -> Any:
    output = nbformat.v4.new_output("display_data", data=data)
    return nbformat.v4.new_code_cell(source, outputs=[output])


def printed(text: str) -> Any:
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    return nbformat.v4.new_code_cell("print()", outputs=[output])


@pytest.mark.parametrize("name", ["good", "failing", "loading", "dying", "index"])
def test_every_page_opens_without_the_world(gallery: ReportRun, name: str) -> None:
    page = page_of(gallery, name)
    assert find_external(page) == []
    assert len(page.encode()) < PAGE_BYTES_MAX
    assert "<script" not in page
    for loaded in ("mathjax", "require.js", "jquery", "cdnjs", "mermaid"):
        assert loaded not in page.lower()
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_a_page_leads_back_to_its_run(gallery: ReportRun) -> None:
    page = page_of(gallery, "good")
    assert page.count('href="index.html"') == 2
    assert '<a href="failing.html">Bad news</a>' in page
    assert '<span aria-current="page">A good story</span>' in page
    assert gallery.path.name in page
    assert "profile=quick, seed=3, workers=4" in page


def test_a_page_has_contents_with_anchors_of_their_own(gallery: ReportRun) -> None:
    page = page_of(gallery, "good")
    contents = page[page.index('<nav class="toc"') :].partition("</nav>")[0]
    anchors = re.findall(r'href="#([^"]+)"', contents)
    expected = "where-it-runs what-was-found a-profile a-profile-2 a-picture"
    assert anchors == expected.split()
    assert all(page.count(f'id="{anchor}"') == 1 for anchor in anchors)


def test_narrative_is_first_code_is_folded_and_pictures_are_inline(gallery: ReportRun) -> None:
    page = page_of(gallery, "good")
    assert "<details>\n<summary>Parameters of this run" in page
    assert "<details open" not in page
    assert page.index("<h1>A <em>good</em> story</h1>") < page.index("<summary>Parameters")
    assert "<th>a</th>" in page
    assert "see http://example.org for more" in page
    (figure,) = re.findall(r"<figure>(<[^>]*>)", page)
    assert figure.startswith('<span aria-label="Distribution of latency, ')
    assert figure.endswith('role="img">')
    assert "data:image/svg" not in page
    assert "<svg " in page
    assert "xmlns" not in page


def test_a_page_names_no_folder_of_the_person_who_ran_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, here = tmp_path / "home" / "ada", tmp_path / "home" / "ada" / "project"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    text = f"{here}/notebooks/a.ipynb, {home}/cards and /sys/class/drm"
    assert without_private_paths(text) == "notebooks/a.ipynb, ~/cards and /sys/class/drm"
    monkeypatch.setenv("HOME", "/")
    assert without_private_paths("/sys/class/drm") == "/sys/class/drm"


def test_an_error_stands_on_top_without_terminal_codes(gallery: ReportRun) -> None:
    page = page_of(gallery, "failing")
    alert = page.index('role="alert"')
    assert alert < page.index("Bad news</h1>")
    assert "Stopped in “The division”" in page[alert:]
    assert "<strong>ZeroDivisionError</strong>: division by zero" in page[alert:]
    target = re.search(r'href="#(cell-\d+)">Go to the cell', page)
    assert f'<section class="cell code failed" id="{target[1]}">' in page
    assert "Code · not run" in page
    assert "papermill-error" not in page
    assert "\x1b" not in page
    assert "<strong>kernel died</strong>" in page_of(gallery, "dying")


def test_what_loads_from_elsewhere_is_taken_out_and_fails_the_notebook(gallery: ReportRun) -> None:
    page = page_of(gallery, "loading")
    assert "<b>kept</b>" in page
    assert "A script or an embedded page is left out here" in page
    assert "https://cdn.example.org/x.js" in page[page.index('role="alert"') :]
    assert "Not complete" in page


def test_facts_are_escaped(render: Render) -> None:
    page = render().text
    assert "<dd>commit=&lt;abc&gt;</dd>" in page
    assert "<title>A &amp; B · 20260314T000000Z-nocommit-quick</title>" in page


def test_a_long_text_shows_its_beginning_and_end(render: Render) -> None:
    page = render(printed("first" + "x" * 100_000 + "last"))
    assert page.problems == ()
    assert "first" in page.text
    assert "last" in page.text
    assert "characters left out; see n.ipynb" in page.text
    assert len(page.text) < TEXT_MAX * 2


def test_the_largest_outputs_are_left_out_with_a_note(render: Render) -> None:
    small, large = "<b>small</b>", "<i>" + "y" * OUTPUT_BYTES_MAX + "</i>"
    page = render(shown({"text/html": small, "text/plain": "z"}), shown({"text/html": large}))
    assert page.problems == ()
    assert small in page.text
    assert "An output of 293 KiB is left out here; it is in n.ipynb." in page.text
    assert len(page.text.encode()) < PAGE_BYTES_MAX


def test_a_page_that_is_too_heavy_all_the_same_says_so(render: Render) -> None:
    page = render(nbformat.v4.new_markdown_cell("word " * PAGE_BYTES_MAX))
    assert [problem[:16] for problem in page.problems] == ["the page weighs "]


def test_widgets_and_scripts_fall_back_to_what_needs_no_script(render: Render) -> None:
    view = "application/vnd.jupyter.widget-view+json"
    page = render(
        shown({view: "{}", "text/plain": "the widget as text"}),
        shown({"application/javascript": "alert(1)", "text/plain": "the script as text"}),
        shown({"application/javascript": "alert(2)"}),
    ).text
    assert "the widget as text" in page
    assert "the script as text" in page
    assert "alert" not in page


def test_html_is_made_harmless_wherever_a_notebook_may_hold_it(render: Render) -> None:
    evil = "<img src=x onerror=alert(1)><a href='https://example.org'>link</a></section></main>"
    isolated = shown({"text/html": evil})
    isolated.outputs[0].metadata["text/html"] = {"isolated": True}
    page = render(
        nbformat.v4.new_markdown_cell(f"A story\n\n{evil}"),
        nbformat.v4.new_raw_cell(evil, metadata={"raw_mimetype": "text/html"}),
        shown({"text/html": evil}),
        shown({"text/markdown": evil}),
        isolated,
    )
    assert page.problems == ()
    assert page.text.count('<a href="https://example.org">link</a>') == 5
    assert page.text.count("</main>") == 1
    for bad in ("onerror", "alert", "iframe"):
        assert bad not in page.text


def test_a_raster_picture_gets_a_description_from_its_heading(render: Render) -> None:
    page = render(
        nbformat.v4.new_markdown_cell('## A "quoted" heading'),
        shown({"image/png": "AAAA\n"}),
        shown({"image/svg+xml": "<svg/>"}),
        shown({"image/jpeg": "BBBB"}),
    ).text
    assert page.count("alt='A \"quoted\" heading'") == 3
    assert "data:image/png;base64,AAAA" in page
    assert "data:image/jpeg;base64,BBBB" in page
