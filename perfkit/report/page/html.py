"""Turns an executed notebook into one page that needs nothing but itself.

nbconvert's own pages load scripts and fonts from other hosts. Here nbconvert makes the cells, their
HTML is made harmless, and the project's template makes the page: narrative first, code folded away,
an error on top, no script at all. A page has a size limit, so one endless log does not make a
report unreadable: an output that is too large is replaced by a note that says where it is.
"""

from __future__ import annotations

import copy
import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.evidence.text import duration, measured, quantity, size
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine import headlines
from perfkit.report.engine.headlines import Headline
from perfkit.report.engine.notebook import INJECTED, headings, shortened, tags
from perfkit.report.engine.plan import Plan
from perfkit.report.engine.result import NotebookRun
from perfkit.report.page.pieces import Thumbnail, in_line, labelled, thumbnail
from perfkit.report.page.selfcontained import harmless

if TYPE_CHECKING:
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "template"
#: Filters for templates, nbconvert's among them.
FILTERS = {"quantity": quantity, "duration": duration}
PLAN_WORDS = (
    "“The plan” is the document that this project began with. Its figures are quoted as claims: "
    "they were written for a platform that never ran, and nobody had measured them."
)
#: The size limit of a page, and how much of it outputs may use.
PAGE_BYTES_MAX = 400_000
OUTPUT_BYTES_MAX = 300_000
#: A longer text output shows its beginning and its end.
TEXT_MAX = 16_000
#: Of an output's alternatives the first of these is shown.
_DISPLAYED = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg",
              "text/plain")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page, its problems, one sentence each, and its first picture."""

    text: str
    problems: tuple[str, ...]
    thumbnail: Thumbnail | None


def render_notebook(
    executed: NotebookNode,
    run: NotebookRun,
    plan: Plan,
    found: Sequence[Headline] = (),
    warnings: Sequence[str] = (),
) -> Page:
    """The page of an executed notebook, which opens with the verdict of what it `found`.

    `warnings` say what disturbed the run, a sentence each.

    What would load something from another host is taken out of the page and named in `problems`,
    which also says when the page weighs more than PAGE_BYTES_MAX though its outputs were trimmed.
    """
    content = copy.deepcopy(executed)
    _trim_outputs(content, run.notebook)
    _mark_cells(content, run.failure.cell_index if run.failure is not None else None)
    exported, external = _export(content)
    cells, contents = _with_anchors(labelled(exported))
    text = render(
        "notebook.html.j2",
        kind="notebook",
        title=run.title,
        run=run,
        plan=plan,
        verdict=("Not complete. " if run.failure else "") + headlines.sentence(found),
        tone="missed" if run.failure else tone(found),
        warnings=warnings,
        words=words_used(cells),
        contents=contents,
        cells=cells,
    )
    problems: list[str] = []
    if external:
        more = f" and {len(external) - 3} more" if len(external) > 3 else ""
        problems.append(
            "the page loaded from other hosts, and what loads was taken out: "
            f"{', '.join(external[:3])}{more}; embed what it needs or show it as text"
        )
    weight = len(text.encode())
    if weight > PAGE_BYTES_MAX:
        problems.append(
            f"the page weighs {size(weight)}, more than {size(PAGE_BYTES_MAX)}: "
            "shorten the notebook's text or its attachments"
        )
    return Page(text, tuple(problems), thumbnail(executed))


def tone(found: Sequence[Headline]) -> str:
    """The verdict that a page's head is coloured by, the worst of its goals; "" without any."""
    verdicts = {headline.verdict for headline in found if not headline.compares}
    worst_first = (Verdict.REGRESSION, Verdict.MISSED, Verdict.INCONCLUSIVE, Verdict.MET)
    return next((str(verdict) for verdict in worst_first if verdict in verdicts), "")


def words_used(page: str) -> str:
    """What "the plan" and "claimed" mean, for a page that uses them and does not say so itself."""
    uses = re.search(r"\b(the plan|claim(s|ed)?)\b", page, re.IGNORECASE)
    return PLAN_WORDS if uses and "never ran" not in page else ""


