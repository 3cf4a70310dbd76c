"""The instruments by the names a notebook imports: each there, none loaded before it is used."""

import subprocess
import sys

import pytest

from perfkit import profile


def test_every_public_name_has_a_home() -> None:
    assert [name for name in profile.__all__ if not callable(getattr(profile, name))] == []
    assert sorted(set().union(*profile._HOMES.values())) == sorted(profile.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = profile.nothing


def test_no_instrument_is_loaded_before_it_is_used() -> None:
    code = "import perfkit.profile.findings, sys; print(*sys.modules)"
    python = [sys.executable, "-c", code]
    loaded = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    assert "perfkit.profile.findings" in loaded
    assert {"memray", "objgraph", "memory_profiler", "psutil", "zmq"}.isdisjoint(loaded)
