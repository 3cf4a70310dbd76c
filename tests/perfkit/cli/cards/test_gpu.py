"""``perfkit gpu``: for people, for programs, and on a machine without a card."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.cli.cards import gpu
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import Found
from perfkit.gpu.processes import fdinfo
from perfkit.gpu.processes.fdinfo import Processes, ProcessUse
from perfkit.gpu.sources import tools
from perfkit.gpu.sources.asking import ToolError
from tests.perfkit.gpu.trees import RECORDINGS, SENSOR_FILES, Kernel

Call = Callable[..., Result]
#: The names that programs rely on.
NAMES = (
    "pci name driver state is_apu gpu_busy_pct mem_busy_pct vram_used_bytes vram_total_bytes "
    "vis_vram_used_bytes gtt_used_bytes gtt_total_bytes sclk_hz mclk_hz power_w power_kind "
    "power_cap_w temp_edge_c temp_junction_c temp_memory_c fan_rpm voltage_mv pcie_gen pcie_width "
    "throttle_bits source errors"
).split()


class Looks:
    """A pause that is interrupted after that number of looks, as by Ctrl-C."""

    def __init__(self, left: int) -> None:
        self.left = left

    def wait(self, timeout: float) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> None:
    use = ProcessUse(12, "trainer", "0000:0a:00.0", 4 << 20, None, {"gfx": 5})
    monkeypatch.setattr(fdinfo, "look", lambda: Processes((use,), ("3 more are hidden",)))


def test_a_program_gets_a_list_of_cards_and_nothing_else(perfkit: Call, tmp_path: Path) -> None:
    plant(tmp_path / "drm")
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--json")
    assert (ran.exit_code, ran.stderr) == (0, "")
    (card,) = json.loads(ran.stdout)
    assert set(NAMES) <= set(card)
    assert (card["pci"], card["gpu_busy_pct"], card["power_w"]) == ("0000:0a:00.0", 37, 83.021)
    assert (card["temp_junction_c"], card["state"], card["power_kind"]) == (
        None, "active", "instant"
    )  # fmt: skip


def test_people_see_a_few_lines_for_each_card(perfkit: Call, tmp_path: Path) -> None:
    plant(tmp_path / "drm", {**POLARIS, "mem_busy_percent": None})
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "0000:0a:00.0  AMD Polaris 10 [1002:67df], amdgpu, active",
        "  busy 37 %, memory controller unknown; VRAM 1.0 GiB of 8.0 GiB, GTT 20.0 MiB",
        "  core 611 MHz, memory 2,000 MHz, 900 mV; power 83.02 W (instant) of 145 W",
        "  edge 61 °C, junction unknown, memory unknown; fan 1,210 rpm; PCIe 3.0 x16",
        "  --json tells why the rest is unknown",
    ]


def test_without_a_card_it_says_so_and_ends_well(perfkit: Call, tmp_path: Path) -> None:
    root = tmp_path / "drm"
    plant(root, {"vendor": "0x10de\n"})
    sentence = f"no AMD card below {root} (card0 is of vendor 0x10de, not AMD)"
    ran = perfkit("gpu", "--drm-root", root)
    assert (ran.exit_code, ran.stdout.replace("\n", "")) == (0, sentence)
    ran = perfkit("gpu", "--drm-root", root, "--json")
    assert (ran.exit_code, ran.stdout) == (0, "[]\n")
    assert ran.stderr.replace("\n", "") == sentence


def test_a_folder_that_is_not_there_is_refused(perfkit: Call) -> None:
    ran = perfkit("gpu", "--drm-root", "nowhere")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--drm-root: nowhere is not a folder" in ran.stderr


def test_tools_answer_for_a_folder_by_address(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm", {**POLARIS, "gpu_busy_percent": None})
    tool = tmp_path / "bin" / "rocm-smi"
    tool.parent.mkdir()
    answer = json.dumps({"card7": {"PCI Bus": "0000:0A:00.0", "GPU use (%)": "12"}})
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--tools", "--json")
    (card,) = json.loads(ran.stdout)
    assert card["gpu_busy_pct"] == 12
    assert "an answer counts for the card with its PCI address" in ran.stderr


def test_tools_are_asked_on_request(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    monkeypatch.setattr(tools, "vendor_tools", lambda: made.append(True) or ())
    for arguments, asked in (((), 0), (("--tools",), 1)):
        assert perfkit("gpu", "--json", *arguments).exit_code == 0
        assert len(made) == asked


def test_watching_gives_a_line_each_second(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm")
    monkeypatch.setattr(gpu, "PAUSE", Looks(3))
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--json", "--watch")
    assert ran.exit_code == 0
    assert [json.loads(line)[0]["pci"] for line in ran.stdout.splitlines()] == ["0000:0a:00.0"] * 3


def test_watching_without_a_terminal_gives_a_line_for_each_card_and_look(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm")
    monkeypatch.setattr(gpu, "PAUSE", Looks(2))
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--watch")
    assert ran.exit_code == 0
    figures = "0000:0a:00.0  busy 37 %, VRAM 1.0/8 GiB, power 83/145 W, hottest 61 °C"
    assert [line.partition("  ")[2] for line in ran.stdout.splitlines()] == [figures] * 2


def test_watching_in_a_terminal_keeps_a_table_until_it_is_interrupted(
    terminal: Any, tmp_path: Path
) -> None:
    plant(tmp_path / "drm")
    watching = terminal("gpu", "--drm-root", tmp_path / "drm", "--watch")
    watching.wait_for("▄  37 %")
    watching.wait_for("AMD Polaris 10")
    watching.wait_for("Ctrl-C ends it")
    assert watching.interrupt() == 130


def test_watching_wakes_no_card_that_sleeps(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm", {**POLARIS, "power/runtime_status": "suspended\n"})
    monkeypatch.setattr(gpu, "PAUSE", Looks(3))
    kernel = Kernel(monkeypatch)
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--watch")
    assert ran.stdout.count("asleep, and not woken to be asked") == 3
    assert "runtime_status" in kernel.read
    assert not [name for name in kernel.read if name.startswith(SENSOR_FILES)]


def test_watching_without_a_card_says_so(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "PAUSE", Looks(1))
    assert "no AMD card below" in perfkit("gpu", "--drm-root", tmp_path, "--watch").stdout


@pytest.mark.usefixtures("uses")
def test_processes_are_shown_on_request(perfkit: Call, tmp_path: Path) -> None:
    plant(tmp_path / "drm")
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--json", "--processes")
    (card,) = json.loads(ran.stdout)
    (use,) = card["processes"]
    assert use | {
        "pid": 12, "name": "trainer", "pci": "0000:0a:00.0", "vram_bytes": 4 << 20,
        "gtt_bytes": None, "engine_ns": {"gfx": 5}, "shared_with": [],
    } == use  # fmt: skip
    assert ran.stderr == "3 more are hidden\n"
    shown = perfkit("gpu", "--drm-root", tmp_path / "drm", "--processes").stdout
    assert "0000:0a:00.0   12  trainer  4.0 MiB  unknown  gfx 0.0 s" in shown
    assert "3 more are hidden" in shown


def test_a_tool_that_does_not_answer_is_told_of(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> dict[str, Found]:
        raise ToolError("rocm-smi is missing")

    plant(tmp_path / "drm", {"vendor": "0x1002\n"})
    monkeypatch.setattr("perfkit.gpu.device.discovery.DRM_ROOT", tmp_path / "drm")
    monkeypatch.setattr(tools, "vendor_tools", lambda: (tools.Tool(fail),))
    ran = perfkit("gpu", "--tools")
    assert (ran.exit_code, ran.stderr) == (0, "rocm-smi is missing\n")


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--watch"]])
def test_a_name_can_not_steer_the_terminal(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    plant(tmp_path / "drm", {**POLARIS, "product_name": b"RX\xff\xfe580\x1b[31m\n"})
    recorded = RECORDINGS / "cases/nonutf8/drm"
    monkeypatch.setattr(gpu, "PAUSE", Looks(1))
    for root in (tmp_path / "drm", *([recorded] if recorded.exists() else [])):
        ran = perfkit("gpu", "--drm-root", root, *arguments)
        assert (ran.exit_code, ran.stderr) == (0, "")
        assert "\x1b" not in ran.stdout
        assert "--watch" in arguments or "RX\N{REPLACEMENT CHARACTER}" in ran.stdout
