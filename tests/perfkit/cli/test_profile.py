"""``perfkit profile memory``: a running process by its name, for eyes and for programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cluster import LocalCluster
from perfkit.profile import heap
from perfkit.profile.heap import HeapProfile

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def local():
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


def test_allocations_that_cannot_be_seen_leave_the_samples_and_exit_with_1(
    perfkit: Call, local: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refused(pid: int, name: str, work: object, flame: Path) -> HeapProfile:
        asked.append(flame)
        return HeapProfile(name, reason="memray attach: not permitted")

    monkeypatch.setattr(heap, "attach_heap", refused)
    shown = perfkit(
        "profile", "memory", "coordinator", "--endpoint", local.endpoint,
        "--seconds", 0.1, "--flame", "page.html",
    )  # fmt: skip
    assert shown.exit_code == 1
    assert asked == [Path("page.html")]
    assert "RSS" in shown.stdout
    assert shown.stderr == "perfkit: memray attach: not permitted\n"


def test_nobody_of_that_name_is_one_line(perfkit: Call, local: LocalCluster) -> None:
    shown = perfkit("profile", "memory", "worker-7", "--endpoint", local.endpoint)
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "there are coordinator, worker-0; did you mean 'worker-0'?" in shown.stderr