def _export(content: NotebookNode) -> tuple[str, list[str]]:
    """The cells of a notebook as harmless HTML, and the addresses that they would have loaded."""
    exporter, external = _exporter()
    external.clear()
    text, _ = exporter.from_notebook_node(content)
    return str(text), list(dict.fromkeys(external))


@cache
def _exporter() -> tuple[HTMLExporter, list[str]]:
    """The exporter, which compiles its templates once, and the addresses that it took out."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    external: list[str] = []

    def cleaned(text: str) -> str:
        found = harmless(in_line(text))
        external.extend(found.external)
        return found.text

    config = Config()
    config.HTMLExporter.exclude_anchor_links = True
    config.HTMLExporter.exclude_input_prompt = True
    config.HTMLExporter.exclude_output_prompt = True
    config.NbConvertBase.display_data_priority = list(_DISPLAYED)
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        config=config,
        template_name="perfkit",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={**FILTERS, "harmless": cleaned},
    )
    return exporter, external


def _mark_cells(content: NotebookNode, failed_at: int | None) -> None:
    """Gives each cell its number, its heading and its state, for the template."""
    title = ""
    for position, cell in enumerate(content.cells):
        if cell.cell_type == "markdown" and (found := headings(cell.source)):
            title = found[-1]
        state = "done"
        if failed_at is not None and position >= failed_at:
            state = "failed" if position == failed_at else "skipped"
        label = "Parameters and their defaults" if "parameters" in tags(cell) else "Code"
        cell.metadata["perfkit"] = {
            "number": position,
            "title": title,
            "state": state,
            "label": "Parameters of this run" if INJECTED in tags(cell) else label,
            "duration_s": cell.metadata.get("papermill", {}).get("duration"),
        }


def _trim_outputs(content: NotebookNode, file_name: str) -> None:
    """Shortens long texts, then leaves out the largest outputs until all fit."""
    hint = f"; see {file_name}"
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.output_type == "stream":
            output.text = shortened(output.text, TEXT_MAX, hint)
        elif "text/plain" in output.get("data", {}):
            output.data["text/plain"] = shortened(output.data["text/plain"], TEXT_MAX, hint)
    total = sum(map(_weight, outputs))
    for output in sorted(outputs, key=_weight, reverse=True):
        if total <= OUTPUT_BYTES_MAX:
            break
        weight = _weight(output)
        total -= weight
        note = f"An output of {size(weight)} is left out here; it is in {file_name}."
        output.clear()
        shown = {"text/html": f'<p class="left-out">{html.escape(note)}</p>'}
        output.update(output_type="display_data", metadata={}, data=shown)


def _weight(output: Any) -> int:
    """Bytes that an output adds to a page."""
    if output.output_type == "stream":
        return len(output.text.encode())
    if output.output_type == "error":
        return sum(len(line.encode()) for line in output.traceback)
    shown = next((output.data[kind] for kind in _DISPLAYED if kind in output.data), "")
    return len(str(shown).encode())


def _with_anchors(cells: str) -> tuple[str, list[tuple[str, str, str]]]:
    """`cells` with an anchor on each second- and third-level heading, and the contents.

    An entry of the contents is (level, anchor, text).

    nbconvert makes an anchor from a heading's words, so two equal headings would share one; here
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

    return re.sub(r"<h([23])>(.*?)</h\1>", anchored, cells, flags=re.DOTALL), found


def without_private_paths(text: str) -> str:
    """`text` with paths below the working folder made relative, and `~` for the reader's home."""
    for folder, shown in ((Path.cwd(), ""), (Path.home(), "~/")):
        if folder != Path(folder.anchor):
            text = text.replace(f"{folder}/", shown)
    return text


def render(template: str, **facts: object) -> str:
    """The page that `template` (a file name) makes of `facts`.

    Every text is escaped, and paths say nothing about the person who ran it.
    """
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters.update(FILTERS)
    templates.globals.update(measured=measured)
    return without_private_paths(str(templates.get_template(template).render(**facts)))
