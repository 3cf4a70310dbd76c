"""The gate on what a task costs in messages, bytes and allocations, and proof that it can fail.

The first tests are the gate; the others make a cluster worse on purpose and see it caught.
"""

import json
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.core.policy import LeastLoaded
from cluster.protocol.codec import Message
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.events import TasksFinished
from perfkit.bench.counts import gate
from perfkit.bench.counts.gate import (
    BASELINE_PATH,
    PYTHON,
    AllCounts,
    PythonCounts,
    complaints,
    count_afresh,
    load_baseline,
    write_baseline,
)
from perfkit.bench.counts.lockstep import LOADS
from perfkit.bench.counts.per_task import COUNTED_SPECS, CountTable, count_per_task, count_specs
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.results import ResultError
from perfkit.optimized.codec import PackedCodec
from perfkit.optimized.specs import OPTIMIZED

COMMITTED = load_baseline(Path(__file__).parents[4] / BASELINE_PATH)


@pytest.mark.parametrize("spec", COUNTED_SPECS, ids=lambda spec: spec.name)
def test_messages_and_bytes_of_a_task_are_those_of_the_baseline(spec: ClusterSpec) -> None:
    assert complaints(count_specs([spec]), {spec.name: COMMITTED.everywhere[spec.name]}) == []


@pytest.mark.skipif(
    PYTHON not in COMMITTED.by_python,
    reason=f"allocations depend on the interpreter, and Python {PYTHON} has no baseline yet; "
    "`make counts` adds one",
)
def test_allocations_of_a_task_are_those_of_the_baseline() -> None:
    pytest.importorskip("memray", reason="allocations are counted by memray, of perfkit[profile]")
    counted = count_afresh()
    assert complaints(counted.by_python[PYTHON].counts, COMMITTED.by_python[PYTHON].counts) == []
    # Neither tracing nor earlier imports change messages and bytes.
    assert complaints(counted.everywhere, COMMITTED.everywhere) == []


def test_the_baseline_holds_every_spec_and_load() -> None:
    for table in (COMMITTED.everywhere, *(of.counts for of in COMMITTED.by_python.values())):
        loads = {name: {*row} for name, row in table.items()}
        assert loads == {spec.name: {*LOADS} for spec in COUNTED_SPECS}


class OneByOne(PackedCodec):
    """Puts every message in its own frame, however many go to one peer."""

    def encode(self, messages: Sequence[Message]) -> Any:
        return [
            frames for message in messages for frames in super(OneByOne, self).encode([message])
        ]


class Wordy(PackedCodec):
    """Allocates a few superfluous objects for each payload while it decodes."""

    def events(self, frames: Any) -> Any:
        events = super().events(frames)
        self.kept = [b"%d" % len(payload) for e in events for payload in getattr(e, "payloads", ())]
        return events


class Garbling(PackedCodec):
    """Reverses the order of a worker's outcomes."""

    def events(self, frames: Any) -> Any:
        events = super().events(frames)
        for event in events:
            if isinstance(event, TasksFinished):
                event.outcomes.reverse()
        return events


class Unwilling(LeastLoaded):
    """Never chooses a worker."""

    def choose(self, needs: Any, suspect: bool) -> None:
        return None


UNWILLING = {LeastLoaded.name: Unwilling}


def worse(**knobs: Any) -> ClusterSpec:
    """The optimised spec with other knobs; parts by their names in this file."""
    return msgspec.structs.replace(OPTIMIZED, **knobs)


def part(name: str) -> str:
    return f"{__name__}:{name}"


def caught(spec: ClusterSpec, load: str) -> list[str]:
    """The gate's complaints about a load if this spec replaced the committed one."""
    counted = {spec.name: {load: count_per_task(spec, load)}}
    return complaints(counted, {spec.name: {load: COMMITTED.everywhere[spec.name][load]}})


def test_a_codec_that_sends_every_message_alone_is_caught() -> None:
    found = caught(worse(codec=part("OneByOne")), "stream")
    out = COMMITTED.everywhere["optimized"]["stream"]["messages_out_per_task"]
    (complaint,) = [line for line in found if line.startswith("messages_out_per_task")]
    assert complaint.startswith("messages_out_per_task of optimized under the stream load is ")
    assert f"above its baseline of {out:.10g}: find what has made it grow" in complaint
    assert complaint.endswith(f"run `make counts` and commit {BASELINE_PATH}")


@pytest.mark.parametrize(
    ("knobs", "load", "grown"),
    [
        (
            {"policies": "cluster.core.policy:POLICIES"},  # leases of one task
            "stream",
            ["messages_in", "messages_out", "bytes_in", "bytes_out"],
        ),
        ({"answer_after_s": 0.0}, "single", ["messages_out", "bytes_out"]),  # lone acceptances
    ],
)
def test_more_messages_are_caught(knobs: dict[str, Any], load: str, grown: list[str]) -> None:
    found = [line.split()[0] for line in caught(worse(**knobs), load) if "above" in line]
    assert found == [f"{name}_per_task" for name in grown]


def single(**figures: float) -> CountTable:
    return {"optimized": {"single": {f"{name}_per_task": it for name, it in figures.items()}}}


def test_a_gain_asks_for_a_lower_baseline() -> None:
    assert complaints(single(bytes_in=484.0), single(bytes_in=484.0)) == []
    (complaint,) = complaints(single(bytes_in=484.0), single(bytes_in=485.5))
    assert "is 484, below its baseline of 485.5: to keep the gain, run `make" in complaint


