"""The magics of ``%load_ext perfkit``: measure your own code from a cell.

=========================  ====================================  =================================
magic                      function, context manager             command
=========================  ====================================  =================================
``%%profile_cpu``          ``profile_cpu``                       ``perfkit profile cpu``
``%%track_memory``         ``track_memory``                      ``perfkit profile memory``
``%%latency``              ``measure_latency, track_latency``    ``perfkit profile latency``
``%%lines``                ``profile_lines, track_lines``        ``perfkit profile lines``
``%compare``               ``compare_calls, compare_turns``      ``perfkit profile compare``
``%gpu``                   ``read_cards, GpuSampler``            ``perfkit gpu``
``%cluster``               ``LocalCluster``                      ``perfkit cluster up``
=========================  ====================================  =================================

The first four measure a statement in their line as well, with a single ``%``. ``%perfkit`` shows
the same with the modules they are in. A magic returns its result, so the
notebook shows it, and keeps it in a variable. If the measured code fails, the result is shown
before its error. A cell that takes long says how far it is (`perfkit.jupyter.progress`).
"""

from __future__ import annotations

import atexit
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.display import display

from cluster.vocabulary.printable import count_of
from perfkit.evidence.showing import Showable, ShowError
from perfkit.jupyter import arguments
from perfkit.jupyter.arguments import BREAK, Parser, as_usage, leading, shown_help, words
from perfkit.jupyter.cells import Call, as_call, compiled, named
from perfkit.jupyter.forms import Forms
from perfkit.jupyter.progress import load_ipython_extension as show_progress
from perfkit.optimized.knobs import SettingError, build_spec, parse_pairs
from perfkit.profile.instrument import Instrument

if TYPE_CHECKING:
    from cluster.local import LocalCluster
    from cluster.vocabulary.status import Status
    from perfkit.bench.calls.latency import LatencyReport
    from perfkit.bench.calls.lines import LinesReport
    from perfkit.bench.calls.versus import CallComparison
    from perfkit.gpu.readings import CardReadings
    from perfkit.jupyter.live import LiveView
    from perfkit.profile.cpu import CpuProfile
    from perfkit.profile.memory import MemoryUse

Found = TypeVar("Found", bound=Showable)


