"""What counts as a reference to another host, and that taking it out leaves the rest alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report.page.selfcontained import find_external, without_external

OUTSIDE = [
    '<script src="https://cdn.example.org/x.js"></script>',
    "<img src='http://example.org/a.png' alt=a>",
    "<img src=//example.org/a.png>",
    '<a href="HTTPS://example.org">x</a>',
    '<img srcset="a.png 1x, https://example.org/b.png 2x">',
    '<svg><use xlink:href="http://example.org/#a"/></svg>',
    '<p style="background: url(https://example.org/a.png)">x</p>',
    "<style>a{} @import 'https://example.org/a.css'; b{background:url( \"//e.org/x\" )}</style>",
    '<meta http-equiv="refresh" content="0; url=https://example.org">',
    "<iframe srcdoc='<img src=&quot;https://example.org/a.png&quot;>'></iframe>",
    '<form action="https://example.org/post"></form>',
    '<object data="https://example.org/a.swf"></object>',
]
INSIDE = [
    '<a href="index.html">x</a><a href="#cell-3">y</a><a href="results/a.json">z</a>',
    '<img src="data:image/png;base64,AAAA//8A,//8A" alt="">',
    "<p>see https://example.org and //this</p>",
    "<pre>&lt;img src=&quot;https://example.org&quot;&gt;</pre>",
    "<style>p{background:url(data:image/png;base64,AA//)}</style>",
    "<div title='https://example.org' data-x='//y'></div>",
    "<style>/* https://example.org */</style>",
]


@pytest.mark.parametrize("page", OUTSIDE)
def test_a_reference_to_another_host_is_found_and_taken_out(page: str) -> None:
    found = find_external(page)
    assert found
    harmless = without_external(f"<p>before</p>{page}<p>after &amp; all</p>")
    assert find_external(harmless) == []
    assert not any(address in harmless for address in found)
    assert harmless.startswith("<p>before</p><")
    assert harmless.endswith("<p>after &amp; all</p>")


@pytest.mark.parametrize("page", INSIDE)
def test_what_stays_on_this_machine_is_left_alone(page: str) -> None:
    assert find_external(page) == []
    assert without_external(page) == page


def test_other_attributes_of_a_cleaned_tag_stay() -> None:
    page = '<img alt="a &quot;b&quot;" src="https://example.org/a" hidden style="color: red">'
    assert without_external(page) == (
        '<img alt="a &quot;b&quot;" data-removed-src="" hidden style="color: red">'
    )


@given(st.lists(st.sampled_from([*OUTSIDE, *INSIDE, "<p", "text", "\n", "</style>", "<!--", "é"])))
def test_any_mixture_is_clean_afterwards(parts: list[str]) -> None:
    assert find_external(without_external("".join(parts))) == []
