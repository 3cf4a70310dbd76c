"""Allocations by memray: of a living process where it can be attached to, else the reason.

Attaching needs a debugger, the kernel's permission, and a kernel on which processes survive it.
Where one is missing, the test checks the reason and that the process lives on.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfkit.profile import debugger
from perfkit.profile.heap import HeapProfile, attach_heap, read_capture
from perfkit.report.page.selfcontained import find_external

memray = pytest.importorskip("memray")

#: Answers each line with one, after it has allocated as many bytes as the line says. It wakes now
#: and then as a coordinator or worker does, or waits without end.
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
        self.pid = self.process.pid
        self.answer()

    def answer(self) -> str:
        return self.process.stdout.readline()

    def hold(self, size_bytes: int) -> str:
        self.process.stdin.write(f"{size_bytes}\n")
        return self.answer()


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    started = Child(idle=getattr(request, "param", "lively") == "idle")
    with started.process as process:
        yield started
        process.kill()


def keep_and_free() -> None:
    for _ in range(5):
        bytearray(3_000_000)
    held = [bytearray(1_000_000) for _ in range(8)]
    assert len(held) == 8


KEEPS = keep_and_free.__code__.co_firstlineno + 3


def captured(tmp_path: Path, work: Callable[[], object]) -> Path:
    capture = tmp_path / "capture.bin"
    with memray.Tracker(capture):
        work()
    return capture


def test_a_capture_holds_the_peak_and_the_lines_that_held_it(tmp_path: Path) -> None:
    page = tmp_path / "pages" / "a <b>.html"
    found = read_capture(memray, captured(tmp_path, keep_and_free), "the work", page)
    assert found.reason is None
    whole, site = found.findings[:2]
    assert (whole.role, whole.where, whole.counted) == ("the work", "all", "allocations")
    assert whole.count >= 13
    assert 8_000_000 <= whole.peak_bytes < 23_000_000
    assert f"test_heap.py:{KEEPS} " in site.where
    assert site.peak_bytes >= 8_000_000
    assert found.flame_graph == page
    assert "keep_and_free" in page.read_text()
    # Its links lead to memray's pages, but nothing is loaded from there.
    assert all("bloomberg.github.io" in link for link in find_external(page.read_text()))
    html = found._repr_html_()
    assert "a%20%3Cb%3E.html" in html
    assert "href" not in HeapProfile("x", reason="no page")._repr_html_()


@pytest.mark.parametrize(
    ("page", "said"), [("", "memray flamegraph: "), ("file/page.html", "cannot be written: ")]
)
def test_an_unwritable_flame_graph_costs_no_figures(tmp_path: Path, page: str, said: str) -> None:
    (tmp_path / "file").touch()
    found = read_capture(memray, captured(tmp_path, keep_and_free), "x", tmp_path / page)
    assert found.flame_graph is None
    assert said in found.reason
    assert found.findings[0].peak_bytes


def test_a_capture_that_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "capture.bin").write_bytes(b"nothing")
    found = read_capture(memray, tmp_path / "capture.bin", "x", None)
    assert "cannot be read" in found.reason


def test_a_process_lives_on_whether_attached_to_or_refused(child: Child, tmp_path: Path) -> None:
    answers: list[str] = []
    page = tmp_path / "flame.html"
    found = attach_heap(
        child.pid, "worker-1", lambda: answers.extend(child.hold(2_000_000) for _ in range(3)), page
    )
    assert child.hold(1) == "done\n"
    assert child.process.poll() is None
    if found.reason is not None:
        assert found.reason.startswith("not attached: ")
        assert (answers, found.findings) == ([], ())
        return
    assert answers == ["done\n"] * 3
    whole, site = found.findings[:2]
    assert whole.count >= 3
    assert whole.peak_bytes >= 6_000_000
    assert (site.role, site.where) == ("worker-1", "<string>:5 hold")
    assert page.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("child", ["idle"], indirect=True)
def test_a_process_that_only_waits_lives_on(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = debugger.memray

    def impatient(command: str, arguments: list[str], timeout_s: float | None = None) -> str | None:
        return attach(command, arguments, 2.0 if str(child.pid) in arguments else timeout_s)

    monkeypatch.setattr(debugger, "memray", impatient)
    done: list[int] = []
    found = attach_heap(child.pid, "idle", lambda: done.append(1))
    assert found.reason.startswith(("not attached: ", "memray attach did not end within 2 s"))
    assert done == []
    # A debugger that left a breakpoint behind would have it die of the next allocation.
    assert [child.hold(1_000_000) for _ in range(3)] == ["done\n"] * 3


def test_a_refused_process_is_not_touched(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger, "refusal", lambda pid: f"not attached: {pid} would die")
    monkeypatch.setattr(debugger, "memray", lambda *_: pytest.fail("it was attached to"))
    found = attach_heap(child.pid, "child", lambda: pytest.fail("the work was done"))
    assert found == HeapProfile("child", reason=f"not attached: {child.pid} would die")


@pytest.mark.parametrize("failing", ["attach", "detach"])
def test_an_attachment_that_fails_is_a_reason(
    child: Child, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(debugger, "refusal", lambda pid: None)
    monkeypatch.setattr(
        debugger, "memray", lambda command, _: "no permission" if command == failing else None
    )
    done: list[int] = []
    found = attach_heap(child.pid, "child", lambda: done.append(1))
    assert found.findings == ()
    assert found.reason.startswith("no permission")
    assert done == [1] * (failing == "detach")
    assert found.reason.endswith(f"memray detach {child.pid}") is (failing == "detach")


def test_without_memray_an_extra_is_named(monkeypatch: pytest.MonkeyPatch, child: Child) -> None:
    monkeypatch.setitem(sys.modules, "memray", None)
    found = attach_heap(child.pid, "child", lambda: pytest.fail("the work was done"))
    assert 'pip install "perfkit[profile]"' in found.reason


def test_an_impossible_process_and_this_one_are_refused() -> None:
    with pytest.raises(ValueError, match="can't attach to itself"):
        attach_heap(os.getpid(), "me", lambda: None)
    with pytest.raises(ValueError, match="A process id is a whole number"):
        attach_heap(-1, "nobody", lambda: None)
