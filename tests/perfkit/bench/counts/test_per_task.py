"""The gate on what a task costs in messages, bytes and allocations, and proof that it can fail.

The first two tests are the gate; those after it make a cluster worse on purpose and see it caught.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.core.policy import LeastLoaded
from cluster.protocol.codec import Message
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.events import TasksFinished
from perfkit.bench.counts import per_task as counts
from perfkit.bench.counts.lockstep import LOADS
from perfkit.bench.counts.per_task import (
    BASELINE_PATH,
    COUNTED_SPECS,
    PYTHON,
    AllCounts,
    OfPython,
    allocation_complaints,
    complaints,
    count_afresh,
    count_per_task,
    count_specs,
    load_baseline,
    traffic_of,
    write_baseline,
)
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.results import ResultError
from perfkit.optimized.codec import PackedCodec
from perfkit.optimized.specs import OPTIMIZED

ROOT = Path(__file__).parents[4]
COMMITTED = load_baseline(ROOT / BASELINE_PATH)


# The gate


@pytest.mark.parametrize("spec", COUNTED_SPECS, ids=lambda spec: spec.name)
def test_messages_and_bytes_of_a_task_are_those_of_the_baseline(spec: ClusterSpec) -> None:
    wanted = {spec.name: COMMITTED.everywhere[spec.name]}
    assert complaints(traffic_of(count_specs([spec])), wanted) == []


@pytest.mark.skipif(
    PYTHON not in COMMITTED.by_python,
    reason=f"allocations follow from the interpreter and have no baseline for Python {PYTHON} yet; "
    "`make counts` adds one",
)
def test_allocations_of_a_task_are_those_of_the_baseline() -> None:
    pytest.importorskip("memray", reason="allocations are counted by memray, of perfkit[profile]")
    counted = count_afresh()
    assert allocation_complaints(counted.by_python[PYTHON], COMMITTED.by_python[PYTHON]) == []
    # Neither tracing nor what was imported before has a part in messages and bytes.
    assert complaints(counted.everywhere, COMMITTED.everywhere) == []


def test_the_baseline_holds_every_spec_and_load() -> None:
    tables = [COMMITTED.everywhere, *(of.counts for of in COMMITTED.by_python.values())]
    for table in tables:
        assert {name: {*row} for name, row in table.items()} == {
            spec.name: {*LOADS} for spec in COUNTED_SPECS
        }


# It can fail


class OneByOne(PackedCodec):
    """Every message in a frame of its own, however many go to one peer."""

    def encode(self, messages: Sequence[Message]) -> Any:
        return [
            frames for message in messages for frames in super(OneByOne, self).encode([message])
        ]


class Wordy(PackedCodec):
    """Keeps a few things for each payload that nobody asked for, while it decodes."""

    def events(self, frames: Any) -> Any:
        events = super().events(frames)
        self.kept = [b"%d" % len(payload) for e in events for payload in getattr(e, "payloads", ())]
        return events


class Garbling(PackedCodec):
    """Gives a worker's outcomes to its tasks in the wrong order."""

    def events(self, frames: Any) -> Any:
        events = super().events(frames)
        for event in events:
            if isinstance(event, TasksFinished):
                event.outcomes.reverse()
        return events


class Unwilling(LeastLoaded):
    """Finds nobody good enough."""

    def choose(self, needs: Any, suspect: bool) -> None:
        return None


UNWILLING = {LeastLoaded.name: Unwilling}


def worse(**knobs: Any) -> ClusterSpec:
    """The optimised spec with something else in it; parts by their names in this file."""
    return msgspec.structs.replace(OPTIMIZED, **knobs)


def part(name: str) -> str:
    return f"{__name__}:{name}"


def caught(spec: ClusterSpec, load: str) -> list[str]:
    """What the gate says of a load, were this spec the committed one's successor."""
    counted = traffic_of({spec.name: {load: count_per_task(spec, load)}})
    return complaints(counted, {spec.name: {load: COMMITTED.everywhere[spec.name][load]}})


def test_a_codec_that_sends_every_message_alone_is_caught() -> None:
    found = caught(worse(codec=part("OneByOne")), "stream")
    out = COMMITTED.everywhere["optimized"]["stream"]["messages_out_per_task"]
    (complaint,) = [line for line in found if line.startswith("messages_out_per_task")]
    assert complaint.startswith("messages_out_per_task of optimized under the stream load is ")
    assert f"above its baseline of {out:.10g}: find what has made it grow" in complaint
    assert complaint.endswith(f"run `make counts` and commit {BASELINE_PATH}")


def test_leases_of_one_task_are_caught() -> None:
    found = caught(worse(policies="cluster.core.policy:POLICIES"), "stream")
    assert [line.split()[0] for line in found if "above" in line] == [
        "messages_in_per_task",
        "messages_out_per_task",
        "bytes_in_per_task",
        "bytes_out_per_task",
    ]


def test_an_acceptance_that_travels_alone_is_caught() -> None:
    found = caught(worse(answer_after_s=0.0), "single")
    assert [line.split()[0] for line in found] == ["messages_out_per_task", "bytes_out_per_task"]


def test_what_is_better_asks_for_a_lower_baseline() -> None:
    figures = {"optimized": {"single": {"bytes_in_per_task": 484.0}}}
    higher = {"optimized": {"single": {"bytes_in_per_task": 485.5}}}
    assert complaints(figures, figures) == []
    (complaint,) = complaints(figures, higher)
    assert "is 484, below its baseline of 485.5: keep what was gained, run `make" in complaint


