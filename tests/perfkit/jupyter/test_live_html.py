"""The page of a live view: well-formed, without scripts and other hosts, small, and true."""

import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from cluster.vocabulary.status import Status
from perfkit.jupyter.live_html import as_html
from perfkit.profile.activity.board import board_of
from perfkit.profile.activity.looks import Activity
from perfkit.report.page.selfcontained import find_external, harmless
from tests.perfkit.statuses import HOSTILE, status, worker, workers_with_cards

SVG = "http://www.w3.org/2000/svg"


class Tags(HTMLParser):
    """The tags of a fragment, each of which must be closed where it belongs."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(fragment)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(answers: list[Status]) -> str:
    """The page after a look a second."""
    now_s = 0.0
    left = iter(answers)
    activity = Activity(lambda _: next(left), clock=lambda: now_s)
    for second in range(len(answers)):
        now_s = float(second)
        activity.look()
    return as_html(board_of(activity, "tcp://x", now_s))


def pictures_of(shown: str) -> list[str]:
    """The curves of a page, each as an SVG file."""
    addresses = re.findall(r'src="data:image/svg\+xml,([^"]*)"', shown)
    return [unquote(unescape(address)) for address in addresses]


@pytest.mark.parametrize(
    "workers",
    [[], [worker("a"), worker("b")], workers_with_cards(3, 6, 3), workers_with_cards(6, 10)],
    ids=["none", "two", "cards", "sixty"],
)
def test_a_page_is_well_formed_and_runs_and_loads_nothing(workers: list) -> None:
    shown = page([status(*workers, counters={"done": n * n}) for n in range(301)])
    assert not {"script", "svg", "link", "iframe", "object"} & set(Tags(shown).seen)
    assert not re.search(r"\son\w+=|https?:(?!//www\.w3\.org/2000/svg)|url\(|@import", shown)
    assert find_external(shown) == []
    pictures = pictures_of(shown)
    assert pictures_of(harmless(shown).text) == pictures
    assert [ET.fromstring(picture).tag for picture in pictures] == [f"{{{SVG}}}svg"] * 2
    assert len(shown) < 60_000


def test_text_from_elsewhere_is_no_markup() -> None:
    shown = page([status(worker(HOSTILE, host=HOSTILE, models=[HOSTILE]), policy=HOSTILE)])
    assert "script" not in Tags(shown).seen
    assert "\u202e" not in shown
    assert shown.count("&lt;script src=//x.example&gt;&amp;") == 5


def test_a_curve_has_a_gap_where_nothing_is_known_and_zero_is_drawn_as_zero() -> None:
    counts = [0, 0, 20, 3, 3, 8]  # another coordinator counts anew
    shown = page([status(counters={"done": count}) for count in counts])
    _, queued, _, rate = re.findall(r" d='([^']*)'", shown)
    assert queued.count("M") == 2  # one stroke, and the dot at its beginning
    assert re.findall(r"[ML]\d+ [\d.]+", rate)[0].endswith(" 48.0")
    assert rate.count("l.1") == 2
    assert "top 20" in shown
