"""``perfkit inspect memory``: a running process by its name, for eyes and for programs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from cluster import LocalCluster
from perfkit.profile import heap
from perfkit.profile.heap import HeapProfile
from perfkit.profile.watch import MemoryFinding

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster


@pytest.fixture
def profile(perfkit: Call, local: LocalCluster) -> Call:
    """Profile a process of the running cluster for a moment."""
    return lambda name, *flags: perfkit(
        "inspect", "memory", name, "--endpoint", local.endpoint, "--seconds", 0.1, *flags
    )


def test_a_worker_is_a_row_for_each_measure(profile: Call) -> None:
    shown = profile("worker-0", "--interval", 0.01)
    assert shown.exit_code == 0, shown.output
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["worker-0", "held", "peak", "growth", "count"]
    assert rows[0].startswith("RSS")
    assert "samples" in rows[0]


def test_a_program_reads_rows_and_samples(profile: Call) -> None:
    shown = profile("coordinator", "--interval", 0.01, "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["reasons"] == []
    assert found["rows"][0]["role"] == "coordinator"
    assert found["rows"][0]["count"] == len(found["samples"]) >= 2
    assert found["samples"][0]["rss_bytes"] > 2**20


REFUSED = HeapProfile("coordinator", reason="not attached: it would die")
FOUND = MemoryFinding("memray", "coordinator", "cluster/core/run.py:9 __init__", None, 2**20)
SEEN = HeapProfile("coordinator", (FOUND,), Path("page.html"))


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (REFUSED, 1, "perfkit: not attached: it would die\n"),
        (SEEN, 0, "flame graph: page.html\n"),
    ],
    ids=["refused", "seen"],
)
def test_allocations_come_below_the_samples_or_the_reason_why_not(
    profile: Call,
    local: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    found: HeapProfile,
    code: int,
    said: str,
) -> None:
    asked: list[tuple[int, str, Path]] = []

    def attach_heap(pid: int, name: str, work: object, flame: Path) -> HeapProfile:
        asked.append((pid, name, flame))
        return found

    monkeypatch.setattr(heap, "attach_heap", attach_heap)
    shown = profile("coordinator", "--attach", "--flame", "page.html")
    assert (shown.exit_code, shown.stderr) == (code, f"{heap.RISK}\n{said}")
    assert asked == [(local.coordinator_pid, "coordinator", Path("page.html"))]
    assert "RSS" in shown.stdout
    assert ("cluster/core/run.py:9 __init__" in shown.stdout) == (found is SEEN)


def test_nothing_is_attached_to_unless_it_is_asked_for(profile: Call) -> None:
    shown = profile("coordinator", "--flame", "page.html")
    assert shown.exit_code == 2
    assert "--flame draws what --attach records" in shown.stderr


def test_nobody_of_that_name_is_one_line(profile: Call) -> None:
    shown = profile("worker-7")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "there are coordinator, worker-0; did you mean 'worker-0'?" in shown.stderr
