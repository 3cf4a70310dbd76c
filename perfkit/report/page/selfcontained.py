"""Finds and removes a page's references to other hosts.

A report has to open years later, offline. Profilers, plot libraries and widgets leave script tags
behind, so every page is read as a browser would read it: attributes that hold an address, and CSS.
Addresses in plain text stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser

#: Attributes whose value a browser fetches or follows.
ADDRESS_ATTRIBUTES = frozenset(
    "action background cite data formaction href manifest ping poster src srcset srcdoc "
    "xlink:href".split()
)
_ELSEWHERE = re.compile(r"(?:^|[\s,\"'(=])\s*((?:https?:)?//[^\s\"'<>)]+)", re.IGNORECASE)
_IN_CSS = re.compile(
    r"(?:url\(\s*[\"']?|@import\s+(?:url\(\s*)?[\"']?)\s*((?:https?:)?//[^\s\"')]+)", re.IGNORECASE
)


def find_external(page: str) -> list[str]:
    """The addresses of other hosts that `page` refers to, in the order they appear."""
    return [address for _, _, _, found in _Scan(page).pieces for address in found]


def without_external(page: str) -> str:
    """`page` with every tag and style that refers to another host made harmless.

    An attribute with such an address is renamed to `data-removed-…` and its value emptied; the
    address in a style is replaced by nothing.
    """
    parts: list[str] = []
    position = 0
    for start, end, replacement, _ in _Scan(page).pieces:
        parts += [page[position:start], replacement]
        position = end
    return "".join([*parts, page[position:]])


class _Scan(HTMLParser):
    """Collects (start, end, harmless text, addresses) for each offending piece of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=False)
        self.pieces: list[tuple[int, int, str, list[str]]] = []
        self._in_style = False
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", page))]
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        found: list[str] = []
        kept: list[str] = []
        for name, value in attrs:
            addresses, harmless = _check_attribute(tag, name, value or "")
            found += addresses
            kept.append(harmless if value is not None or addresses else name)
        text = self.get_starttag_text()
        if found and text is not None:
            start = self._offset()
            closing = "/>" if text.endswith("/>") else ">"
            harmless_tag = " ".join([f"<{tag}", *kept]) + closing
            self.pieces.append((start, start + len(text), harmless_tag, found))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style and (found := _IN_CSS.findall(data)):
            start = self._offset()
            self.pieces.append((start, start + len(data), _harmless_css(data), found))

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column


def _check_attribute(tag: str, name: str, value: str) -> tuple[list[str], str]:
    """(addresses of other hosts, the attribute's harmless text)."""
    if name in ADDRESS_ATTRIBUTES and (found := _addresses(name, value)):
        return found, f'data-removed-{name.replace(":", "-")}=""'
    refreshes = tag == "meta" and name == "content" and "url=" in value.lower()
    if refreshes and (found := _ELSEWHERE.findall(value)):
        return found, 'content=""'
    return _IN_CSS.findall(value), f'{name}="{escape(_harmless_css(value))}"'


def _addresses(name: str, value: str) -> list[str]:
    if name == "srcdoc":
        return find_external(value)
    # Base64 may hold `,//` by chance.
    return [] if value.lstrip().lower().startswith("data:") else _ELSEWHERE.findall(value)


def _harmless_css(css: str) -> str:
    return _IN_CSS.sub(lambda match: match[0].replace(match[1], ""), css)
