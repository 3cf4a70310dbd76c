"""Each workload has the one property it is there for."""

import time
from itertools import pairwise

import pytest

from cluster.work.workloads import HANDLERS, PATTERN


def run(kind, payload=b""):
    (outcome,) = HANDLERS[kind]([payload])
    return outcome


def test_echo_gives_back_what_it_got_and_noop_nothing():
    assert HANDLERS.kinds() == "echo fail length noop pattern sleep spin".split()
    assert (run("echo", b"x"), run("noop", b"x")) == (b"x", b"")


def test_sleep_lasts_and_does_not_compute():
    wall_s, cpu_s = time.monotonic(), time.thread_time()
    assert run("sleep", b"0.05") == b"0.05"
    assert time.monotonic() - wall_s >= 0.05
    assert time.thread_time() - cpu_s < 0.05
    assert run("sleep") == b""


def test_spin_computes_for_as_long_as_it_is_told():
    cpu_s = time.thread_time()
    assert run("spin", b"0.05") == b"0.05"
    assert time.thread_time() - cpu_s >= 0.05
    assert run("spin") == b""


def test_fail_raises_what_it_is_told():
    assert repr(run("fail", b"on purpose")) == repr(RuntimeError("on purpose"))
    assert repr(run("fail")) == repr(RuntimeError("told to fail"))
    assert isinstance(run("fail", b"\xff"), RuntimeError)


@pytest.mark.parametrize("size_bytes", [0, 1, 250, 251, 252, 10_000])
def test_a_pattern_is_as_long_as_it_is_told_and_differs_everywhere(size_bytes):
    result = bytes(run("pattern", b"%d" % size_bytes))
    assert result == (PATTERN * 40)[:size_bytes]
    assert all(a != b for a, b in pairwise(result))


@pytest.mark.parametrize("kind_of", [bytes, memoryview])
def test_length_counts_bytes_and_views(kind_of):
    assert run("length", kind_of(b"x" * 70_000)) == b"70000"


@pytest.mark.parametrize("kind", ["pattern", "sleep", "spin"])
def test_what_is_no_number_is_an_error(kind):
    assert isinstance(run(kind, b"long"), ValueError)
