"""`performance_report`: what happened to the user's own work, on one page that opens offline."""

from __future__ import annotations

import ast
import linecache
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import quote

from cluster.shells.client import Client
from cluster.shells.refusals import WATCHERS
from perfkit.evidence.painting import Picture
from perfkit.evidence.results import Recording, Result, ResultError, write
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import duration
from perfkit.gpu.sampler import GpuSampler
from perfkit.report.engine.notebook import shortened
from perfkit.report.engine.outcome import ReportError
from perfkit.report.session.findings import ROLES, Findings
from perfkit.report.session.own_tasks import OwnTasks
from perfkit.report.session.target import Processes, Source, find_target
from perfkit.report.session.timeline import Timeline

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.cpu import CpuProfile

CODE_MAX, TRACEBACK_MAX = 4_000, 16_000
NEEDS = ("matplotlib", "jinja2", "nbconvert")


@dataclass(frozen=True, slots=True)
class Failure:
    """The exception that ended the block."""

    name: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException | None) -> Failure | None:
        """The exception in words; None without one."""
        if error is None:
            return None
        told = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), shortened(told, TRACEBACK_MAX))


class performance_report(Showable):  # noqa: N801 -- a context manager, named as those are
    """Writes a page about what a cluster did while a `with` block was open, even if it raised.

    `cluster` is a LocalCluster, a Client or an endpoint; it may be left out if this process has
    exactly one open. `path` is written whole at the end, and replaced if it exists; what keeps it
    from being written is a ReportError before the block begins. With `cprofile` the calls of this
    thread are profiled too, which slows them down.

    It looks at the cluster four times a second and hears of each message that this process's
    clients send and get. After the block `result` has the figures, `to_frame()` the looks.
    """

    _recording: ClassVar[set[Path]] = set()

    def __init__(
        self, path: str | os.PathLike[str], cluster: Source = None, *, cprofile: bool = False
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ReportError(
                f"a performance report goes to a file, such as 'run.html', not to {path!r:.100}"
            )
        self.path = Path(path).absolute()
        self._source = cluster
        self._cprofile = cprofile
        self._found: Findings | None = None
        self._result: Result | None = None
        self._text = ""
        self._began_s = 0.0
        self._open: ExitStack | None = None

    @property
    def result(self) -> Result:
        """The figures: throughput with its interval, counters, latency, and series over time.

        Raises ReportError until the block has ended.
        """
        if self._result is None:
            raise ReportError("the block of this performance report has not ended")
        return self._result

    def to_frame(self) -> pd.DataFrame:
        """A row for each look: tasks waiting and with workers, throughput, cores and memory."""
        series = self.result.series
        rows = zip(*series.values(), strict=True)
        return data_frame([dict(zip(series, row, strict=True)) for row in rows], list(series))

    def encode(self) -> str:
        """The result as JSON."""
        return self.result.encode()

    def plot(self) -> Picture:
        """Throughput, queue, processor time and memory over time."""
        from perfkit.report.session.sections import timeline

        return timeline(self._ended, self._began_s)

    def __enter__(self) -> Self:
        if self._open is not None:
            raise ReportError("this performance report is open already; make another one")
        for package in NEEDS:
            if find_spec(package) is None:
                raise ReportError(
                    f"a performance report needs {package}: pip install 'perfkit[lab]'"
                )
        check_writable(self.path)
        if self.path in self._recording:
            raise ReportError(f"{self.path} is being recorded by another performance report")
        self._code = code_of(sys._getframe(1))
        with ExitStack() as stack:
            self._start(stack)
            self._open = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        """Begin every part of the recording; the stack ends them in turn."""
        self._found = self._result = None
        target = find_target(self._source)
        self._recorded = Recording()
        client = stack.enter_context(Client(target.endpoint, spec=target.spec))
        self._spec = client.spec
        self._own = OwnTasks(target.endpoint)
        self._gpu = GpuSampler()
        # The last look counts what was handed in at the very end, so that has to be heard of.
        WATCHERS.append(self._own)
        stack.callback(WATCHERS.remove, self._own)
        self._timeline = Timeline(client, Processes(target.endpoint))
        self._timeline.start()
        stack.callback(self._timeline.stop)
        if self._gpu.tracks:
            stack.enter_context(self._gpu)
        self._recording.add(self.path)
        stack.callback(self._recording.discard, self.path)
        if self._cprofile:
            from perfkit.profile.cpu import profile_cpu

            self._profiler = stack.enter_context(profile_cpu(name="of the block"))
        self._began_s = time.monotonic()

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        wall_s = time.monotonic() - self._began_s
        assert self._open is not None
        ending, self._open = self._open, None
        try:
            ending.close()
            self._add_up(wall_s)
            self._write(error)
        except Exception as problem:
            if error is None:
                raise
            error.add_note(f"Its performance report was not written: {problem}")

    @property
    def _ended(self) -> Findings:
        _ = self.result
        assert self._found is not None
        return self._found

    @property
    def _profiled(self) -> CpuProfile | None:
        return self._profiler.result if self._cprofile else None

    def _add_up(self, wall_s: float) -> None:
        lines = self._timeline
        cores = self._recorded.environment.cores_available
        found = Findings(
            wall_s, tuple(lines.steps), self._own, tuple(lines.workers.values()), cores
        )
        self._found = found
        steps, own = found.steps, self._own
        counters: dict[str, float | int | None] = dict(found.counts)
        counters |= {"own_tasks": own.sent.total(), "own_done": own.done.total()}
        counters |= {"own_failed": own.failed, "traces": found.trace.traces}
        for q, latency in found.latency_ms.items():
            counters |= latency.columns(f"latency_ms_p{q}")
        series: dict[str, list[float | None]] = {
            "at_s": [step.after.at_s - self._began_s for step in steps],
            "waiting": [step.after.waiting for step in steps],
            "assigned": [step.after.assigned for step in steps],
            "done": [step.rise("done") for step in steps],
        }
        for role in ROLES:
            name = role.replace(" ", "_")
            series[f"{name}_cores"] = [step.cores(role) for step in steps]
            held = [step.after.roles.get(role) for step in steps]
            series[f"{name}_rss_bytes"] = [None if it is None else it[2] for it in held]
        rates = [step.rise("done") for step in found.active]
        self._result = self._recorded.result(
            "session",
            self._spec,
            found.throughput,
            "tasks/s",
            [done / found.worked_s(step) for done, step in zip(rates, found.active, strict=True)
             if done is not None],
            workers=found.whole.after.workers,
            tasks=found.done,
            parameters={"kinds": sorted(own.sent), "verdict": found.sentence},
            counters=counters,
            series=series,
        )  # fmt: skip

    def _write(self, error: BaseException | None) -> None:
        self._text = self._page_about(error)
        try:
            write(self._text, self.path)
        except ResultError as problem:
            raise ReportError(f"the report is lost: {problem}") from None

    def _page_about(self, error: BaseException | None) -> str:
        import msgspec

        from perfkit.report.page.html import render
        from perfkit.report.page.index import machine_facts
        from perfkit.report.session.sections import sections

        found, environment = self._ended, self._recorded.environment
        busy = found.disturbance.words(found.cores) if found.wall_s > 1 else ""
        missing = self._timeline.processes.no_coordinator
        warnings = [environment.busy_words, busy, missing]
        packages = ", ".join(f"{name} {it}" for name, it in environment.packages.items() if it)
        started = (self.result.started_utc or "")[:16].replace("T", " ")
        failure = Failure.of(error)
        return render(
            "session.html.j2",
            kind="session",
            title=self.path.stem,
            plan=None,
            verdict=(f"Stopped by {failure.name}. " if failure else "") + found.sentence,
            tone="missed" if failure else "inconclusive" * ("inconclusive" in found.sentence),
            kicker=f"perfkit performance report, {started} UTC, {duration(found.wall_s)}, "
            f"cluster {self._own.endpoint} of spec {self._spec.name}",
            warnings=[warning for warning in warnings if warning],
            failure=failure,
            sections=sections(found, self._began_s, self._gpu, self._profiled),
            code=self._code,
            machine=[*machine_facts(msgspec.to_builtins(environment)), ("Packages", packages)],
        )

    def _page(self) -> str:
        _ = self.result
        return self._text or super()._page()

    def _sheets(self) -> Iterator[Sheet]:
        from perfkit.report.session.sections import figures_sheet

        if self._result is None:
            yield Sheet(f"performance_report {self.path.name}, {'open' if self._open else 'new'}")
            return
        found = self._ended
        yield Sheet(found.sentence)
        if found.ran:
            yield from (figures_sheet(found), found.limits_sheet())

    def __str__(self) -> str:
        return f"{super().__str__()}\n\n{self.path}"

    def _repr_html_(self) -> str:
        if self._result is None:
            return super()._repr_html_()
        shown = Path(os.path.relpath(self.path)).as_posix()
        link = f'<p><a href="{escape(quote(shown))}">{escape(shown)}</a></p>'
        return super()._repr_html_() + link


def check_writable(path: Path) -> None:
    """Raise ReportError unless a file can be written at `path`."""
    try:
        if path.is_dir():
            raise ReportError(f"{path} is a folder; name a file in it, such as {path / 'run.html'}")
        if not path.parent.is_dir():
            raise ReportError(f"there is no folder {path.parent}; make it first")
        if path.suffix.lower() not in (".html", ".htm"):
            raise ReportError(f"{path.name} has to end in .html: a performance report is a page")
        with tempfile.TemporaryFile(dir=path.parent):
            path.exists()
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} can't be written: {getattr(error, 'strerror', error)}") from None


def code_of(frame: FrameType | None) -> str:
    """The `with` statement that a frame executes, or all of its code's source; "" if unknown."""
    while frame is not None and frame.f_globals.get("__name__") == "contextlib":
        frame = frame.f_back
    if frame is None:
        return ""
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    first, last = 1, len(lines)
    try:
        nodes = [node for node in ast.walk(ast.parse("".join(lines)))
                 if isinstance(node, ast.With | ast.AsyncWith)
                 and node.lineno <= frame.f_lineno <= (node.end_lineno or 0)]  # fmt: skip
        first, last = nodes[-1].lineno, nodes[-1].end_lineno or last
    except (SyntaxError, IndexError):
        pass
    return shortened("".join(lines[first - 1 : last]).rstrip(), CODE_MAX)
