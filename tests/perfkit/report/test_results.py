"""Every result that a notebook shows has HTML, a text, a DataFrame, files and a picture.

The classes are found, not listed: a new one needs an instance here.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

import perfkit
from cluster import LocalCluster
from cluster.spec import BASELINE
from perfkit.bench.calls.latency import LatencyReport, measure_latency
from perfkit.bench.calls.lines import LinesReport, profile_lines
from perfkit.bench.calls.versus import CallComparison, compare_calls
from perfkit.bench.counts.copies import CopyStep, CopyTrail
from perfkit.bench.counts.costs import Costs
from perfkit.bench.counts.lockstep import LOADS
from perfkit.bench.counts.queued import QueuedBytes, TypeUse
from perfkit.bench.experiments.ablation import IDEAS, IdeaResult
from perfkit.bench.experiments.compare import SpecComparison
from perfkit.bench.experiments.peers import PeerRow, PeerTable
from perfkit.bench.experiments.roles import RoleTable, RoleUse
from perfkit.bench.goals.pools import PoolRow, PoolTable
from perfkit.bench.goals.table import GoalRow, GoalTable
from perfkit.bench.leaks.check import Leak, LeakRow, LeakTable
from perfkit.bench.leaks.soak import SoakResult
from perfkit.bench.regression.judge import GateRow, GateTable
from perfkit.bench.tuning.advice import Advice, Checkup, Standing, ranked
from perfkit.bench.tuning.loads import THROUGHPUT
from perfkit.bench.tuning.trials import Trial
from perfkit.bench.tuning.tuned import Tuned
from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.painting import Picture
from perfkit.evidence.results import Result
from perfkit.evidence.samples import bootstrap_interval
from perfkit.evidence.showing import ResultTable, Showable
from perfkit.evidence.stats import Comparison, compare_blocks
from perfkit.evidence.verdicts import Verdict
from perfkit.gpu.device.made_up import plant
from perfkit.gpu.readings import CardReadings, read_cards
from perfkit.gpu.rocprof.tables import Kernel, KernelProfile, TopKernels
from perfkit.gpu.sampler import GpuSampler
from perfkit.jupyter.forms import Forms
from perfkit.jupyter.live import LiveView
from perfkit.profile.activity.looks import Activity
from perfkit.profile.cpu import CpuProfile, profile_cpu
from perfkit.profile.flame import Flame, Frame
from perfkit.profile.heap import HeapProfile
from perfkit.profile.instrument import Instrument
from perfkit.profile.latency import Waterfall, waterfall
from perfkit.profile.line_memory import LineMemory, line_memory
from perfkit.profile.line_times import LineTimes, line_times
from perfkit.profile.memory import AllocationLine, MemoryUse, track_memory
from perfkit.profile.system_calls import SystemCalls
from perfkit.profile.watch import MemoryFinding, MemorySeries, watch_memory
from perfkit.report.engine.scorecard import Scorecard, ScoreRow
from perfkit.report.figures.charts import Figure
from perfkit.report.page.selfcontained import find_external
from perfkit.report.session.recorder import performance_report
from perfkit.report.stories.baseline import Finding, Findings
from perfkit.report.stories.bottlenecks import Bottlenecks, bottlenecks
from perfkit.report.stories.gpu import Shown
from perfkit.report.stories.hot_paths import Ideas
from perfkit.report.stories.views import Table, Words
from tests.perfkit.statuses import status, workers_with_cards

#: Where results are; the scripts of peers run in environments of their own.
ROOMS = r"perfkit\.(evidence|profile|gpu|bench|report|jupyter)\b(?!.*\.peers\.)"
HERE = fingerprint()
THREE = bootstrap_interval([1.0, 2.0, 3.0])
VERSUS = compare_blocks([1.0] * 4, [2.0, 2.1, 2.2, 2.0], [1.0, 1.1, 1.0, 1.0], direction="lower")
RESULT = Result(
    experiment="latency", spec="baseline", engine="zmq", workers=2, tasks=3, value=2.0, unit="ms",
    low=1.0, high=3.0, samples=[1.0, 2.0, 3.0], environment=HERE,
)  # fmt: skip
LEAK = LeakRow("submit", 9, 3, THREE, THREE, THREE, 0, 0, {}, Leak.NONE, "", ())


def grow(n: int = 1_000) -> int:
    kept = [0] * n
    return len(kept)


def cpu() -> CpuProfile:
    with profile_cpu("grow") as found:
        sorted(map(grow, range(300)))
    assert found.result is not None
    return found.result


def memory() -> MemoryUse:
    with track_memory("grow", tracemalloc=True) as found:
        grow()
    assert found.result is not None
    return found.result


def series() -> MemorySeries:
    with watch_memory(interval_s=0.001) as watch:
        grow(100_000)
    return watch.series


def soak() -> SoakResult:
    slope = (THREE,) * 5
    return SoakResult(
        "baseline", 9.0, 0, False, {"submit": 9}, LEAK, *slope, 0, 0, Leak.NONE, "", HERE, ()
    )


def goals() -> GoalTable:
    row = GoalRow(
        name="hop", value=1.0, unit="ms", low=0.9, high=1.1, ratio=1.5, ratio_low=1.4,
        ratio_high=1.6, goal=2.0, met=True, goal_text="2 ms", note="", baseline=None, samples={},
    )  # fmt: skip
    return GoalTable((row,), HERE, "quick", 0, "", 1.0)


def pools() -> PoolTable:
    row = PoolRow("new", "a new one", 9, THREE, THREE, VERSUS, None, None, None, {})
    return PoolTable((row,), HERE, 4, 0, 1.0)


def ideas() -> Ideas:
    return Ideas((IdeaResult(IDEAS[0], THREE, 0.0, THREE, VERSUS),))


def card(folder: Path) -> Path:
    plant(folder)
    return folder


def scorecard() -> Scorecard:
    row = ScoreRow(
        figure="Round trip", unit="ms", better="lower", claimed="15 ms", target="5 ms", goal=5.0,
        baseline=THREE, optimized=THREE, verdict=Verdict.FASTER,
    )  # fmt: skip
    return Scorecard((row,))


def tuned() -> Tuned:
    tried = (Trial({"burst": 256}, [1.9, 2.1]), Trial({"burst": 1}, [], "no such luck"))
    facts: dict[str, Any] = {"workers": 2, "seed": 0, "sampler": "tpe", "duration_s": 9.0}
    return Tuned(
        start=BASELINE, values={"burst": 256}, workload="echo", objective=THROUGHPUT,
        space={"burst": (1, 256)}, trials=tried, comparison=VERSUS, interrupted=False,
        arms={"start": [1.0, 1.0], "tuned": [2.0, 2.1]}, environment=HERE, **facts,
    )  # fmt: skip


def checkup() -> Checkup:
    better = Advice("spec", Standing.ADVICE, "plain", "slow", "--spec optimized", gain=THREE)
    known = Advice("build", Standing.ADVICE, None, "slow", "another one", expected=1.2)
    return ranked([Advice("turbo", Standing.FINE, "on"), known, better], HERE)


def live() -> LiveView:
    view = LiveView("tcp://127.0.0.1:5577", interval_s=1.0, span_s=60.0)
    view.activity = Activity(lambda _: status(*workers_with_cards(1, 2)))
    view.activity.look()
    view.activity.look()
    return view


def session(folder: Path) -> performance_report:
    with LocalCluster(1) as local, local.client() as client:
        with performance_report(folder / "run.html", local) as found:
            assert len(list(client.map("echo", [b"x"] * 9))) == 9
        return found


KERNELS = KernelProfile((Kernel("saxpy", 0, 4_000),), (), "a.csv", "made up")
FRAMES = (Frame("run", "cluster/a.py"), Frame("turn", "perfkit/b.py"))

#: One real instance of each class; those that a test can't measure in no time are made.
INSTANCES: dict[type[Showable], Callable[[Path], Showable]] = {
    Bottlenecks: lambda _: bottlenecks([cpu(), cpu(), cpu()], tasks=300),
    CallComparison: lambda _: compare_calls(grow, grow, blocks=4, block_s=0.001),
    CardReadings: lambda folder: read_cards(card(folder)),
    Comparison: lambda _: VERSUS,
    Checkup: lambda _: checkup(),
    CopyTrail: lambda _: CopyTrail("baseline", 9, (CopyStep("client", "pack", 1),)),
    Costs: lambda _: Costs(
        {"baseline": {load: {"bytes_per_task": 9.0} for load in LOADS}},
        {"baseline": SystemCalls("x", {"read": 5})}, 5, {},
    ),
    CpuProfile: lambda _: cpu(),
    Environment: lambda _: HERE,
    Findings: lambda _: Findings((Finding("X", "1 ms", 1.0, "ms", "lower", THREE, ""),)),
    Flame: lambda _: Flame("x", ((FRAMES, 5),)),
    Forms: lambda _: Forms(),
    GateTable: lambda _: GateTable((GateRow("x", "µs", 1.0, 2.0, THREE, Verdict.SAME, ""),)),
    GoalTable: lambda _: goals(),
    GpuSampler: lambda folder: GpuSampler(card(folder)),
    HeapProfile: lambda _: HeapProfile("x", (MemoryFinding("memray", "x", "all", 1, 2, 3, 4),)),
    Ideas: lambda _: ideas(),
    KernelProfile: lambda _: KERNELS,
    LatencyReport: lambda _: measure_latency(grow, calls=50),
    LeakTable: lambda _: LeakTable((LEAK,), "baseline"),
    LineMemory: lambda _: line_memory(grow, 2_000_000),
    LineTimes: lambda _: line_times([grow], grow, "grow", 1),
    LinesReport: lambda _: profile_lines([grow], grow),
    LiveView: lambda _: live(),
    MemorySeries: lambda _: series(),
    MemoryUse: lambda _: memory(),
    PeerTable: lambda _: PeerTable((PeerRow("zmq", {"latency": RESULT}),), ("latency",)),
    PoolTable: lambda _: pools(),
    QueuedBytes: lambda _: QueuedBytes(
        "baseline", 2, 900, (AllocationLine("a.py", 1, 900, 2, 900, 2),), (TypeUse("int", 2, 56),)
    ),
    Result: lambda _: RESULT,
    RoleTable: lambda _: RoleTable((RoleUse("worker", 2, THREE),), "echo", 9, RESULT),
    Scorecard: lambda _: scorecard(),
    Shown: lambda _: Shown((Words(("A sentence.",)), KERNELS, VERSUS.plot())),
    SoakResult: lambda _: soak(),
    SpecComparison: lambda _: SpecComparison(VERSUS, {"A": [RESULT], "B": [RESULT], "C": []}),
    Table: lambda _: Table("A table", (("name", "1"),)),
    TopKernels: lambda _: KERNELS.top_kernels(),
    Tuned: lambda _: tuned(),
    Waterfall: lambda _: waterfall([[n * 0.001 for n in range(7)]] * 5),
    Words: lambda _: Words(("A sentence.",)),
    performance_report: session,
}  # fmt: skip


def classes(kind: type[Showable]) -> set[type[Showable]]:
    return {kind}.union(*map(classes, kind.__subclasses__()))


def test_every_class_of_results_is_here_and_nothing_else_has_a_form_of_its_own() -> None:
    names = [it.name for it in pkgutil.walk_packages(perfkit.__path__, "perfkit.")]
    modules = [importlib.import_module(name) for name in names if re.match(ROOMS, name)]
    found = {it for it in classes(Showable) if it.__module__.startswith("perfkit.")}
    assert found - {Showable, ResultTable} == INSTANCES.keys()
    others = {it for module in modules for it in shown_in(module)} - found
    assert others == {Figure, Instrument, Picture}


def shown_in(module: ModuleType) -> set[type]:
    there = {it for it in vars(module).values() if isinstance(it, type)}
    shown = {it for it in there if {"_repr_html_", "to_frame"} & vars(it).keys()}
    return {it for it in shown if it.__module__.startswith("perfkit.")}


@pytest.mark.parametrize("kind", INSTANCES, ids=lambda kind: kind.__name__)
def test_it_has_all_five_forms(
    kind: type[Showable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = INSTANCES[kind](tmp_path)
    html = result._repr_html_()
    assert html.startswith("<")
    assert "<script" not in html
    assert find_external(html) == []
    text = str(result)
    assert text.strip()
    assert "object at 0x" not in text
    assert "<td>" not in text
    assert repr(result) == text or kind is LiveView
    frame = result.to_frame()
    assert isinstance(frame, pd.DataFrame)
    if kind is not GpuSampler and kind is not SoakResult:
        assert len(frame) > 0
    picture = result.plot()
    assert isinstance(picture, Figure)
    assert picture.svg.startswith("<svg")
    assert picture.alt
    monkeypatch.setattr(kind, "plot", lambda _: picture)  # to draw takes longer than all the rest
    for end in (".json", ".csv", ".html", ".txt", ".svg"):
        assert result.save(tmp_path / f"it{end}").stat().st_size > 0
    json.loads((tmp_path / "it.json").read_text())
    assert (tmp_path / "it.svg").read_text() == picture.file
