"""``perfkit gpu``: for people, for programs, and on a machine without a card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from perfkit.cli import gpu
from perfkit.gpu import fdinfo
from perfkit.gpu.fdinfo import ProcessUse
from tests.perfkit.gpu.trees import POLARIS, plant

Call = Callable[..., Result]
#: The names that programs rely on.
NAMES = (
    "pci name driver state is_apu gpu_busy_pct mem_busy_pct vram_used_bytes vram_total_bytes "
    "vis_vram_used_bytes gtt_used_bytes gtt_total_bytes sclk_hz mclk_hz power_w power_kind "
    "power_cap_w temp_edge_c temp_junction_c temp_memory_c fan_rpm voltage_mv pcie_gen pcie_width "
    "throttle_bits source errors"
).split()


class Looks:
    """A pause that is interrupted after so many looks, as by Ctrl-C."""

    def __init__(self, left: int) -> None:
        self.left = left

    def wait(self, timeout: float) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> None:
    use = ProcessUse(12, "trainer", "0000:0a:00.0", 4 << 20, None, {"gfx": 5})
    monkeypatch.setattr(fdinfo, "processes", lambda: [use])


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


def test_people_see_a_few_lines_to_a_card(perfkit: Call, tmp_path: Path) -> None:
    plant(tmp_path / "drm", {**POLARIS, "mem_busy_percent": None})
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "0000:0a:00.0  AMD Polaris 10 [1002:67df], amdgpu, active",
        "  busy 37 %, memory controller –; VRAM 1.0 GiB of 8.0 GiB, GTT 20.0 MiB",
        "  core 611 MHz, memory 2000 MHz, 900 mV; power 83.02 W (instant) of 145 W",
        "  edge 61 °C, junction –, memory –; fan 1210 rpm; PCIe 3.0 x16",
        "  unknown or doubtful: mem_busy_pct",
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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--drm-root", "nowhere"], "--drm-root: nowhere is not a folder"),
        (["--drm-root", ".", "--tools"], "--tools asks this machine's cards"),
    ],
)
def test_wrong_words_are_told(perfkit: Call, arguments: list[str], complaint: str) -> None:
    ran = perfkit("gpu", *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert complaint in ran.stderr


def test_tools_are_asked_on_request(perfkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def cards(root: Path, tools: bool) -> Any:
        seen.append(tools)
        return made(root, tools)

    made = gpu._cards
    monkeypatch.setattr(gpu, "_cards", cards)
    assert perfkit("gpu", "--tools", "--json").exit_code == 0
    assert seen == [True]


def test_watching_gives_a_line_each_second(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm")
    monkeypatch.setattr(gpu.threading, "Event", lambda: Looks(3))
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--json", "--watch")
    assert ran.exit_code == 0
    assert [json.loads(line)[0]["pci"] for line in ran.stdout.splitlines()] == ["0000:0a:00.0"] * 3


def test_watching_people_see_the_newest(
    perfkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "drm")
    monkeypatch.setattr(gpu.threading, "Event", lambda: Looks(2))
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--watch")
    assert ran.exit_code == 0
    assert "AMD Polaris 10" in ran.stdout


@pytest.mark.usefixtures("uses")
def test_processes_are_shown_on_request(perfkit: Call, tmp_path: Path) -> None:
    plant(tmp_path / "drm")
    ran = perfkit("gpu", "--drm-root", tmp_path / "drm", "--json", "--processes")
    (card,) = json.loads(ran.stdout)
    assert card["processes"] == [
        {
            "pid": 12, "name": "trainer", "pci": "0000:0a:00.0", "vram_bytes": 4 << 20,
            "gtt_bytes": None, "engine_ns": {"gfx": 5},
        }
    ]  # fmt: skip
    shown = perfkit("gpu", "--drm-root", tmp_path / "drm", "--processes").stdout
    assert "0000:0a:00.0  pid 12 trainer: VRAM 4.0 MiB, GTT unknown" in shown
