"""Pinned processes: every thread of them, and this one is given its cores back."""

import os
import subprocess
import sys
import threading

import pytest

from perfkit.bench.workloads.pinning import UNPINNED, affinity_restored, apply, layouts


def cores_of(pid: int) -> set[frozenset[int]]:
    threads = os.listdir(f"/proc/{pid}/task")
    return {frozenset(os.sched_getaffinity(int(thread))) for thread in threads}


def test_every_thread_of_every_process_is_pinned_and_this_one_let_go() -> None:
    before = os.sched_getaffinity(0)
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(2)]
    try:
        for layout in layouts():
            with affinity_restored():
                apply(layout, [child.pid for child in children])
                assert cores_of(children[0].pid) == {frozenset({layout.broker})}
                assert cores_of(children[1].pid) == {frozenset({layout.worker})}
                assert cores_of(os.getpid()) == {frozenset({layout.client})}
                apply(UNPINNED, [child.pid for child in children])
                assert cores_of(children[0].pid) == cores_of(os.getpid()) == {frozenset(before)}
            assert cores_of(os.getpid()) == {frozenset(before)}
    finally:
        gate.set()
        thread.join()
        for child in children:
            child.communicate(b"\n")


def test_a_single_core_has_one_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    (layout,) = layouts()
    assert (layout.broker, layout.worker, layout.client) == (5, 5, 5)
    assert "only core" in layout.name


def test_a_system_that_cannot_pin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cores_of(os.getpid())
    monkeypatch.delattr(os, "sched_setaffinity")
    (layout,) = layouts()
    assert layout.name.startswith("not pinned")
    apply(layout, [os.getpid()])
    assert cores_of(os.getpid()) == before
