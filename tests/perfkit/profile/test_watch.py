"""A process's memory from outside: once, over time, and the reason where there is none."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest

from perfkit.profile.watch import MemorySample, MemorySeries, process_memory, watch_memory

MIB = 2**20


class Full(NamedTuple):
    rss: int
    uss: int
    pss: int


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    command, pipe = [sys.executable, "-c", "input('ready')"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.read(5)
        yield process
        process.kill()


def test_memory_of_another_process_is_read_until_it_is_gone(child: subprocess.Popen[bytes]) -> None:
    sample = process_memory(child.pid)
    assert sample.rss_bytes > MIB
    for part in (sample.uss_bytes, sample.pss_bytes):
        assert part is None or 0 < part <= sample.rss_bytes

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_memory(child.pid) is None, "a zombie holds nothing"
    child.wait()
    assert process_memory(child.pid) is None


@pytest.mark.parametrize("pid", [-1, "1", 1.0, True])
def test_an_impossible_process_id_is_refused(pid: Any) -> None:
    with pytest.raises(ValueError, match="A process id is a whole number"):
        process_memory(pid)


def test_measures_the_system_does_not_tell_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: psutil.Process) -> None:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", deny)
    sample = process_memory()
    assert (sample.uss_bytes, sample.pss_bytes) == (None, None)
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda self: SimpleNamespace(rss=5))
    assert process_memory() == MemorySample(5, None, None)
    monkeypatch.setattr(psutil.Process, "memory_full_info", deny)
    monkeypatch.setattr(psutil.Process, "memory_info", deny)
    assert process_memory() is None


def script(monkeypatch: pytest.MonkeyPatch, readings: list[Full]) -> threading.Event:
    """Script the system's answers about this process; after them it counts as gone."""
    told, over = iter(readings), threading.Event()

    def read(self: psutil.Process) -> Full:
        if (reading := next(told, None)) is None:
            over.set()
            raise psutil.NoSuchProcess(self.pid)
        return reading

    monkeypatch.setattr(psutil.Process, "memory_full_info", read)
    return over


RISE_AND_FALL = [Full(100, 10, 20), Full(300, 90, 60), Full(200, 80, 70), Full(150, 40, 30)]


def test_a_series_tells_first_last_and_highest_values(monkeypatch: pytest.MonkeyPatch) -> None:
    over = script(monkeypatch, RISE_AND_FALL)
    with watch_memory(role="worker-1", interval_s=0.001) as watch:
        assert over.wait(30)
    series = watch.series
    assert [sample.rss_bytes for sample in series.samples] == [100, 300, 200, 150]
    assert list(series.at_s) == sorted(series.at_s)
    assert (series.seen, len(series.samples)) == (4, 4)
    assert series.first == MemorySample(100, 10, 20)
    assert series.last == MemorySample(150, 40, 30)
    assert series.peak == MemorySample(300, 90, 70)
    found = {row.where: (row.size_bytes, row.peak_bytes, row.growth_bytes) for row in
             series.findings}  # fmt: skip
    assert found == {"RSS": (150, 300, 50), "USS": (40, 90, 30), "PSS": (30, 70, 10)}
    assert {(row.source, row.role, row.count) for row in series.findings} == {
        ("sampling", "worker-1", 4)
    }
    frame = series.to_frame()
    assert list(frame.columns) == ["role", "at_s", "rss_bytes", "uss_bytes", "pss_bytes"]
    assert list(frame["pss_bytes"]) == [20, 60, 70, 30]


def test_at_the_bound_old_samples_go_and_the_peak_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    over = script(monkeypatch, RISE_AND_FALL)
    with watch_memory(interval_s=0.001, limit=2) as watch:
        assert over.wait(30)
    series = watch.series
    assert [sample.rss_bytes for sample in series.samples] == [200, 150]
    assert (series.seen, len(series.samples)) == (4, 2)
    assert series.peak == MemorySample(300, 90, 70)
    assert series.first == MemorySample(100, 10, 20)
    assert "oldest 2 samples are not kept" in series._repr_html_()


def test_an_ended_process_leaves_its_samples_and_a_reason(child: subprocess.Popen[bytes]) -> None:
    with watch_memory(child.pid, role="worker-0", interval_s=0.001) as watch:
        while watch.series.seen < 2:
            watch.wait(0.001)
        child.kill()
        child.wait()
        watch.wait(30)
    assert watch.series.seen >= 2
    assert watch.series.reason.startswith(f"worker-0: process {child.pid} ended after")


def test_a_watch_of_an_ended_process_is_a_reason() -> None:
    with watch_memory(2**22 + 1) as watch:
        pass
    series = watch.series
    assert (series.samples, series.findings, series.last) == ((), (), None)
    assert series.reason == "process 4194305: there is no process 4194305"
    assert series.reason in series._repr_html_()


def test_a_watch_keeps_something() -> None:
    with pytest.raises(ValueError, match="keeps at least one sample, not 0"):
        watch_memory(limit=0)
    assert MemorySeries("nobody", 0.1).to_frame().empty


@pytest.mark.parametrize("interval_s", [0, -1, 0.0001, float("nan")])
def test_an_interval_below_a_millisecond_is_refused(interval_s: float) -> None:
    with pytest.raises(ValueError, match=r"interval_s must be at least 0\.001"):
        watch_memory(interval_s=interval_s)
