"""What HTML of a notebook may do in a page: be read, lead elsewhere, and nothing else."""

import re

import pytest
from bleach._vendor import html5lib
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report.page.selfcontained import NOTE, find_external, harmless

LOADS = [
    '<script src="https://cdn.example.org/x.js"></script>',
    "<img src='http://example.org/a.png' alt=a>",
    "<img src=//example.org/a.png>",
    r"<img src='\\\\example.org/a.png'>",
    "<img src='https:example.org/a.png'>",
    "<img src='ht&#9;tps://example.org/a.png'>",
    '<img srcset="a.png 1x, https://example.org/b.png 2x">',
    "<video src=https://example.org/a.mp4 poster=//example.org/b></video>",
    '<svg><use xlink:href="http://example.org/#a"/></svg>',
    '<svg><image href="http://example.org/a.png"/></svg>',
    "<svg><image><set attributeName=href to=https://example.org/a.png /></image></svg>",
    '<svg><rect fill="url(https://example.org/#a)"/></svg>',
    '<p style="background: url(https://example.org/a.png)">x</p>',
    "<p style='background: u\\72l(https://example.org/a.png)'>x</p>",
    "<p style='background: image-set(&quot;https://example.org/a.png&quot; 1x)'>x</p>",
    "<style>a{} @import 'https://example.org/a.css'; b{background:url( \"//e.org/x\" )}</style>",
    "<link rel=stylesheet href=https://example.org/a.css>",
    '<meta http-equiv="refresh" content="0; url=https://example.org">',
    "<base href=https://example.org/>",
    "<iframe src=https://example.org></iframe>",
    "<iframe srcdoc='<img src=&quot;https://example.org/a.png&quot;>'></iframe>",
    '<form action="https://example.org/post"></form>',
    "<a ping=https://example.org href=a.html>x</a>",
    '<object data="https://example.org/a.swf"></object>',
    "<body background=https://example.org/a.png>",
]
RUNS = [
    "<script>alert(1)</script>",
    "<SCRIPT type=module>alert(1)",
    "<svg><script>alert(1)</script></svg>",
    "<img src=x onerror=alert(1)>",
    "<img/src='x'/onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' jav&#10;ascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<svg><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<svg><a><animate attributeName=href values='javascript:alert(1)'/></a></svg>",
    "<math href='javascript:alert(1)'>x</math>",
    "<button formaction='javascript:alert(1)'>x</button>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<embed src='data:text/html,<script>alert(1)</script>'>",
    "<object data='data:text/html,<script>alert(1)</script>'></object>",
    "<textarea><img title='</textarea><script>alert(1)</script>'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<!--><script>alert(1)</script>-->",
    "<xmp><p title='</xmp><script>alert(1)</script>'>",
]
STAYS = [
    '<a href="index.html">x</a><a href="#cell-3">y</a><a href="results/a.json">z</a>',
    '<a href="https://example.org/?a=1&amp;b=2" target="_blank">x</a><a href="//e.org">y</a>',
    '<a href="mailto:me@example.org">x</a><a download href="data:text/csv;base64,AA//">y</a>',
    '<img src="data:image/png;base64,AAAA//8A,//8A" alt="">',
    "<p>see https://example.org and //this</p>",
    '<pre>&lt;img src="https://example.org"&gt;</pre>',
    "<style>p>b{background:url(data:image/png;base64,AA//)}</style>",
    '<div title="https://example.org" data-x="//y">x</div>',
    '<table class="dataframe" border="1" style="color: red"><tr><td>1 &lt; 2</td></tr></table>',
    '<svg role="img" xmlns="http://www.w3.org/2000/svg"><path d="M0 0" fill="url(#g)"/></svg>',
    "<ul><li>x<br>y</li></ul>",
]


def running(text: str) -> list[str]:
    """What a browser would run of `text`, read by a parser that follows the HTML standard."""
    found = []
    for scripting in (True, False):
        parser = html5lib.HTMLParser(namespaceHTMLElements=False)
        for element in parser.parseFragment(text, scripting=scripting).iter():
            tag = re.sub(r"\{.*\}", "", str(element.tag))
            found += [tag] if tag in "script iframe embed object base meta link".split() else []
            for key, value in element.items():
                name, address = re.sub(r"\{.*\}", "", key), re.sub(r"[\s\x00-\x20]", "", value)
                if name.startswith("on") or name == "srcdoc":
                    found.append(name)
                if name not in ("title", "alt") and re.match("javascript:|data:text/html", address):
                    found.append(value)
    return found


@pytest.mark.parametrize("fragment", LOADS)
def test_what_loads_from_another_host_is_named_and_taken_out(fragment: str) -> None:
    found = harmless(f"<p>before</p>{fragment}<p>after &amp; all</p>")
    assert found.external
    assert find_external(found.text) == []
    assert "example.org" not in found.text
    assert found.text.startswith("<p>before</p>")
    assert "<p>after &amp; all</p>" in found.text


@pytest.mark.parametrize("fragment", RUNS)
def test_what_runs_is_taken_out(fragment: str) -> None:
    text = harmless(f"<p>before</p>{fragment}").text
    assert running(fragment)
    assert running(text) == []
    assert text.startswith("<p>before</p>")


def test_a_note_says_where_a_script_was() -> None:
    assert harmless("<b>kept</b><script>alert(1)</script>").text == f"<b>kept</b>{NOTE}"


@pytest.mark.parametrize("fragment", STAYS)
def test_what_a_reader_sees_or_follows_is_left_alone(fragment: str) -> None:
    found = harmless(fragment)
    assert (found.text, found.external) == (fragment, ())


def test_other_attributes_of_a_cleaned_tag_stay() -> None:
    tag = '<img alt="a &quot;b&quot;" src="https://example.org/a" hidden style="color: red">'
    assert harmless(tag).text == (
        '<img alt="a &quot;b&quot;" data-removed-src="" hidden style="color: red">'
    )


@pytest.mark.parametrize(
    "fragment", ["</section></main>x", "<div><b>x", "<p>x", "<!-- x", "<style>"]
)
def test_a_fragment_does_not_reach_beyond_its_place(fragment: str) -> None:
    text = harmless(fragment).text
    opened, closed = (re.findall(rf"<{slash}(\w+)", text) for slash in ("", "/"))
    assert sorted(tag for tag in opened if tag != "p") == sorted(closed)
    assert "<!--" not in text


PIECES = [*LOADS, *RUNS, *STAYS, "<p", "text", "\n", "</style>", "<style>", "<!--", "é", "<svg>"]


@given(st.lists(st.sampled_from(PIECES)))
def test_any_mixture_is_clean_afterwards_and_stays_so(parts: list[str]) -> None:
    once = harmless("".join(parts)).text.replace(NOTE, "")
    again = harmless(once)
    assert (again.text, again.external) == (once, ())
    assert running(once) == []
