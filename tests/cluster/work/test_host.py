"""A worker knows its own memory and its host's; what it can't know is None, never 0."""

from pathlib import Path

import psutil
import pytest

from cluster.vocabulary.task import Load
from cluster.work.host import host_load


def test_a_worker_knows_its_memory():
    load = host_load()
    assert load.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.5)
    assert 0 < load.memory_free_bytes < psutil.virtual_memory().total
    assert load.gpus == ()


@pytest.mark.parametrize("text", [None, "", "one", "a b", "MemAvailable:", "MemAvailable: much kB"])
def test_what_can_not_be_read_or_understood_is_unknown(monkeypatch, text):
    def read(path):
        if text is None:
            raise PermissionError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert host_load() == Load()
