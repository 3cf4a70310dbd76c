"""The parts of a performance report's page, each a title and the HTML of tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.vocabulary.printable import count_of
from perfkit.evidence.samples import bootstrap_interval
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import html_list, html_table
from perfkit.evidence.text import estimate, percent, quantity, size
from perfkit.gpu.readings import samples_sheet
from perfkit.gpu.sampler import GROUPS, GpuSampler
from perfkit.report.figures.charts import Bar, Figure, latency_distribution, waterfall
from perfkit.report.figures.panels import Panel, panels
from perfkit.report.page.pieces import in_line, labelled
from perfkit.report.session.findings import ROLES, Findings
from perfkit.report.session.timeline import Step

if TYPE_CHECKING:
    from perfkit.profile.cpu import CpuProfile

#: Rows of a table; a page has a size limit.
ROWS_MAX = 40
MESSAGE_MAX = 300
#: The panels of a card: what, unit, factor, field of the group that is read most often.
GPU_PANELS = (
    ("busy", "%", 1.0, "gpu_busy_pct"),
    ("VRAM", "MiB", 2.0**-20, "vram_used_bytes"),
    ("power", "W", 1.0, "power_w"),
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; `body` is HTML of this project's own tables and pictures."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """The name of its place in the page."""
        return self.title.lower().replace(" ", "-")


def sections(
    found: Findings, began_s: float, gpu: GpuSampler, profile: CpuProfile | None
) -> list[Section]:
    """Every part that has something to say, in the order in which they are read."""
    if not found.ran:
        parts = [("GPU", _gpu(gpu, began_s))]
    else:
        parts = [
            ("Figures", [figures_sheet(found).html]),
            ("Over time", [_html(timeline(found, began_s))]),
            ("Bottlenecks", [found.limits_sheet().html, *_profile(profile)]),
            ("Latency", _latency(found)),
            ("Stages of a task", _stages(found)),
            ("Errors", _errors(found)),
            ("Workers", [_workers(found)]),
            ("Processes", [_processes(found)]),
            ("GPU", _gpu(gpu, began_s)),
            ("Counters", [_counters(found)]),
        ]
    return [Section(title, labelled("".join(body))) for title, body in parts if body]


def figures_sheet(found: Findings) -> Sheet:
    """The main figures with their intervals as a table."""
    own, latency = found.own, found.latency_ms
    waiting = [n for step in found.steps if (n := step.after.waiting) is not None]
    rows = [
        ("tasks done, of all clients", quantity(found.done)),
        ("handed in by this process", quantity(own.sent.total())),
        ("of these without an outcome at the end", quantity(own.unended)),
        ("throughput while there was work", estimate(found.throughput, "tasks/s")),
        *((f"latency p{q}", estimate(it, "ms")) for q, it in latency.items()),
        ("tasks waiting, median", estimate(found.depth(lambda look: look.waiting))),
        ("tasks waiting, highest seen", quantity(max(waiting, default=None))),
        ("tasks with workers, median", estimate(found.depth(lambda look: look.assigned))),
        *((f"processor time per task, {role}", estimate(found.cpu_us_per_task(role), "µs"))
          for role in ROLES),
    ]  # fmt: skip
    notes = [
        "95 % intervals. Latency is from the moment a client of this process sent a task until it "
        "had the outcome, so it includes the time in the queue; tasks of other clients have none "
        "here."
    ]
    return Sheet("", ("figure", "measured"), rows, notes)


def timeline(found: Findings, began_s: float) -> Figure:
    """Throughput, queue, processor time and memory over the seconds of the block."""

    def line(value: Callable[[Step], float | None]) -> list[tuple[float, float | None]]:
        return [(step.after.at_s - began_s, value(step)) for step in found.steps]

    def held(role: str) -> Callable[[Step], float | None]:
        return lambda s: s.after.roles[role][2] / 2**20 if role in s.after.roles else None

    roles = [role for role in ROLES if any(role in step.after.roles for step in found.steps)]
    rows = [
        Panel("throughput", "tasks/s", {"done": line(lambda s: _per_s(s.rise("done"), s))}),
        Panel("tasks", "count", {"waiting": line(lambda s: s.after.waiting),
                                 "with workers": line(lambda s: s.after.assigned)}),
        Panel("processor", "cores", {role: line(lambda s, r=role: s.cores(r)) for role in roles}),  # type: ignore[misc]
        Panel("memory", "MiB RSS", {role: line(held(role)) for role in roles}),
    ]  # fmt: skip
    caption = (
        f"{count_of(len(found.steps) + 1, 'look')} at the cluster; a gap is a look without "
        "an answer."
    )
    return panels(rows, title="the block", caption=caption)


def _per_s(count: int | None, step: Step) -> float | None:
    return None if count is None else count / step.seconds


def _latency(found: Findings) -> list[str]:
    if not found.own.slices:
        return [_say("No task of this process had its outcome here, so no latency is known.")]
    caption = (
        f"From sending a task to its outcome, from {quantity(len(found.own.slices))} of "
        f"{count_of(found.own.heard, 'message')} with outcomes."
    )
    latencies = [1e3 * latency_s for latency_s in found.own.latencies_s()]
    return [_html(latency_distribution(latencies, caption=caption))]


def _stages(found: Findings) -> list[str]:
    trace, most = found.trace, max(found.own.traced, default=1)
    if not trace.traces:
        why = ", ".join(f"{count} {reason}" for reason, count in trace.left_out.items())
        return [_say(f"No trace is complete{f' ({why})' if why else ''}.")]
    bars = [Bar.of(stage.stage, stage.p50_ms) for stage in trace.stages]
    together = (
        ""
        if most == 1
        else f" Up to {quantity(most)} tasks travelled in one message; service is then all theirs."
    )
    caption = f"Medians of {count_of(trace.traces, 'trace')} of this process's own tasks.{together}"
    return [_html(waterfall(bars, "ms", caption=caption)), _html(trace)]


def _errors(found: Findings) -> list[str]:
    own = found.own
    if not own.errors:
        return []
    rows = [
        (kind, error, quantity(tasks), own.messages[kind, error][:MESSAGE_MAX])
        for (kind, error), tasks in own.errors.most_common(ROWS_MAX)
    ]
    header = ("kind", "error", "tasks", "one of its messages")
    return [html_table("Errors of this process's own tasks", header, rows)]


def _workers(found: Findings) -> str:
    end_s = found.whole.after.at_s
    rows, notes = [], []
    for one in sorted(found.workers, key=lambda one: (-one.finished, one.worker))[:ROWS_MAX]:
        busy = bootstrap_interval([1.0] * one.occupied + [0.0] * (one.looks - one.occupied), "mean")
        rows.append(
            (
                one.worker,
                f"{one.host}, {one.pid}",
                quantity(one.finished),
                percent(busy),
                _ms(one.service_s_p50),
                _ms(one.service_s_p99),
                "gone" if one.last_s < end_s else "",
            )
        )
    if len(found.workers) > ROWS_MAX:
        notes.append(f"{len(found.workers) - ROWS_MAX} more are left out.")
    notes.append(
        "Held work: the share of the looks with work in which it held a task. Service is the "
        "coordinator's figure for its newest tasks, within 6 %."
    )
    header = ("worker", "host, process", "tasks", "held work", "service p50", "service p99", "then")
    return html_table("Every worker process that was seen", header, rows, notes)


def _ms(seconds: float | None) -> str:
    return quantity(seconds, "ms", 1e3)


def _processes(found: Findings) -> str:
    rows = []
    for role in ROLES:
        held = [step.after.roles[role] for step in found.steps if role in step.after.roles]
        count = str(held[-1][0]) if held else "none on this machine"
        most = size(max((rss for _, _, rss in held), default=None))
        last = size(held[-1][2] if held else None)
        rows.append((role, count, estimate(found.cores_of(role), "cores"), most, last))
    header = ("role", "processes", "processor while there was work", "most RSS", "last RSS")
    notes = ["RSS counts shared pages once for each process."]
    return html_table("", header, rows, notes)


def _gpu(gpu: GpuSampler, began_s: float) -> list[str]:
    cards = {key: gpu.rows(key, "activity") for key in gpu.tracks}
    if not cards:
        return [_say("No AMD card was found on this machine, so none was watched.")]
    rows = [
        Panel(
            name,
            unit,
            {
                key: [(row.monotonic_s - began_s, _scaled(row.values, field, factor))
                      for row in samples]
                for key, samples in cards.items()
            },
        )
        for name, unit, factor, field in GPU_PANELS
    ]  # fmt: skip
    return [_html(panels(rows, title="cards")), samples_sheet(gpu.samples()).html]


def _scaled(values: Sequence[Any], field: str, factor: float) -> float | None:
    value = values[GROUPS["activity"].index(field)]
    return None if value is None else value * factor


def _counters(found: Findings) -> str:
    rows = [(name.replace("_", " "), quantity(rise)) for name, rise in found.counts.items()
            if rise != 0]  # fmt: skip
    caption = "What the coordinator counted, of all clients"
    return html_table(caption, ("counter", "rose by"), rows)


def _profile(profile: CpuProfile | None) -> Iterator[str]:
    if profile is not None:
        yield profile._repr_html_()


def _html(shown: Showable | Figure) -> str:
    return in_line(shown._repr_html_())


def _say(*sentences: str) -> str:
    return html_list(sentences)
