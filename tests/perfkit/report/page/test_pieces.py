"""Pictures put in line, thumbnails taken out, and tables whose cells know their column."""

import nbformat
import pytest

from perfkit.evidence.tables import LEFT, html_table
from perfkit.report.figures.charts import Bar, Figure, waterfall
from perfkit.report.page.pieces import THUMBNAIL_BYTES_MAX, in_line, labelled, thumbnail
from perfkit.report.page.selfcontained import harmless


@pytest.fixture(scope="module")
def picture() -> Figure:
    return waterfall([Bar('a "name" & <more>', 1.0)], caption="Below.")


def notebook(*data: dict[str, str]) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("display_data", data=found) for found in data]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])


def test_a_picture_of_ours_becomes_inline_svg_in_the_pages_colours(picture: Figure) -> None:
    page = in_line(f"<p>before</p>{picture._repr_html_()}<p>after</p>")
    assert picture.svg in page
    assert "<img" not in page
    assert "<style" not in page
    assert 'aria-label="Waterfall of time of one task' in page
    assert "a &quot;name&quot; &amp; &lt;more&gt;" in page
    assert harmless(page).external == ()


def test_images_of_others_and_what_pretends_to_be_ours_stay_harmless() -> None:
    other = '<img alt="x" src="data:image/png;base64,AA==">'
    assert in_line(other) == other
    evil = Figure('<svg onload="alert(1)"><script>alert(2)</script></svg>', "evil")
    page = harmless(in_line(evil._repr_html_())).text
    assert "alert" not in page


def test_the_first_small_picture_is_the_thumbnail(picture: Figure) -> None:
    large = Figure(f"<svg><text>{'x' * THUMBNAIL_BYTES_MAX}</text></svg>", "large")
    small = picture._repr_mimebundle_()
    found = thumbnail(notebook({"text/plain": "1"}, large._repr_mimebundle_(), small))
    assert found is not None
    assert found.alt == picture.alt
    assert found.source.startswith("data:image/svg+xml,%3Csvg xmlns=")
    drawn = thumbnail(notebook({"image/png": "AA\nBB=="}))
    assert drawn is not None
    assert drawn.source == "data:image/png;base64,AABB=="
    assert thumbnail(notebook({"text/html": "<p>no picture</p>"})) is None


def test_each_cell_of_a_table_with_headings_has_its_columns() -> None:
    table = html_table("Title", ("goal", "a & b", ""), [("x1", "1", "met"), ("y1", "2", "3")])
    shown = labelled(f"<p>{table}</p>")
    assert '<table class="labelled"><caption>Title</caption>' in shown
    assert shown.count('<td data-label="goal">') == shown.count('<td data-label="a &amp; b">') == 2
    assert f"<td{LEFT}>3</td>" in shown
    assert f'<td{LEFT}><span class="badge met">met</span></td>' in shown
    assert '<table class="dataframe labelled" border="1">' in labelled(
        '<table class="dataframe" border="1"><thead><tr><th></th><th>f</th></tr></thead>'
        "<tbody><tr><th>0</th><td>1</td></tr></tbody></table>"
    )


def test_a_table_of_facts_stays_as_it_is() -> None:
    facts = html_table("Facts", (), [("name", "value")])
    assert labelled(facts) == facts
