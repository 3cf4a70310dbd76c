"""Makes the HTML of a notebook's cells harmless: it runs no script and loads nothing.

A report has to open years later, offline, and must not do what a page in it says. Profilers, plot
libraries and widgets leave scripts, frames and addresses behind. So each piece of HTML is read,
and written anew from its tags: what runs or loads is left out, all text is escaped, all tags are
closed. What is written cannot be read differently by another parser, and a piece cannot reach
beyond its place in the page. Links stay: a reader follows them or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser

NOTE = '<p class="left-out">A script or an embedded page is left out here: this page runs none.</p>'

_VOID = frozenset("area br col hr img input param source track wbr".split())
_END_THEMSELVES = frozenset("dd dt li option p".split())
#: Left out with what is inside.
_DROPPED = frozenset({"script"})
#: Left out, but not what is inside.
_UNWRAPPED = frozenset(
    "applet base body embed fencedframe frame frameset head html iframe link meta noembed noframes "
    "noscript object plaintext portal template xmp".split()
)
#: The note stands for these.
_RUNS = frozenset("applet embed fencedframe frame iframe object portal script".split())
#: Attributes whose value a browser fetches or sends something to.
_ADDRESSES = frozenset(
    "action archive attributionsrc background classid codebase data dynsrc formaction href icon "
    "imagesrcset lowsrc manifest ping poster profile src srcset xlink:href xml:base".split()
)
#: What gives another attribute its value, which may be an address.
_ANIMATES = frozenset({"animate", "animatemotion", "animatetransform", "set"})
_ANIMATED = frozenset({"by", "from", "to", "values"})
_LISTS = _ANIMATED | {"imagesrcset", "srcset"}
_PROSE = frozenset("alt content label placeholder title value".split())
_NAME = re.compile(r"[a-z_][a-z0-9_:.-]*")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")
_LINKS = re.compile(
    r"(https?|mailto|ftp):|data:(text/(csv|plain)|image/(png|jpeg|gif|webp)"
    r"|application/(json|zip|octet-stream|vnd\.[\w.-]+))[;,]"
)
_MEDIA = re.compile(r"data:(image|audio|video|font)/|data:application/(x-)?font")
_HOST = re.compile(r"(?:\b(?:https?|ftps?|wss?):|[/\\]{2})[^\s\"'<>),;]+", re.IGNORECASE)

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|([g-z@:/()]))", re.IGNORECASE)
_IMPORT = re.compile(r"@import\b[^;]*;?", re.IGNORECASE)
_URL = re.compile(r"(url\(\s*[\"']?)([^\"')]*)", re.IGNORECASE)
#: Functions other than url() that load what their text names, or run it.
_LOADING = re.compile(
    r"(?<![\w-])(?:-\w+-)?(?:image-set|image|src|cross-fade|expression)\s*\(([^)]*)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Harmless:
    """HTML that runs and loads nothing, and the addresses on other hosts it would have loaded."""

    text: str
    external: tuple[str, ...]


def harmless(fragment: str) -> Harmless:
    """`fragment`, HTML that belongs inside a page's body, without what runs or loads.

    A note says where a script or an embedded page was. An attribute with an address on another host
    is renamed to `data-removed-…`, its value emptied; such an address in a style is left out.
    """
    writer = _Writer(fragment)
    text = "".join(writer.parts) + (NOTE if writer.ran else "")
    return Harmless(text, tuple(dict.fromkeys(writer.external)))


def find_external(page: str) -> list[str]:
    """The addresses on other hosts that `page` loads, in order; links don't count."""
    return list(harmless(page).external)


