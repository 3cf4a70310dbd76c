"""The recorded situations of the vendor's tools and of fdinfo."""

import json
import sys
from pathlib import Path

import pytest

from perfkit.gpu.card import Cards
from perfkit.gpu.processes.fdinfo import look
from perfkit.gpu.sources.asking import find
from perfkit.gpu.sources.smi import parse_amd_smi
from perfkit.gpu.sources.tools import vendor_tools
from tests.perfkit.gpu.trees import RECORDINGS


def case(name: str) -> Path:
    folder = RECORDINGS / "cases" / name
    if not folder.exists():
        pytest.skip(f"no case {name} in {RECORDINGS}")
    return folder


def test_both_documents_of_an_answer_are_read() -> None:
    cards = parse_amd_smi((case("amdsmi_two_arrays") / "metric.json").read_text())
    told = {
        key: [found.values[name].value for name in ("gpu_busy_pct", "power_w")]
        for key, found in cards.items()
    }
    assert told == {"card0": [5, 100], "card1": [95, 300]}


def test_rocm_smi_is_asked_for_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = case("tools_e2e")
    # The recorded tool answers without memory, as `rocm-smi -a` does; this one tells it if asked.
    tool = tmp_path / "rocm-smi"
    memory = {"card0": {"VRAM Total Memory (B)": str(8 << 30), "VRAM Total Used Memory (B)": "5"}}
    asked = (
        f"case \"$*\" in *'--showmeminfo vram vis_vram gtt'*) echo '{json.dumps(memory)}';; esac"
    )
    tool.write_text(f"{(folder / 'bin/rocm-smi').read_text()}\n{asked}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    (sample,) = Cards(folder / "drm", vendor_tools()).sample()
    assert (sample.gpu_busy_pct, sample.power_w) == (12, 55.0)
    assert (sample.vram_total_bytes, sample.vram_used_bytes) == (8 << 30, 5)
    assert sample.source["vram_total_bytes"] == "rocm-smi:vram total memory (b)"


def test_the_recorded_tool_leaves_a_reason_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = case("tools_e2e")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert find("rocm-smi") == str(folder / "bin/rocm-smi")
    (sample,) = Cards(folder / "drm", vendor_tools()).sample()
    assert (sample.gpu_busy_pct, sample.vram_total_bytes) == (12, None)
    assert "vram_total_bytes" in sample.errors


def test_a_client_in_two_processes_counts_once() -> None:
    (use,) = look(case("fdinfo_shared_client") / "proc", Path("nowhere")).uses
    assert (use.pid, use.shared_with) == (100, (200,))
    assert (use.vram_bytes, use.gtt_bytes) == (1 << 30, 2 << 20)
    assert use.engine_ns == {"gfx": 1234, "compute": 99}