@magics_class
class PerfkitMagics(Magics):
    """The magics of one shell, and its cluster."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.cluster_up: LocalCluster | None = None
        # The kernel ends by this; if it is killed, its processes see that themselves.
        atexit.register(self._down)

    @line_magic
    @shown_help
    def perfkit(self, line: str) -> Forms:
        """Show each magic with its function and its command."""
        if line.strip():
            raise UsageError("%perfkit takes nothing; each magic has a --help of its own")
        return Forms()

    @line_cell_magic
    @shown_help
    def profile_cpu(self, line: str, cell: str | None = None) -> CpuProfile | None:
        """The hot spots of a statement or a cell; see ``%profile_cpu --help``."""
        from perfkit.profile.cpu import ProfilerBusy, profile_cpu

        given, run = self._asked(arguments.profile_cpu(), line, cell)
        with as_usage(ValueError):
            instrument = profile_cpu(given.name)
        __tracebackhide__ = True
        return self._measured(instrument, run, given, ProfilerBusy)

    @line_cell_magic
    @shown_help
    def track_memory(self, line: str, cell: str | None = None) -> MemoryUse | None:
        """What a statement or a cell does to memory; see ``%track_memory --help``."""
        from perfkit.profile.memory import track_memory

        given, run = self._asked(arguments.track_memory(), line, cell)
        with as_usage(ValueError):
            instrument = track_memory(given.name, tracemalloc=given.lines)
        __tracebackhide__ = True
        return self._measured(instrument, run, given)

    @line_cell_magic
    @shown_help
    def latency(self, line: str, cell: str | None = None) -> LatencyReport:
        """Time a statement or a cell again and again; see ``%latency --help``."""
        from perfkit.bench.calls.latency import measure_latency

        given, run = self._asked(arguments.latency(), line, cell)
        __tracebackhide__ = True
        return self._keep(given, measure_latency(run, given.name, calls=given.calls))

    @line_cell_magic
    @shown_help
    def lines(self, line: str, cell: str | None = None) -> LinesReport | None:
        """Time and memory of each line of some functions; see ``%lines --help``."""
        from perfkit.bench.calls.lines import profile_lines

        head, _, statement = f" {line} ".partition(BREAK)
        given, statement = arguments.lines().parse_args(words(head)), statement.strip()
        if cell is not None and statement:
            raise UsageError(f"%%lines runs the cell below it: what is {statement!r} for?")
        functions = [named(self.shell, name) for name in given.functions]
        name = statement or (f"{given.functions[0]}()" if cell is None else f"In[{self._number}]")
        if cell is not None:
            work = compiled(self.shell, cell)
        else:
            work = as_call(self.shell, statement or given.functions[0], "after --: -- ")
        with as_usage(ValueError):
            report = profile_lines(functions, work, name, memory=not given.no_memory)
        if report.error is None:
            return self._keep(given, report)
        self._keep(given, report, shows=True)
        __tracebackhide__ = True
        raise report.error

    @line_magic
    @shown_help
    def compare(self, line: str) -> CallComparison:
        """Say whether B is faster than A, in turns; see ``%compare --help``."""
        from perfkit.bench.calls.versus import compare_calls

        given = arguments.compare().parse_args(words(line))
        a, b = (as_call(self.shell, statement) for statement in (given.a, given.b))
        __tracebackhide__ = True
        found = compare_calls(a, b, (given.a, given.b), blocks=given.blocks, block_s=given.block_s)
        return self._keep(given, found)

    @line_magic
    @shown_help
    def gpu(self, line: str) -> CardReadings:
        """Show the AMD cards of this machine now; see ``%gpu --help``."""
        from perfkit.gpu.device.discovery import DRM_ROOT
        from perfkit.gpu.readings import read_cards

        given = arguments.gpu().parse_args(words(line))
        if given.drm_root is not None and not Path(given.drm_root).is_dir():
            raise UsageError(f"%gpu: {given.drm_root} is not a folder")
        root = Path(given.drm_root or DRM_ROOT)
        return self._keep(given, read_cards(root, processes=given.processes))

    @line_magic
    @shown_help
    def cluster(self, line: str) -> Status | LiveView | None:
        """Start, show or stop this notebook's cluster; see ``%cluster --help``."""
        given = arguments.cluster().parse_args(words(line))
        if given.verb == "up":
            with as_usage(SettingError):
                self._up(given.workers, given.spec, given.knobs, given.model)
            return None
        if self.cluster_up is None:
            raise UsageError(f"%cluster {given.verb}: no cluster is up; start one: %cluster up")
        if given.verb == "status":
            with as_usage():
                return self.cluster_up.status()
        if given.verb == "top":
            from perfkit.jupyter.live import live

            with as_usage():
                return live(self.cluster_up)
        self._down()
        print("The cluster is down.")
        return None

    def _up(self, workers: int, spec: str, knobs: list[str], models: list[str]) -> None:
        from cluster.local import LocalCluster

        chosen = build_spec(spec, parse_pairs(knobs, "--set"))
        # The one before goes on until it has a successor.
        cluster = LocalCluster(workers, chosen, models=models).start()
        if self.cluster_up is not None:
            self._down()
            print("The cluster before is down.")
        self.cluster_up = cluster
        self.shell.push({"cluster": cluster, "client": cluster.client()})
        count = count_of(workers, "worker")
        print(
            f"A cluster is up: {count}, spec {chosen.name}, at {cluster.endpoint}. "
            "`cluster` and `client` are yours; %cluster down or the end of the kernel stops it."
        )

    def _down(self) -> None:
        found, self.cluster_up = self.cluster_up, None
        if found is None:
            return
        if self.shell.user_ns.get("cluster") is found:
            self.shell.del_var("cluster")
            self.shell.user_ns.pop("client", None)
        found.stop()

    def _asked(self, parser: Parser, line: str, cell: str | None) -> tuple[Namespace, Call]:
        """The options, with a name, and what to run: the statement in the line, or the cell, whose
        value is shown unless it ends with a semicolon.
        """
        if cell is not None:
            given = parser.parse_args(words(line))
            given.name = given.name or f"In[{self._number}]"
            given.shows = not cell.rstrip().endswith(";")
            return given, compiled(self.shell, cell)
        given, given.name = leading(parser, line)
        given.shows = False
        if not given.name:
            raise UsageError(
                f"{parser.prog}: give it a statement or the name of a function, or write "
                f"%{parser.prog} above a cell"
            )
        return given, as_call(self.shell, given.name)

    def _measured(
        self, instrument: Instrument[Found], run: Call, given: Namespace, *busy: type[Exception]
    ) -> Found | None:
        """Run under the instrument; its result is shown first if that fails."""
        __tracebackhide__ = True
        entered, value = False, None
        try:
            with instrument:
                entered = True
                value = run()
        except BaseException as error:
            if isinstance(error, busy) and not entered:
                raise UsageError(str(error)) from None
            if instrument.result is not None:
                self._keep(given, instrument.result, shows=True)
            raise
        if given.shows:
            self.shell.displayhook(value)
        if instrument.result is None:
            print("Not measured: PERFKIT_PROFILE has switched the instruments off.")
            return None
        return self._keep(given, instrument.result)

    def _keep(self, given: Namespace, result: Found, *, shows: bool = False) -> Found:
        """Keep a result under its name, and save it as asked; `shows` it beside another error."""
        self.shell.push({given.kept: result})
        if shows:
            display(result)
        if given.save is None:
            return result
        try:
            print(f"saved: {result.save(given.save)}")
        except ShowError as error:
            refused = f"{error} The result is kept: {given.kept}.save(…)"
            if not shows:
                display(result)
                raise UsageError(refused) from None
            print(refused)
        return result

    @property
    def _number(self) -> int:
        return int(self.shell.execution_count)


def load(shell: InteractiveShell) -> None:
    """Give a shell the magics, and progress; again is no error, and its cluster stays."""
    show_progress(shell)
    if not isinstance(shell.magics_manager.registry.get("PerfkitMagics"), PerfkitMagics):
        shell.register_magics(PerfkitMagics)


#: So that this module is an extension too: a kernel may load it unnoticed.
load_ipython_extension = load