class _Writer(HTMLParser):
    """Writes the harmless form of a fragment into `parts`."""

    def __init__(self, fragment: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.external: list[str] = []
        self.ran = False
        self._open: list[str] = []
        self._dropped = False
        self.feed(fragment)
        self.close()
        self.parts += [f"</{tag}>" for tag in reversed(self._open) if tag not in _END_THEMSELVES]

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._start(tag, attrs, ">")
        if tag in _DROPPED:
            self._dropped = True
        elif self._kept(tag) and tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        # Only foreign elements end here; HTML reads <div/> as <div>.
        foreign = "svg" in self._open or "math" in self._open or tag in ("svg", "math")
        if tag in _VOID or tag in _DROPPED or foreign:
            self._start(tag, attrs, "/>")
        elif tag != "style":  # this parser would read what follows as tags, a browser as CSS
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._dropped = False
        elif tag in self._open:
            while self._open.pop() != tag:
                pass
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if self._open and self._open[-1] == "style":
            # A style in a picture is read as text with entities, one outside is not.
            self.parts.append(self._css(data).replace("&", r"\26 ").replace("<", r"\3c "))
        else:
            self.parts.append(escape(data, quote=False))

    def _kept(self, tag: str) -> bool:
        return tag not in _DROPPED and tag not in _UNWRAPPED and bool(_NAME.fullmatch(tag))

    def _start(self, tag: str, attrs: Sequence[tuple[str, str | None]], end: str) -> None:
        self.ran |= tag in _RUNS
        kept = "".join(self._attribute(tag, name, value) for name, value in attrs)
        if self._kept(tag):
            self.parts.append(f"<{tag}{kept}{end}")

    def _attribute(self, tag: str, name: str, value: str | None) -> str:
        """The attribute as it may be written, with a blank before it; empty if it may not."""
        if not _NAME.fullmatch(name) or name.startswith("on"):
            return ""
        if value is None:
            return f" {name}"
        if name == "srcdoc" or (tag == "meta" and name == "content"):
            self.external += find_external(value) if name == "srcdoc" else _HOST.findall(value)
            return ""
        if tag in ("a", "area") and name in ("href", "xlink:href"):
            address = _normalised(value)
            if _SCHEME.match(address) and not _LINKS.match(address):
                return ""
        elif name in _ADDRESSES or (name in _ANIMATED and tag in _ANIMATES):
            parts = re.split(r"[\s,;]+(?!base64)", value) if name in _LISTS else [value]
            if outside := [part for part in parts if not _stays(part)]:
                found = [address for part in outside for address in _HOST.findall(part)]
                self.external += found
                return f' data-removed-{name.replace(":", "-")}=""' if found else ""
        elif name == "style" or (name not in _PROSE and not name.startswith(("aria-", "data-"))):
            value = self._css(value) if name == "style" or "(" in value else value
        return f' {name}="{escape(value)}"'

    def _css(self, css: str) -> str:
        """CSS without comments, imports, and addresses that are not in the page."""
        css = _ESCAPE.sub(_plain, _COMMENT.sub(" ", css))

        def without(match: re.Match[str]) -> str:
            self.external += _HOST.findall(match[0])
            return ""

        def address(match: re.Match[str]) -> str:
            return match[0] if _stays(match[2]) else match[1] + without(match)

        css = _LOADING.sub(lambda match: "none(" + without(match), _IMPORT.sub(without, css))
        return _URL.sub(address, css)


def _normalised(address: str) -> str:
    """An address as a browser reads it: without blanks and control characters, in lower case."""
    return re.sub(r"[\x00-\x20\x7f-\xa0]", "", address).replace("\\", "/").lower()


def _stays(address: str) -> bool:
    """Whether what is at `address` is in the page, or in a file beside it."""
    address = _normalised(address)
    if _SCHEME.match(address):
        return bool(_MEDIA.match(address))
    return not address.startswith("//")


def _plain(match: re.Match[str]) -> str:
    """The character that a CSS escape stands for, if it may be part of an address or a keyword."""
    character = chr(min(int(match[1], 16), 0x10FFFF)) if match[1] else match[2]
    return character if re.fullmatch(r"[A-Za-z0-9@:/().-]", character) else match[0]
