"""Turns a matplotlib figure into an SVG that can live inside an HTML page.

matplotlib writes a file of its own: it names the schema's host, styles everything around it,
numbers its parts with ids that two pictures on one page would share, and is black on white. A
report shows many pictures on one page, in light and dark, offline. So the text stays text in the
page's own font, ink takes the colour of the text around it, and equal figures give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Stand-ins for the page's own colours; no picture uses them for anything else.
INK = "#0a0b0c"
QUIET = "#0d0e0f"


def to_svg(drawing: Drawing) -> str:
    """The drawing as one `<svg>` element without namespace, prologue, metadata or font names."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawing.savefig(text, format="svg", metadata=no_metadata, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = _with_own_ids(svg.replace("xlink:href=", "href="))
    svg = re.sub(r"\s*font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    # Nobody sees a hundredth of a point.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(rf"(fill|stroke): {QUIET}", r"\1: currentColor; \1-opacity: 0.65", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    return _with_own_root(svg).strip()


def _with_own_root(svg: str) -> str:
    """The root element with its size as a view box only, so that the page can scale it."""
    end = svg.index(">")
    root, rest = svg[:end], svg[end:]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', root)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a view box")
    width, height = box[1], box[2]
    return (
        f'<svg width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}" '
        'aria-hidden="true" style="max-width:100%;height:auto" '
        f'stroke-linejoin="round"{rest}'
    )


def _with_own_ids(svg: str) -> str:
    """Drops ids without a reference and gives the others a prefix made from the picture itself."""
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:6]

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in wanted else ""

    svg = re.sub(r'\s+id="([^"]*)"', renamed, svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
