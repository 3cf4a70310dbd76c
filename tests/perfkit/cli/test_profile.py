"""``perfkit profile memory``: a running process by its name, for eyes and for programs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from cluster import LocalCluster
from perfkit.cli.profile import _growth
from perfkit.profile import heap
from perfkit.profile.heap import AllocationSite, HeapProfile

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster


def test_a_worker_is_a_row_for_each_measure(perfkit: Call, local: LocalCluster) -> None:
    shown = perfkit(
        "profile", "memory", "worker-0", "--endpoint", local.endpoint,
        "--seconds", 0.1, "--interval", 0.01,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["worker-0", "held", "peak", "growth", "count"]
    assert rows[0].startswith("RSS")
    assert "samples" in rows[0]


def test_a_program_reads_rows_and_samples(perfkit: Call, local: LocalCluster) -> None:
    shown = perfkit(
        "profile", "memory", "coordinator", "--endpoint", local.endpoint,
        "--seconds", 0.1, "--interval", 0.01, "--json",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["reasons"] == []
    assert found["rows"][0]["role"] == "coordinator"
    assert found["rows"][0]["count"] == len(found["samples"]) >= 2
    assert found["samples"][0]["rss_bytes"] > 2**20


REFUSED = HeapProfile("coordinator", reason="memray attach: not permitted")
SITE = AllocationSite("cluster/core/run.py:9 __init__", 2**20, 3)
SEEN = HeapProfile("coordinator", 70, 2**22, 2**21, (SITE,), Path("page.html"))


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (REFUSED, 1, "perfkit: memray attach: not permitted\n"),
        (SEEN, 0, "flame graph: page.html\n"),
    ],
    ids=["refused", "seen"],
)
def test_allocations_come_below_the_samples_or_the_reason_why_not(
    perfkit: Call,
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
    shown = perfkit(
        "profile", "memory", "coordinator", "--endpoint", local.endpoint,
        "--seconds", 0.1, "--flame", "page.html",
    )  # fmt: skip
    assert (shown.exit_code, shown.stderr) == (code, said)
    assert asked == [(local.coordinator_pid, "coordinator", Path("page.html"))]
    assert "RSS" in shown.stdout
    assert ("cluster/core/run.py:9 __init__" in shown.stdout) == (found is SEEN)


def test_memory_that_went_back_has_its_sign() -> None:
    assert [_growth(size) for size in (None, 0, 2_048, -3 * 2**20)] == [
        "unknown", "+0 B", "+2.0 KiB", "-3.0 MiB"
    ]  # fmt: skip


def test_nobody_of_that_name_is_one_line(perfkit: Call, local: LocalCluster) -> None:
    shown = perfkit("profile", "memory", "worker-7", "--endpoint", local.endpoint)
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "there are coordinator, worker-0; did you mean 'worker-0'?" in shown.stderr