def test_only_blocks_have_a_tolerance_and_a_small_one() -> None:
    def table(blocks: float, allocations: float) -> counts.Table:
        figures = {"blocks_per_queued_task": blocks, "allocations_per_task": allocations}
        return {"optimized": {"single": figures}}

    assert complaints(table(21.002, 3.0), table(21.0, 3.0)) == []
    assert len(complaints(table(21.03, 3.0), table(21.0, 3.0))) == 1
    assert len(complaints(table(21.0, 3.002), table(21.0, 3.0))) == 1


def test_what_is_counted_on_one_side_only_is_caught() -> None:
    figures = {"optimized": {"single": {"bytes_in_per_task": 484.0}}}
    assert "has no baseline yet" in complaints(figures, {})[0]
    assert "is not counted any more" in complaints({}, figures)[0]


@pytest.mark.parametrize("load", LOADS)
def test_an_allocation_more_for_each_task_is_counted(load: str) -> None:
    pytest.importorskip("memray")
    plain = count_per_task(OPTIMIZED, load, allocations=True)
    wordy = count_per_task(worse(codec=part("Wordy")), load, allocations=True)
    assert traffic_of({"": {"": plain}}) == traffic_of({"": {"": wordy}})
    assert plain.allocations_per_task is not None
    assert wordy.allocations_per_task is not None
    assert wordy.allocations_per_task >= plain.allocations_per_task + 1


def test_allocations_of_other_versions_say_so() -> None:
    table = {"optimized": {"single": {"allocations_per_task": 3.0}}}
    more = {"optimized": {"single": {"allocations_per_task": 4.0}}}
    old, new = OfPython({"msgspec": "0.22.0"}, table), OfPython({"msgspec": "0.23.0"}, more)
    assert allocation_complaints(old, old) == []
    (complaint,) = allocation_complaints(new, old)
    assert complaint.endswith("(since then msgspec 0.22.0 → 0.23.0)")
    (plain,) = allocation_complaints(OfPython(old.versions, more), old)
    assert plain.endswith(str(BASELINE_PATH))


# What is counted is work that was done, the same each time


@pytest.mark.parametrize("load", LOADS)
def test_the_same_is_counted_twice(load: str) -> None:
    assert count_per_task(OPTIMIZED, load) == count_per_task(OPTIMIZED, load)


def test_one_task_alone_takes_a_message_each_way_to_each_peer() -> None:
    # Two in and three out, an acceptance among them, and what was received said for 256 at once.
    counted = count_per_task(BASELINE, "single")
    assert counted.messages_in_per_task == 2 + 1 / 256
    assert counted.messages_out_per_task == 3 + 1 / 256
    assert counted.allocations_per_task is None
    assert counted.blocks_per_queued_task is None


def test_wrong_results_are_not_counted() -> None:
    with pytest.raises(WrongResult, match="instead of"):
        count_per_task(worse(codec=part("Garbling")))


def test_work_that_comes_to_no_end_is_not_counted() -> None:
    with pytest.raises(ExperimentError, match="1 runs have no result and nobody has anything to"):
        count_per_task(worse(policies=part("UNWILLING")), "single")


def test_a_load_that_there_is_not_is_refused() -> None:
    with pytest.raises(ExperimentError, match="no load 'heavy'; there are single, stream"):
        count_per_task(OPTIMIZED, "heavy")


def test_without_memray_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memray", None)
    with pytest.raises(ExperimentError, match=r"pip install 'perfkit\[profile\]' brings it"):
        count_per_task(OPTIMIZED, "single", allocations=True)


# The baseline's file

FIGURES = {"optimized": {"single": {"allocations_per_task": 3.0}}}
COUNTED = AllCounts(counts.SCHEMA, FIGURES, {PYTHON: OfPython({"msgspec": "1"}, FIGURES)})


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "counts.json"
    write_baseline(COUNTED, path)
    assert load_baseline(path) == COUNTED
    assert len(path.read_text().splitlines()) > 10  # a figure a line, for the diff


def test_a_new_baseline_keeps_what_other_pythons_counted(tmp_path: Path) -> None:
    path, other = tmp_path / "counts.json", OfPython({"msgspec": "2"}, {})
    write_baseline(msgspec.structs.replace(COUNTED, by_python={"2.7": other}), path)
    write_baseline(COUNTED, path)
    assert load_baseline(path).by_python == {"2.7": other, **COUNTED.by_python}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "There is no baseline at .*; `make counts` writes one"),
        ("{", "is no baseline of counts: .*; remove it and run `make counts`"),
        ('{"schema": 1}', "is no baseline of counts: .*`everywhere`"),
        (json.dumps({"schema": 9, "everywhere": {}, "by_python": {}}), "has schema 9 and this"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "counts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultError, match=complaint):
        load_baseline(path)


# The command


def test_write_puts_the_baseline_where_the_gate_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(counts, "count_afresh", lambda: COUNTED)
    counts.main(["--write"])
    assert load_baseline(tmp_path / BASELINE_PATH) == COUNTED


def test_the_command_prints_what_the_gate_compares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = counts.Counts(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    monkeypatch.setattr(counts, "count_specs", lambda allocations: {"optimized": {"single": one}})
    counts.main([])
    printed = msgspec.json.decode(capsys.readouterr().out, type=AllCounts)
    assert printed.everywhere["optimized"]["single"]["bytes_out_per_task"] == 4.0
    assert printed.by_python[PYTHON].counts["optimized"]["single"] == {
        "allocations_per_task": 5.0,
        "blocks_per_queued_task": 6.0,
    }
    assert printed.by_python[PYTHON].versions.keys() >= {"python", "msgpack", "msgspec"}


def test_the_command_fails_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(SystemExit, match="counting in a fresh process failed: it gave no reason"):
        counts.main(["--write"])


def test_a_fresh_process_says_why_it_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "memray.py"
    package.write_text("raise ImportError('none of this today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(ExperimentError, match=r"not installed \(none of this today\); pip install"):
        count_afresh()
