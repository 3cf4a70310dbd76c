"""A board as HTML with pictures: no script, no reference to another host, any theme.

Colours are JupyterLab's where there are any, else those of the page around. Where there is no room
for columns, each row becomes a block with the name of a column on each value.

Of an untrusted notebook JupyterLab drops `<style>` and `<svg>`, with what is inside, and keeps an
`<img>` with its `src`, `alt`, `width` and `height` (`Sanitizer` in @jupyterlab/apputils). So a
curve is an image, in colours that any theme can do with; bars are lost there, not their figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from cluster.vocabulary.printable import printable
from perfkit.evidence.text import quantity
from perfkit.profile.activity.board import CARD_COLUMNS, Board, Curve, Gauge, Line
from perfkit.profile.activity.sparklines import Series, round_up
from perfkit.report.figures.charts import address

WIDTH, HEIGHT = 300, 48
PICTURE = f"""\
<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 -2 {WIDTH} {HEIGHT + 4}' \
preserveAspectRatio='none'><g fill='none' stroke='#2f7fd0' stroke-width='1.5' \
stroke-linecap='round' stroke-linejoin='round'>\
<path vector-effect='non-scaling-stroke' stroke='#8888' stroke-width='1' d='M0 {HEIGHT}H{WIDTH}'/>\
<path vector-effect='non-scaling-stroke' d='%s'/></g></svg>"""
#: Columns that break lines.
WORDS = ("runs on", "serves")
#: Narrower than this, rows become blocks.
NARROW_PX, NARROW_WITH_CARDS_PX = 560, 900
STYLE = """
.pk-live{container-type:inline-size;font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);
color:var(--jp-ui-font-color1,inherit);max-width:1100px}
.pk-live p{margin:.3em 0}.pk-live small{opacity:.7}.pk-live b{font-weight:600}
.pk-live .state{display:inline-block;padding:0 .5em;border-radius:9px;border:1px solid currentColor;
color:var(--jp-warn-color1,#b26a00)}
.pk-live .state.fresh{color:var(--jp-success-color1,#388e3c)}
.pk-live .curves{display:flex;flex-wrap:wrap;gap:.4em 1.6em}
.pk-live .curves>div{flex:1 1 220px;min-width:0}
.pk-live .curve{display:block;width:100%;height:48px;margin:0}
.pk-live .ends{display:flex;justify-content:space-between}
.pk-live table{border-collapse:collapse;width:100%;margin:.4em 0;font-size:12px;border:0;
table-layout:auto}
.pk-live td,.pk-live th{padding:.15em .5em;text-align:right;white-space:nowrap;border:0;
font-variant-numeric:tabular-nums;max-width:none;vertical-align:top;background:none}
.pk-live th{font-weight:600}
.pk-live th:first-child,.pk-live .words{text-align:left!important}
.pk-live tr{background:none!important;border-top:1px solid var(--jp-border-color2,#8884)}
.pk-live tr.d1>th,.pk-live tr.d2>th{font-weight:400}
.pk-live tr.d1>th{padding-left:1.2em}.pk-live tr.d2>th{padding-left:2.6em;opacity:.85}
.pk-live tr.bad>th,.pk-live li{color:var(--jp-error-color1,#d32f2f)}
.pk-live .words{white-space:normal;overflow-wrap:anywhere;min-width:6em}
.pk-live i{display:block;height:3px;border-radius:2px;background:var(--jp-border-color2,#8884)}
.pk-live i>i{background:var(--jp-brand-color1,#2f7fd0)}
.pk-live ul{margin:.3em 0;padding-left:1.2em}
"""
BLOCKS = """
@container(max-width:%dpx){.pk-live tr.head{display:none}
.pk-live tr{display:flex;flex-wrap:wrap;gap:0 .9em;padding:.25em 0}
.pk-live tr>th,.pk-live tr.d1>th,.pk-live tr.d2>th{flex:1 0 100%%;padding-right:0;
box-sizing:border-box;text-align:left;white-space:normal;overflow-wrap:anywhere}
.pk-live td{padding:0 0 0 1.2em;text-align:left!important;white-space:normal}
.pk-live td:empty{display:none}.pk-live td::before{content:attr(data-column)" ";opacity:.65}}
"""


def as_html(board: Board) -> str:
    """The board as a fragment that fits any page from 300 px on."""
    cards = any(name in CARD_COLUMNS for name in board.columns)
    style = STYLE + BLOCKS % (NARROW_WITH_CARDS_PX if cards else NARROW_PX)
    fresh = " fresh" if board.is_fresh else ""
    facts = " · ".join(f"{_text(name)} <b>{_text(text)}</b>" for name, text in board.facts)
    curves = "".join(_curve(curve, board) for curve in board.curves)
    remarks = "".join(f"<li>{_text(remark)}</li>" for remark in board.remarks)
    return "".join(
        (
            f'<div class="pk-live"><style>{style}</style>',
            f"<p><b>Cluster</b> {_text(board.title)} "
            f'<span class="state{fresh}">{_text(board.state)}</span></p>',
            f'<div class="curves">{curves}</div>' if curves else "",
            f"<p>{facts}</p>" if facts else "",
            _table(board),
            f"<ul>{remarks}</ul>" if remarks else "",
            "</div>",
        )
    )


def _text(text: str) -> str:
    """Text from elsewhere: it neither becomes markup nor turns the direction of what follows."""
    return escape(printable(text))


def _curve(curve: Curve, board: Board) -> str:
    top = round_up(max((value for _, value in curve.series if value is not None), default=0.0))
    begin_s = board.now_s - board.span_s
    drawn = " ".join(_strokes(curve.series, begin_s, board.span_s, top))
    alt = f"{curve.name} over the last {board.span_s:.0f} s, now {curve.text}"
    return (
        f"<div>{_text(curve.name)} <b>{_text(curve.text)}</b> "
        f'<img class="curve" src="{address(PICTURE % drawn)}" '
        f'alt="{_text(alt)}" width="{WIDTH}" height="{HEIGHT}">'
        f' <small class="ends"><span>−{board.span_s:.0f} s</span>'
        f" <span>top {quantity(top)}</span></small></div>"
    )


def _strokes(series: Series, begin_s: float, span_s: float, top: float) -> Iterator[str]:
    """The commands of a path: a line through what is known, begun anew after each gap."""
    in_gap = True
    for at_s, value in series:
        if value is None or at_s < begin_s:
            in_gap = True
            continue
        x = WIDTH * min(1.0, (at_s - begin_s) / span_s)
        y = HEIGHT * (1 - value / top)
        # A lone point is a stroke of no length, which round caps make visible.
        yield f"{'M' if in_gap else 'L'}{x:.0f} {y:.1f}" + (f"l.1 0M{x:.0f} {y:.1f}" * in_gap)
        in_gap = False


def _table(board: Board) -> str:
    if not board.lines:
        return ""
    head = "".join(f'<th scope="col"{_class(name)}>{name}</th>' for name in board.columns)
    rows = "".join(_row(line, board.columns) for line in board.lines)
    return f'<table><tr class="head"><th scope="col">{board.heading}</th>{head}</tr>{rows}</table>'


def _row(line: Line, columns: Sequence[str]) -> str:
    cells = "".join(_cell(name, line.gauges.get(name)) for name in columns)
    bad = " bad" if line.is_bad else ""
    return f'<tr class="d{line.depth}{bad}"><th scope="row">{_text(line.name)}</th>{cells}</tr>'


def _cell(name: str, gauge: Gauge | None) -> str:
    if gauge is None:
        return "<td></td>"
    bar = ""
    if gauge.share is not None:
        bar = f'<i><i style="width:{100 * min(1.0, max(0.0, gauge.share)):.0f}%"></i></i>'
    return f'<td{_class(name)} data-column="{name}">{_text(gauge.text)}{bar}</td>'


def _class(name: str) -> str:
    return ' class="words"' if name in WORDS else ""