@pytest.mark.parametrize(
    ("blocks", "allocations", "found"), [(21.002, 3.0, 0), (21.03, 3.0, 1), (21.0, 3.002, 1)]
)
def test_only_blocks_have_a_small_tolerance(blocks: float, allocations: float, found: int) -> None:
    def table(blocks_queued: float, asked: float) -> CountTable:
        counts = {"blocks_per_queued_task": blocks_queued, "allocations_per_task": asked}
        return {"optimized": {"single": counts}}

    assert len(complaints(table(blocks, allocations), table(21.0, 3.0))) == found


def test_a_count_on_one_side_only_is_caught() -> None:
    assert "has no baseline yet" in complaints(single(bytes_in=484.0), {})[0]
    assert "is no longer counted" in complaints({}, single(bytes_in=484.0))[0]


def test_another_allocation_for_each_task_is_counted() -> None:
    pytest.importorskip("memray")
    plain, wordy = fewest_allocations(OPTIMIZED), fewest_allocations(worse(codec=part("Wordy")))
    assert wordy["allocations_per_task"] >= plain["allocations_per_task"] + 1
    assert wordy["bytes_out_per_task"] == plain["bytes_out_per_task"]


def fewest_allocations(spec: ClusterSpec) -> Any:
    """The smallest of several counts: threads that other tests have left allocate too."""
    counts = [count_per_task(spec, "stream", allocations=True) for _ in range(3)]
    return min(counts, key=itemgetter("allocations_per_task"))


@pytest.mark.parametrize("load", LOADS)
def test_counts_repeat_exactly(load: str) -> None:
    assert count_per_task(OPTIMIZED, load) == count_per_task(OPTIMIZED, load)


def test_a_lone_task_takes_a_message_each_way_to_each_peer() -> None:
    # Two in and three out with an acceptance, and one acknowledgement for 256 tasks.
    counted = count_per_task(BASELINE, "single")
    assert counted["messages_in_per_task"] == 2 + 1 / 256
    assert counted["messages_out_per_task"] == 3 + 1 / 256
    assert "allocations_per_task" not in counted


@pytest.mark.parametrize(
    ("spec", "load", "complaint"),
    [
        (worse(codec=part("Garbling")), "stream", "came back as another one"),
        (worse(policies=part("UNWILLING")), "single", "no result of 1 run, and nobody has any"),
        (OPTIMIZED, "heavy", "no load 'heavy'; there are single, stream"),
    ],
    ids=["wrong results", "no end", "unknown load"],
)
def test_failing_work_is_not_counted(spec: ClusterSpec, load: str, complaint: str) -> None:
    with pytest.raises((WrongResult, ExperimentError), match=complaint):
        count_per_task(spec, load)


def test_a_missing_memray_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memray", None)
    with pytest.raises(ExperimentError, match=r"pip install 'perfkit\[profile\]' brings it"):
        count_per_task(OPTIMIZED, "single", allocations=True)


FIGURES = single(allocations=3.0)
COUNTED = AllCounts(gate.SCHEMA, FIGURES, {PYTHON: PythonCounts({"msgspec": "1"}, FIGURES)})


def test_a_new_baseline_keeps_the_counts_of_other_pythons(tmp_path: Path) -> None:
    path, other = tmp_path / "baselines" / "counts.json", PythonCounts({"msgspec": "2"}, {})
    write_baseline(msgspec.structs.replace(COUNTED, by_python={"2.7": other}), path)
    write_baseline(COUNTED, path)
    read = load_baseline(path)
    assert (read.everywhere, read.by_python) == (FIGURES, {"2.7": other, **COUNTED.by_python})
    assert len(path.read_text().splitlines()) > 10  # a figure a line, for the diff


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "There is no baseline at .*; `make counts` writes one"),
        ("{", "is no baseline of counts: .*; remove it and run `make counts`"),
        ('{"schema": 1}', "is no baseline of counts: .*`everywhere`"),
        (json.dumps({"schema": 9, "everywhere": {}, "by_python": {}}), "has schema 9 and this"),
    ],
)
def test_a_bad_baseline_is_refused(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "counts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultError, match=complaint):
        load_baseline(path)


def test_the_gate_reads_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gate, "count_afresh", lambda: COUNTED)
    gate.main(["--write"])
    assert load_baseline(tmp_path / BASELINE_PATH) == COUNTED


def test_the_command_prints_the_counts_of_the_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = single(messages_in=1.0, messages_out=2.0, bytes_in=3.0, bytes_out=4.0)
    allocated = {"allocations_per_task": 5.0, "blocks_per_queued_task": 6.0}
    counted = {"optimized": {"single": {**traffic["optimized"]["single"], **allocated}}}
    monkeypatch.setattr(gate, "count_specs", lambda allocations: counted)
    gate.main([])
    printed = msgspec.json.decode(capsys.readouterr().out, type=AllCounts)
    assert printed.everywhere == traffic
    assert printed.by_python[PYTHON].counts == {"optimized": {"single": allocated}}
    assert printed.by_python[PYTHON].versions.keys() >= {"python", "msgpack", "msgspec"}


def test_the_command_fails_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(SystemExit, match="counting in a fresh process failed: it gave no reason"):
        gate.main(["--write"])


def test_a_fresh_process_says_why_it_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "memray.py"
    package.write_text("raise ImportError('none of this today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(ExperimentError, match=r"not installed \(none of this today\); pip install"):
        count_afresh()
