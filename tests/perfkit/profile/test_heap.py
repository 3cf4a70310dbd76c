"""Allocations by memray: of this process, of a living one, and the reason where there is no way.

Attaching needs a debugger and the kernel's leave. Where either is missing, the test of it checks
the reason instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkit.profile import heap
from perfkit.profile.heap import HeapProfile, attach_heap, profile_heap
from perfkit.report.page.selfcontained import find_external

pytest.importorskip("memray")

#: Answers each line with one, after it has allocated as many bytes as the line says; looks up now
#: and then as a coordinator or worker does, or waits for good.
PROGRAM = """
import select, sys
kept = []
def hold(size):
    kept.append(bytearray(size))
print("ready", flush=True)
while True:
    if {idle} or select.select([sys.stdin], [], [], 0.01)[0]:
        hold(int(sys.stdin.readline()))
        print("done", flush=True)
"""


class Child:
    """A Python process that allocates on demand."""

    def __init__(self, idle: bool) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(idle=idle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.answer()

    @property
    def pid(self) -> int:
        return self.process.pid

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def hold(self, size_bytes: int) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size_bytes}\n")
        return self.answer()


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    started = Child(idle=getattr(request, "param", "lively") == "idle")
    yield started
    started.process.kill()
    started.process.communicate()


def keep_and_free() -> None:
    for _ in range(5):
        bytearray(3_000_000)
    held = [bytearray(1_000_000) for _ in range(8)]
    assert len(held) == 8


KEEPS = keep_and_free.__code__.co_firstlineno + 3


def test_allocations_the_peak_and_who_held_it(tmp_path: Path) -> None:
    page = tmp_path / "pages" / "flame.html"
    found = profile_heap(keep_and_free, "the work", page)
    assert found.reason is None
    assert found.allocations is not None
    assert found.allocations >= 13
    assert found.allocated_bytes is not None
    assert found.allocated_bytes >= 23_000_000
    assert found.peak_bytes is not None
    assert 8_000_000 <= found.peak_bytes < found.allocated_bytes
    site = found.sites[0]
    assert f"test_heap.py:{KEEPS} " in site.where
    assert site.peak_bytes >= 8_000_000
    assert site.allocations >= 8
    assert found.flame_graph == page
    assert "keep_and_free" in page.read_text()
    # Its links lead to memray's pages, but nothing is loaded from there.
    assert all("bloomberg.github.io" in link for link in find_external(page.read_text()))


def test_the_allocations_of_like_work_are_the_same_number_twice() -> None:
    def work() -> None:
        kept = [object() for _ in range(5_000)]
        assert len(kept) == 5_000

    counts = [profile_heap(work, python_allocators=True).allocations for _ in range(2)]
    assert counts[0] is not None
    assert counts[0] >= 5_000
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize(
    ("page", "said"), [("", "memray flamegraph: "), ("file/page.html", "cannot be written: ")]
)
def test_a_flame_graph_that_cannot_be_written_costs_no_figures(
    tmp_path: Path, page: str, said: str
) -> None:
    (tmp_path / "file").touch()
    found = profile_heap(keep_and_free, "the work", tmp_path / page, aggregated=True)
    assert found.flame_graph is None
    assert found.reason is not None
    assert said in found.reason
    assert found.sites[0].peak_bytes >= 8_000_000
    assert found.findings()[0].peak_bytes == found.peak_bytes


def test_work_that_allocates_nothing_has_no_allocations() -> None:
    found = profile_heap(lambda: None)
    assert found.reason is None
    assert found.allocations is not None
    assert found.allocations < 100
    assert found.sites == () or found.sites[0].peak_bytes < 1_000_000


def test_an_aggregated_capture_knows_the_peak_and_no_total() -> None:
    found = profile_heap(keep_and_free, aggregated=True)
    assert (found.allocations, found.allocated_bytes, found.reason) == (None, None, None)
    assert found.sites[0].peak_bytes >= 8_000_000
    assert found.findings()[0].count is None


def test_a_second_recording_is_refused_with_a_reason_and_the_first_goes_on() -> None:
    inner: list[HeapProfile] = []
    outer = profile_heap(lambda: inner.append(profile_heap(keep_and_free)), aggregated=True)
    assert outer.reason is None
    assert inner[0].reason is not None
    assert "No more than one Tracker" in inner[0].reason
    assert inner[0].findings() == ()


def test_what_the_work_raises_passes_and_the_recording_ends() -> None:
    with pytest.raises(ZeroDivisionError):
        profile_heap(lambda: 1 // 0)
    assert profile_heap(lambda: None, aggregated=True).reason is None


def test_without_memray_a_reason_is_given_and_no_work_is_done(
    monkeypatch: pytest.MonkeyPatch, child: Child
) -> None:
    monkeypatch.setitem(sys.modules, "memray", None)
    done: list[int] = []
    for found in (
        profile_heap(lambda: done.append(1)),
        attach_heap(child.pid, "child", lambda: done.append(1)),
    ):
        assert found.reason is not None
        assert 'pip install "perfkit[profile]"' in found._repr_html_().replace("&quot;", '"')
    assert done == []


def test_a_capture_that_cannot_be_read_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoil() -> None:
        (capture,) = tmp_path.glob("perfkit-heap-*/capture.bin")
        capture.unlink()
        capture.write_bytes(b"nothing")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = profile_heap(spoil)
    assert found.reason is not None
    assert "cannot be read" in found.reason


def test_a_living_process_is_attached_to_and_lives_on(child: Child, tmp_path: Path) -> None:
    answers: list[str] = []
    page = tmp_path / "flame.html"

    def work() -> None:
        answers.extend(child.hold(2_000_000) for _ in range(3))

    found = attach_heap(child.pid, "worker-1", work, page)
    assert child.hold(1) == "done\n"
    if found.reason is not None:  # no debugger here, or no leave
        assert found.reason.startswith("memray attach: ")
        assert (answers, found.findings()) == ([], ())
        return
    assert answers == ["done\n"] * 3
    assert found.allocations is not None
    assert found.allocations >= 3
    assert found.peak_bytes is not None
    assert found.peak_bytes >= 6_000_000
    assert found.sites[0].where == "<string>:5 hold"
    assert found.findings()[1].role == "worker-1"
    assert page.is_file()


@pytest.mark.parametrize("child", ["idle"], indirect=True)
def test_a_process_that_only_waits_is_given_up_on_and_lives_on(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heap, "ATTACH_TIMEOUT_S", 2.0)
    done: list[int] = []
    found = attach_heap(child.pid, "idle", lambda: done.append(1))
    assert found.reason is not None
    assert found.reason.startswith("memray attach")
    assert done == []
    # A debugger that left a breakpoint behind would have it die of the next allocation.
    assert [child.hold(1_000_000) for _ in range(3)] == ["done\n"] * 3


def test_a_process_that_ends_during_the_work_is_a_reason(child: Child) -> None:
    def end() -> None:
        child.process.kill()
        child.process.wait()

    found = attach_heap(child.pid, "gone", end)
    assert found.reason is not None
    assert found.reason.startswith("memray ")
    if found.reason.startswith("memray detach"):
        assert found.reason.endswith(f"memray detach {child.pid}")
    assert found.findings() == ()


def test_what_cannot_be_attached_to_is_refused() -> None:
    with pytest.raises(ValueError, match="use profile_heap"):
        attach_heap(os.getpid(), "me", lambda: None)
    with pytest.raises(ValueError, match="A process id is a whole number"):
        attach_heap(-1, "nobody", lambda: None)
