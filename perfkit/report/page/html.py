"""Turns an executed notebook into one page that needs nothing but itself.

nbconvert's own pages load scripts and fonts from other hosts. This uses its machinery with the
project's own template: the narrative first, code folded away, an error on top, no script at all.
What a page may hold is bounded: an output that is too large is left out with a note that says
where it is, so that one endless log does not make a report unreadable.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfkit.report.engine.execute import plain_heading, plain_text
from perfkit.report.engine.outcome import Failure
from perfkit.report.page.selfcontained import find_external, without_external

TEMPLATES = Path(__file__).parent / "template"
#: The most a page may weigh, and how much of that outputs may use.
PAGE_BYTES_MAX = 400_000
OUTPUT_BYTES_MAX = 300_000
#: A longer text output shows its beginning and its end.
TEXT_BYTES_MAX = 16_000

_TOC_MARK = "<!-- table of contents -->"
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What a page's header says about the run it belongs to.

    `facts` are label and value pairs; `siblings` are the run's pages as (file name, title).
    """

    run_name: str
    facts: tuple[tuple[str, str], ...]
    siblings: tuple[tuple[str, str], ...]
    file_name: str
    status: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page and what is wrong with it, one sentence each (empty when nothing is)."""

    text: str
    problems: tuple[str, ...]


def render_notebook(notebook: Path, facts: PageFacts) -> Page:
    """The page of an executed notebook.

    References to other hosts are taken out of the text and named in `problems`, as is a page that
    weighs more than PAGE_BYTES_MAX though its outputs were trimmed.
    """
    import nbformat

    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    _trim_outputs(content, notebook.name)
    _mark_cells(content, facts.failure)
    text = _with_contents(_export(content, facts))
    problems: list[str] = []
    if external := find_external(text):
        text = without_external(text)
        problems.append(
            f"the page referred to other hosts, which was taken out: {_some(external)}; "
            "embed what it needs or show it as text"
        )
    weight = len(text.encode())
    if weight > PAGE_BYTES_MAX:
        problems.append(
            f"the page weighs {weight:,} bytes, more than {PAGE_BYTES_MAX:,}: "
            "shorten the notebook's text or its attachments"
        )
    return Page(text, tuple(problems))


def notebook_title(cells: Iterable[Mapping[str, Any]], otherwise: str) -> str:
    """The first heading of a notebook's cells (nbformat or plain JSON)."""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            source = cell["source"]
            text = "".join(source) if isinstance(source, list) else str(source)
            if heading := _HEADING.search(text):
                return plain_heading(heading[1])
    return otherwise


def style() -> str:
    """The style sheet shared by all pages of a run."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def _export(content: Any, facts: PageFacts) -> str:
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config()
    config.HTMLExporter.exclude_anchor_links = True
    config.HTMLExporter.exclude_input_prompt = True
    config.HTMLExporter.exclude_output_prompt = True
    config.NbConvertBase.display_data_priority = [
        "text/html",
        "text/markdown",
        "image/svg+xml",
        "image/png",
        "image/jpeg",
        "text/plain",
    ]
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        config=config,
        template_name="perfkit",
        extra_template_basedirs=[str(TEMPLATES)],
    )
    page = {
        "facts": facts,
        "title": notebook_title(content.cells, facts.file_name),
        "style": style(),
        "toc": _TOC_MARK,
        "note": plain_text(facts.failure.traceback) if facts.failure else "",
    }
    text, _ = exporter.from_notebook_node(content, resources={"perfkit": page})
    return str(text)


def _mark_cells(content: Any, failure: Failure | None) -> None:
    """Gives each cell its number, its heading and its state, for the template."""
    title = ""
    failed_at = failure.cell_index if failure is not None else None
    for position, cell in enumerate(content.cells):
        if cell.cell_type == "markdown" and (headings := _HEADING.findall(cell.source)):
            title = plain_heading(headings[-1])
        state = "done"
        if failed_at is not None and position >= failed_at:
            state = "failed" if position == failed_at else "skipped"
        tags = cell.metadata.get("tags", [])
        label = "Parameters of this run" if "injected-parameters" in tags else ""
        label = label or ("Parameters and their defaults" if "parameters" in tags else "Code")
        cell.metadata["perfkit"] = {
            "number": position,
            "title": title,
            "state": state,
            "label": label,
            "duration_s": cell.metadata.get("papermill", {}).get("duration"),
        }


def _trim_outputs(content: Any, file_name: str) -> None:
    """Shortens long texts, then leaves out the largest outputs until all fit."""
    outputs = [
        (cell, output)
        for cell in content.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    for _, output in outputs:
        if output.output_type == "stream":
            output.text = _shortened(output.text, file_name)
        elif "text/plain" in output.get("data", {}):
            output.data["text/plain"] = _shortened(output.data["text/plain"], file_name)
    sized = sorted(((_weight(output), output) for _, output in outputs), key=lambda pair: -pair[0])
    total = sum(weight for weight, _ in sized)
    for weight, output in sized:
        if total <= OUTPUT_BYTES_MAX:
            break
        total -= weight
        note = f"An output of {weight:,} bytes is left out here; it is in {file_name}."
        output.update(output_type="display_data", metadata={}, data={})
        for key in [key for key in output if key not in {"output_type", "metadata", "data"}]:
            del output[key]
        output.data["text/html"] = f'<p class="left-out">{html.escape(note)}</p>'


def _weight(output: Any) -> int:
    """Bytes that an output adds to a page: of its alternatives only the first is shown."""
    if output.output_type == "stream":
        return len(output.text.encode())
    if output.output_type == "error":
        return sum(len(line.encode()) for line in output.traceback)
    order = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
    shown = next((output.data[kind] for kind in order if kind in output.data), "")
    return len(str(shown).encode())


def _shortened(text: str, file_name: str) -> str:
    if len(text.encode()) <= TEXT_BYTES_MAX:
        return text
    half = TEXT_BYTES_MAX // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n… {left_out:,} characters left out; see {file_name} …\n{text[-half:]}"


def _some(addresses: list[str]) -> str:
    unique = list(dict.fromkeys(addresses))
    shown = ", ".join(unique[:3])
    return shown if len(unique) <= 3 else f"{shown} and {len(unique) - 3} more"


def _with_contents(page: str) -> str:
    """`page` with an anchor on each second- and third-level heading, and a list of them.

    nbconvert makes an anchor from a heading's words, so that two equal headings share one; here
    the later ones get a number.
    """
    found: list[tuple[str, str, str]] = []
    taken: set[str] = set()

    def anchored(match: re.Match[str]) -> str:
        level, inner = match[1], match[2]
        text = html.unescape(re.sub(r"<[^>]+>", "", inner)).strip()
        base = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        anchor = next(name for name in names if name not in taken)
        taken.add(anchor)
        found.append((level, anchor, text))
        return f'<h{level} id="{html.escape(anchor)}">{inner}</h{level}>'

    page = re.sub(r"<h([23])>(.*?)</h\1>", anchored, page, flags=re.DOTALL)
    items = "".join(
        f'<li class="level-{level}"><a href="#{html.escape(anchor)}">{html.escape(text)}</a></li>'
        for level, anchor, text in found
    )
    contents = f'<nav class="toc" aria-label="Contents"><ol>{items}</ol></nav>'
    return page.replace(_TOC_MARK, contents if len(found) > 1 else "", 1)
