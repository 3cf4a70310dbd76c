"""Counts of system calls: what strace writes, and the reason where there are none."""

import pytest

from perfkit.profile import system_calls
from perfkit.profile.system_calls import SystemCalls, count_system_calls, read_summary

SUMMARY = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 45.23    0.119759          88      1353           epoll_wait
  1.84    0.004875           4      1148         7 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.264800          13      2501         7 total
"""


def test_a_summary_is_read_without_its_total() -> None:
    found = read_summary(SUMMARY)
    assert found == SystemCalls({"epoll_wait": 1353, "recvfrom": 1148})
    assert found.total == 2501


def test_without_strace_the_counts_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_calls, "program", lambda name: None)
    found = count_system_calls(1, lambda: None)
    assert found.total is None
    assert "not installed" in found.reason


def test_a_process_that_is_not_there_is_a_reason() -> None:
    found = count_system_calls(2**22 + 1, lambda: None)
    assert (found.calls, found.total) == ({}, None)
    assert found.reason
