"""Pages in a real browser: on a phone and a desktop, light and dark, without network or mouse."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from perfkit.report import Progress, ReportRun, run_report, write_history
from tests.perfkit.report.page.browser import DESKTOP, PHONE, Tab, browser

STORY = (
    "# Everything that a page can hold",
    "## A word\n\nThe plan says so, and claims more.",
    "from perfkit.evidence.samples import Interval\n"
    "from perfkit.evidence.tables import data_frame, html_table\n"
    "from perfkit.report import headlines\n"
    "from perfkit.report.engine.scorecard import Scorecard, ScoreRow\n"
    "from perfkit.report.figures import charts, climb, flame, panels\n"
    "from perfkit.profile.flame import Flame, Frame\n"
    "from IPython.display import HTML",
    "for word in ('met', 'missed', 'inconclusive', 'measured'):\n"
    "    headlines.record(out_dir, f'A goal that is {word}', 12.0, 'ms', 11.0, 13.0, 15.0, word,\n"
    "                     note='measured on ' + 'a rather long description ' * 3)",
    "figure = Interval(12.0, 11.0, 13.0, 0.95, '')\n"
    "row = dict(unit='ms', better='lower', claimed='15 ms', goal=5.0, baseline=figure, note='x')\n"
    "Scorecard(tuple(\n"
    "    ScoreRow(figure=f'Figure {n}', target='< 5 ms', optimized=figure.scaled(n / 10),\n"
    "             verdict='met' if n < 4 else 'missed', **row) for n in range(1, 7)\n"
    ")).record(out_dir)",
    "## A wide table",
    "words = ['a name', '12.5 ms (11.25 to 13.75)', 'met', 'some words about what was measured']\n"
    "HTML(html_table('Nine columns', [f'column {n}' for n in range(9)],\n"
    "                [(words * 3)[:9] for _ in range(3)]))",
    "data_frame([{f'figure_{n}': 1234.5678 * n for n in range(14)}] * 2)",
    "## Pictures",
    "bars = [charts.Bar(f'a rather long name, number {n}', 10.0 * n, 9.0 * n, 11.0 * n, 25.0)\n"
    "        for n in range(1, 5)]\n"
    "charts.bars_with_intervals(bars, 'ms', title='time', caption='Medians.')",
    "charts.waterfall(bars, 'ms')",
    "charts.latency_distribution([1.0 + n / 100 for n in range(200)])",
    "climb.climb(bars, 'tasks/s')",
    "panels.panels([panels.Panel('busy', '%', {'a': [(0, 1), (1, None), (2, 3)]})], title='CPU')",
    "frames = [Frame(f'function_{n}', 'cluster/core/run.py') for n in range(6)]\n"
    "flame.flame_graph(Flame('work', tuple((tuple(frames[:n]), n) for n in range(1, 6)), 100))",
    "print('a line without an end ' * 40)",
)

#: What can't be seen or is too small, as text; each is one expression of JavaScript.
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BEYOND = """[...document.querySelectorAll('.badge, .verdict')].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < 0
).map(e => e.outerHTML)"""
SMALL = """[...document.querySelectorAll('svg text, p, td, th, li, small, summary, figcaption, dd')]
  .filter(e => e.textContent.trim() && e.getClientRects().length).map(e => {
    const svg = e.closest('svg');
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return [parseFloat(getComputedStyle(e).fontSize) * scale, e.textContent.slice(0, 40)];
  }).filter(([size]) => size < 9)"""
CLIPPED = """[...document.querySelectorAll('svg text')].filter(e => {
  const [own, all] = [e.getBoundingClientRect(), e.closest('svg').getBoundingClientRect()];
  return own.right > Math.min(innerWidth, all.right + 40) || own.left < all.left - 8;
}).map(e => e.textContent)"""
NAMELESS = """[...document.querySelectorAll('img, svg')].filter(
  e => !(e.alt || e.ariaLabel || e.closest('[aria-label]'))
).map(e => e.outerHTML.slice(0, 80))"""
LINKS = "[...document.querySelectorAll('a[href]')].map(e => e.href.baseVal ?? e.href)"
LANDMARKS = "['main', 'h1, h2'].every(part => document.querySelector(part) !== null)"
INK = """[...document.querySelectorAll('svg text')].slice(0, 1).map(e =>
  getComputedStyle(e).fill)[0]"""


@pytest.fixture(scope="module")
def report(
    write_notebook: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> ReportRun:
    """A run with a page that has every part, and one that failed; with a history beside it."""
    folder = tmp_path_factory.mktemp("browsed")
    found = run_report(
        [
            write_notebook("story", *STORY, parameters='out_dir: str = "results"'),
            write_notebook("failing", "# Bad news", "1 / 0"),
        ],
        out_root=folder,
        progress=Progress(),
    )
    (story, _) = found.notebooks
    assert story.failure is None
    write_history(folder)
    return found


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


PAGES = ("index.html", "story.html", "failing.html", "../index.html")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_and_is_whole(
    report: ReportRun, tab: Tab, page: str, size: tuple[int, int]
) -> None:
    tab.open(report.path / page, size)
    assert tab.complaints == []
    folder = report.path.parent.resolve().as_uri()
    assert [url for url in tab.requests if not url.startswith((folder, "data:"))] == []
    assert tab.ask(SIDEWAYS) <= 0
    for script in (BEYOND, SMALL, CLIPPED, NAMELESS):
        assert tab.ask(script) == [], script
    assert tab.ask(LANDMARKS)
    assert tab.pdf().startswith(b"%PDF")


PLANTED = """document.querySelector('main').insertAdjacentHTML('beforeend', `
  <div style="width: 900px">wide</div> <p style="font-size: 8px">small</p> <img src="data:,">
  <span class="badge" style="position: absolute; left: 2000px">far</span>
  <svg width="100" viewBox="0 0 100 100"><text x="90">clipped, by a lot of words</text></svg>`)"""


def test_the_checks_find_what_is_planted(report: ReportRun, tab: Tab) -> None:
    tab.open(report.path / "failing.html", PHONE)
    tab.ask(PLANTED)
    assert tab.ask(SIDEWAYS) > 0
    assert all(tab.ask(script) for script in (BEYOND, SMALL, CLIPPED, NAMELESS))
    tab.ask("console.error('planted')")
    tab.ask("fetch('https://example.org/').catch(() => 0)")
    assert any("planted" in complaint for complaint in tab.complaints)
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(report: ReportRun, tab: Tab, page: str) -> None:
    tab.open(report.path / page, DESKTOP)
    links = tab.ask(LINKS)
    assert links
    for link in links:
        parts = urlsplit(link)
        if parts.scheme == "" or (parts.fragment and unquote(parts.path).endswith(page[-10:])):
            target = f"document.getElementById({unquote(parts.fragment)!r}) !== null"
            assert not parts.fragment or tab.ask(target), link
        if parts.scheme == "file":
            assert Path(unquote(parts.path)).exists(), link


@pytest.mark.parametrize("page", ["index.html", "story.html"])
def test_the_verdict_is_the_first_thing_on_a_page(report: ReportRun, tab: Tab, page: str) -> None:
    tab.open(report.path / page, PHONE)
    found = tab.ask("document.querySelector('.verdict').innerText")
    assert found.startswith(
        ("Not complete: failing. " if page == "index.html" else "")
        + "1 of 3 goals met; missed: A goal that is missed; inconclusive: A goal that"
    )
    place = "document.querySelector('.verdict').getBoundingClientRect()"
    assert tab.ask(f"{place}.top") < 200
    assert tab.ask(f"{place}.bottom") < PHONE[1]
    words = tab.ask("[...document.querySelectorAll('.words')].map(e => e.innerText)")
    assert [text for text in words if "never ran" in text] == words[:1]


def test_ink_is_light_in_the_dark(report: ReportRun, tab: Tab) -> None:
    inks = []
    for dark in (False, True):
        tab.open(report.path / "story.html", DESKTOP, dark=dark)
        inks.append(tab.ask(INK))
        assert inks[-1] == tab.ask("getComputedStyle(document.body).color")
    assert inks[0] != inks[1]


def test_the_keyboard_finds_the_content_and_shows_where_it_is(report: ReportRun, tab: Tab) -> None:
    tab.open(report.path / "index.html", DESKTOP)
    tab.press("Tab")
    assert tab.ask("document.activeElement.className") == "skip"
    assert tab.ask("document.activeElement.getBoundingClientRect().left") >= 0
    tab.press("Tab")
    assert tab.ask("document.activeElement.tagName") in ("A", "SUMMARY")
    assert tab.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
