"""The vendor's tools: the answers of each release, and tools that do not answer."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfkit.gpu.card import Cards
from perfkit.gpu.device.made_up import plant
from perfkit.gpu.device.schema import Found, PowerKind
from perfkit.gpu.sources import amdsmi, asking
from perfkit.gpu.sources.asking import ToolError, run
from perfkit.gpu.sources.documents import documents, number_of
from perfkit.gpu.sources.smi import parse_amd_smi, parse_rocm_smi
from perfkit.gpu.sources.tools import RETRY_S, Tool, vendor_tools
from tests.perfkit.gpu.trees import RECORDINGS


def values(found: Found) -> dict[str, float]:
    return {name: reading.value for name, reading in found.values.items()}


OLD = {
    "PCI Bus": "0000:1E:00.0",
    "Temperature (Sensor edge) (C)": "31.0",
    "Temperature (Sensor junction) (C)": "N/A",
    "sclk clock speed:": "(300Mhz)",
    "sclk clock level:": "0",
    "mclk clock speed:": "(1200Mhz)",
    "pcie clock level": "0 (8.0GT/s x16)",
    "Average Graphics Package Power (W)": "39.0",
    "Max Graphics Package Power (W)": "290.0",
    "GPU use (%)": "7",
    "GPU memory use (%)": "3",
    "VRAM Total Memory (B)": "34342961152",
    "VRAM Total Used Memory (B)": "6782976",
    "Card series": "Arcturus",
}
NEW = {
    "PCI Bus": "0000:1E:00.0",
    "Current Socket Graphics Package Power (W)": "41.5",
    "GPU Memory Allocated (VRAM%)": "12",
    "GPU Memory Read/Write Activity (%)": "4",
    "Card Series": "Arcturus",
    "Voltage (mV)": 662,
}


def test_rocm_smi_of_old_keys() -> None:
    text = "WARNING: AMD GPU device(s) is/are in a low-power state\n\n" + json.dumps(
        {"card0": OLD, "system": {"Driver version": "6.2.4"}}
    )
    cards = parse_rocm_smi(text)
    assert [*cards] == ["0000:1e:00.0"]
    assert values(cards["0000:1e:00.0"]) == {
        "temp_edge_c": 31.0, "sclk_hz": 300_000_000, "mclk_hz": 1_200_000_000,
        "pcie_speed_gts": 8.0, "pcie_width": 16, "power_w": 39.0, "power_cap_w": 290.0,
        "gpu_busy_pct": 7, "mem_busy_pct": 3, "vram_total_bytes": 34342961152,
        "vram_used_bytes": 6782976,
    }  # fmt: skip
    assert cards["0000:1e:00.0"].values["power_w"].kind is PowerKind.AVERAGE


def test_rocm_smi_of_new_keys() -> None:
    found = parse_rocm_smi(json.dumps({"card3": NEW | {"PCI Bus": "N/A"}}))["card3"]
    assert values(found) == {"power_w": 41.5, "mem_busy_pct": 4, "voltage_mv": 662}
    assert found.values["power_w"].kind is PowerKind.SOCKET


#: By hand from the recorded files: utilisation, memory in use, power, hottest, core clock.
BY_HAND = {
    "mi100_rocm571": ("0000:1e:00.0", 0, 6782976, 39.0, 34.0, 300_000_000),
    "rx6700xt_rocm430": ("0000:07:00.0", 0, 1622728704, 6.0, 47.0, 500_000_000),
    "rx6700xt_rocm612": ("0000:07:00.0", 0, 1572745216, 6.0, 47.0, 0),
    "vega-10-XT": ("0000:04:00.0", 0, 17776640, 15.0, 40.0, 1_269_000_000),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_recorded_answers_of_rocm_smi(name: str) -> None:
    file = RECORDINGS / "rocm_smi" / f"{name}.json"
    if not file.exists():
        pytest.skip(f"no recorded answers in {RECORDINGS}")
    pci, *expected = BY_HAND[name]
    told = values(parse_rocm_smi(file.read_text())[pci])
    fields = ("gpu_busy_pct", "vram_used_bytes", "power_w", "temp_junction_c", "sclk_hz")
    assert [told[field] for field in fields] == expected


METRIC = {
    "gpu": 0,
    "usage": {"gfx_activity": {"value": 42, "unit": "%"}, "umc_activity": "N/A"},
    "power": {
        "socket_power": {"value": 250, "unit": "W"},
        "gfx_voltage": {"value": 900, "unit": "mV"},
    },
    "clock": {"gfx_0": {"clk": {"value": 1877, "unit": "MHz"}}, "mem_0": {"clk": 900}},
    "temperature": {
        "edge": "N/A",
        "hotspot": {"value": 66, "unit": "C"},
        "mem": {"value": 59, "unit": "F"},
    },
    "mem_usage": {"total_vram": {"value": 16384, "unit": "MB"}, "used_vram": 1024},
    "pcie": {"width": 16, "speed": {"value": 16, "unit": "GT/s"}},
    "energy": {"total_energy_consumption": {"value": 12.5, "unit": "J"}},
}  # fmt: skip
EXPECTED = {
    "gpu_busy_pct": 42, "power_w": 250, "voltage_mv": 900, "sclk_hz": 1_877_000_000,
    "mclk_hz": 900_000_000, "temp_junction_c": 66, "vram_total_bytes": 16 << 30,
    "vram_used_bytes": 1 << 30, "pcie_width": 16, "pcie_speed_gts": 16, "energy_j": 12.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "cards", "key"),
    [
        ([METRIC], "[]", "card0"),
        ({"gpu_data": [METRIC]}, "[]", "card0"),
        ([METRIC], '[{"gpu": 0, "bdf": "0000:0A:00.0"}]', "0000:0a:00.0"),
        ([METRIC | {"bus": {"bdf": "0000:0B:00.0"}}], "[]", "0000:0b:00.0"),
    ],
)
def test_amd_smi_in_a_list_or_below_gpu_data(metric: Any, cards: str, key: str) -> None:
    answer = parse_amd_smi("WARNING: no permission\n" + json.dumps(metric), cards)
    assert [*answer] == [key]
    assert values(answer[key]) == EXPECTED
    assert answer[key].troubles["temp_memory_c"].text == "amd-smi:temperature.mem: in f, not in c"


@pytest.mark.parametrize(
    "text",
    ["", "no JSON here", "[]", "{", "[" * 100_000, '["a"]', "WARNING: {broken\n", "[1, 2]"],
)
@pytest.mark.parametrize("parse", [parse_rocm_smi, parse_amd_smi])
def test_an_answer_without_cards_is_an_error(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ToolError, match="JSON"):
        parse(text)


def test_answers_of_another_shape_are_errors() -> None:
    with pytest.raises(ToolError, match="a list, not an object"):
        parse_rocm_smi('[{"card0": {}}]')
    with pytest.raises(ToolError, match="no list of cards"):
        parse_amd_smi('{"gpu_data": "N/A"}')


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("39.0", 39.0), (" 7 ", 7), (5, 5), (2.5, 2.5), ("-3", -3), ("N/A", None), ("", None),
        ("1_000", None), ("1e3", None), ("inf", None), (True, None), (None, None), ([], None),
        (float("inf"), None), ("9" * 40, None), ("٣", None),
    ],
)  # fmt: skip
def test_only_plain_figures_are_figures(told: Any, value: float | None) -> None:
    assert number_of(told) == value


class Module:
    """A module that answers as amdsmi does, and raises for missing sensors."""

    AmdSmiTemperatureType = SimpleNamespace(EDGE=0, JUNCTION=1, VRAM=2)
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)
    AmdSmiClkType = SimpleNamespace(GFX=0)
    AmdSmiMemoryType = SimpleNamespace(VIS_VRAM=1, GTT=2)

    def __init__(self) -> None:
        self.calls: list[str] = []

    def amdsmi_init(self) -> None:
        self.calls.append("init")

    def amdsmi_shut_down(self) -> None:
        self.calls.append("shut down")

    def amdsmi_get_processor_handles(self) -> list[str]:
        return ["a", "b"]

    def amdsmi_get_gpu_device_bdf(self, handle: str) -> str:
        if handle == "b":
            raise RuntimeError("no such card")
        return "0000:0A:00.0"

    def amdsmi_get_gpu_activity(self, handle: str) -> Mapping[str, Any]:
        return {"gfx_activity": 91, "umc_activity": 0xFFFF, "mm_activity": "N/A"}

    def amdsmi_get_power_info(self, handle: str) -> Mapping[str, Any]:
        return {"current_socket_power": "N/A", "average_socket_power": 120}

    def amdsmi_get_gpu_vram_usage(self, handle: str) -> Mapping[str, Any]:
        return {"vram_total": 8192, "vram_used": 100}

    def amdsmi_get_temp_metric(self, handle: str, kind: int, metric: int) -> int:
        return 50 + kind

    def amdsmi_get_gpu_memory_total(self, handle: str, kind: int) -> int:
        return kind << 30

    def amdsmi_get_gpu_memory_usage(self, handle: str, kind: int) -> int:
        return kind << 20

    def amdsmi_get_gpu_fan_rpms(self, handle: str, sensor: int) -> str:
        return "N/A"

    def amdsmi_get_clock_info(self, handle: str, kind: int) -> Mapping[str, Any]:
        return {"clk": 1700}


def test_the_module_is_asked_function_by_function() -> None:
    module = Module()
    cards = amdsmi.ask_module(module)
    assert module.calls == ["init", "shut down"]
    assert {key: values(found) for key, found in cards.items()} == {
        "0000:0a:00.0": {
            "gpu_busy_pct": 91, "power_w": 120, "vram_total_bytes": 8 << 30,
            "vram_used_bytes": 100 << 20, "temp_edge_c": 50, "temp_junction_c": 51,
            "temp_memory_c": 52, "sclk_hz": 1_700_000_000, "vis_vram_total_bytes": 1 << 30,
            "vis_vram_used_bytes": 1 << 20, "gtt_total_bytes": 2 << 30, "gtt_used_bytes": 2 << 20,
        }
    }  # fmt: skip
    assert cards["0000:0a:00.0"].troubles["fan_rpm"].text == "amdsmi:fan: N/A"
    assert cards["0000:0a:00.0"].values["power_w"].kind is PowerKind.AVERAGE


def test_a_partition_that_tells_nothing_does_not_replace_its_card() -> None:
    module = Module()
    module.amdsmi_get_processor_handles = lambda: ["a", "c"]  # type: ignore[method-assign]
    usual = module.amdsmi_get_gpu_activity

    def once(handle: str) -> Mapping[str, Any]:
        if handle == "c":
            raise RuntimeError("not of a partition")
        return usual(handle)

    for name in ("power_info", "gpu_vram_usage", "temp_metric", "clock_info", "gpu_memory_total",
                 "gpu_memory_usage"):  # fmt: skip
        setattr(module, f"amdsmi_get_{name}", None)
    module.amdsmi_get_gpu_activity = once  # type: ignore[method-assign]
    (found,) = amdsmi.ask_module(module).values()
    assert values(found) == {"gpu_busy_pct": 91}


def test_a_module_that_does_not_start_is_an_error() -> None:
    with pytest.raises(ToolError, match="amdsmi: "):
        amdsmi.ask_module(SimpleNamespace())


def test_a_module_that_can_not_be_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(ToolError, match="amdsmi can't be imported"):
        amdsmi.ask()


def test_an_importable_module_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", Module())  # type: ignore[arg-type]
    assert [*amdsmi.ask()] == ["0000:0a:00.0"]


# Answers in several documents


def amd(number: int, **facts: Any) -> dict[str, Any]:
    return {"gpu": number, **facts}


BUSY = {"usage": {"gfx_activity": {"value": 5, "unit": "%"}}}
POWER = {"power": {"socket_power": {"value": 100, "unit": "W"}}}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([amd(0, **BUSY), amd(1, **POWER)]),
        json.dumps([amd(0, **BUSY)]) + json.dumps([amd(1, **POWER)]),
        json.dumps([amd(1, **POWER)], indent=4) + "\nWARNING: [gpu 0] slow\n"
        + json.dumps(amd(0, **BUSY)),
        "AMD-SMI 26.0 {banner}\n" + json.dumps({"gpu_data": [amd(0, **BUSY)]}) + "\n=====\n"
        + json.dumps({"gpu_data": amd(1, **POWER)}),
        '{"gpu_data": null}' + json.dumps([amd(0, **BUSY)]) + '{"gpu_data": 5}'
        + json.dumps([amd(1, **POWER), "N/A"]) + '{"gpu_data": "N/A"}',
        json.dumps([amd(0, **BUSY), amd(1, power="N/A")])
        + json.dumps([amd(0, usage="N/A"), amd(1, **POWER)]),
    ],
)  # fmt: skip
def test_every_document_of_an_answer_is_read_in_any_order(text: str) -> None:
    answer = parse_amd_smi(text)
    assert {key: values(found) for key, found in answer.items()} == {
        "card0": {"gpu_busy_pct": 5}, "card1": {"power_w": 100}
    }  # fmt: skip


def test_documents_of_rocm_smi_add_up_to_one_card() -> None:
    memory = {"card0": {"VRAM Total Memory (B)": "1024", "GPU use (%)": "N/A"}}
    use = {"card0": {"PCI Bus": "0000:03:00.0", "GPU use (%)": "12"}}
    for first, second in ((use, memory), (memory, use)):
        text = f"WARNING: asleep\n{json.dumps(first)}\n\n[1]\n{json.dumps(second)}\nDone."
        (found,) = parse_rocm_smi(text).values()
        assert values(found) == {"vram_total_bytes": 1024, "gpu_busy_pct": 12}


NOTHING = {"usage": "N/A", "power": {"socket_power": "N/A"}, "clock": {"gfx_0": {"clk": "N/A"}}}


def test_a_partition_without_values_does_not_replace_its_card() -> None:
    places = json.dumps([{"gpu": n, "bdf": "0000:0C:00.0", "partition_id": n} for n in range(3)])
    for first, second in ((BUSY, NOTHING), (NOTHING, BUSY)):
        metrics = json.dumps([amd(0, **first), amd(1, **second), amd(2, **NOTHING)])
        answer = parse_amd_smi(metrics, places)
        assert {key: values(found) for key, found in answer.items()} == {
            "0000:0c:00.0": {"gpu_busy_pct": 5}
        }
    card, other = {"PCI Bus": "0000:0C:00.0", "GPU use (%)": "5"}, {"PCI Bus": "0000:0C:00.0"}
    for text in (
        json.dumps({"card0": card, "card1": other | {"GPU use (%)": "N/A"}}),
        json.dumps({"card0": other | {"GPU use (%)": "N/A"}, "card1": card}),
        f'{{"card0": {json.dumps(card)}, "card0": {{"GPU use (%)": "N/A"}}}}',
    ):
        assert values(parse_rocm_smi(text)["0000:0c:00.0"]) == {"gpu_busy_pct": 5}


def test_the_first_partition_with_values_speaks_for_the_card() -> None:
    entries = {
        "card10": {"PCI Bus": "0000:0C:00.0", "GPU use (%)": "9"},
        "card2": {"PCI Bus": "0000:0C:00.0", "GPU use (%)": "5"},
    }
    assert values(parse_rocm_smi(json.dumps(entries))["0000:0c:00.0"]) == {"gpu_busy_pct": 5}


# Keys and units of all releases


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("sclk clock speed:", "(300Mhz)", "sclk_hz", 300_000_000),
        ("sclk clock speed", "2045Mhz", "sclk_hz", 2_045_000_000),
        ("sclk clock level", "1 (808Mhz)", "sclk_hz", 808_000_000),
        ("mclk clock level", "0 (96 MHz)", "mclk_hz", 96_000_000),
        ("sclk clock level", "1", "sclk_hz", None),
        ("pcie clock level", "1 (16.0GT/s x8)", "pcie_width", 8),
        ("pcie clock level", "0 (2.5GT/s, x1 310Mhz)", "pcie_speed_gts", 2.5),
        ("Average Graphics Package Power", "39.0 W", "power_w", 39.0),
        ("Average Graphics Package Power (W)", "39.0W", "power_w", 39.0),
        ("Current Socket Graphics Package Power (W)", "55", "power_w", 55),
        ("GPU use (%)", "7%", "gpu_busy_pct", 7),
        ("GPU use", "7", "gpu_busy_pct", 7),
        ("vram Total Memory (B)", "1024", "vram_total_bytes", 1024),
        ("VRAM Total Memory (MiB)", "16", "vram_total_bytes", 16 << 20),
        ("Voltage (mV)", "706", "voltage_mv", 706),
        ("Voltage (V)", "0.706", "voltage_mv", 706),
        ("Memory Activity", "123456", "mem_busy_pct", None),
        ("GPU Memory Allocated (VRAM%)", "12", "mem_busy_pct", None),
    ],
)
def test_keys_of_rocm_smi(key: str, value: str, field: str, expected: float | None) -> None:
    found = parse_rocm_smi(json.dumps({"card0": {key: value}}))["card0"]
    assert values(found).get(field) == expected


@pytest.mark.parametrize(
    ("facts", "field", "expected"),
    [
        ({"power": 12}, "power_w", 12),
        ({"power": {"current_power": "12 W"}}, "power_w", 12),
        ({"power": {"socket_power": {"value": 12_000, "unit": "mW"}}}, "power_w", 12),
        ({"power": {"socket_power": "N/A", "average_socket_power": 9}}, "power_w", 9),
        ({"limit": {"max_power": 300}}, "power_cap_w", None),
        ({"limit": {"max_power": 300, "socket_power": "250 W"}}, "power_cap_w", 250),
        ({"usage": {"gfx_activity": "42 %"}}, "gpu_busy_pct", 42),
        ({"usage": {"gfx_activity": {"value": 42, "unit": None}}}, "gpu_busy_pct", 42),
        ({"usage": {"gfx_activity": {"value": "42", "unit": "%"}}}, "gpu_busy_pct", 42),
        ({"clock": {"gfx": {"cur_clk": {"value": 1.5, "unit": "GHz"}}}}, "sclk_hz", 1_500_000_000),
        ({"clock": {"mem_0": {"clk": {"value": 96, "unit": "Mhz"}}}}, "mclk_hz", 96_000_000),
        ({"temperature": {"hotspot": {"value": 66, "unit": "°C"}}}, "temp_junction_c", 66),
        ({"temperature": {"edge": {"value": 66, "unit": "\N{DEGREE SIGN}c"}}}, "temp_edge_c", 66),
        ({"mem_usage": {"total_vram": {"value": 16, "unit": "GiB"}}}, "vram_total_bytes", 16 << 30),
        ({"fb_usage": {"vram_used": 16}}, "vram_used_bytes", 16 << 20),
        ({"pcie": {"current_speed": {"value": 16_000, "unit": "MT/s"}}}, "pcie_speed_gts", 16),
        ({"pcie": {"current_speed": 16_000}}, "pcie_speed_gts", None),
        ({"energy": {"total_energy_consumption": {"value": 5, "unit": "kJ"}}}, "energy_j", 5_000),
        ({"power": {"gfx_voltage": {"value": 900_000, "unit": "µV"}}}, "voltage_mv", 900),
    ],
)  # fmt: skip
def test_places_and_units_of_amd_smi(
    facts: dict[str, Any], field: str, expected: float | None
) -> None:
    found = parse_amd_smi(json.dumps([amd(0, **facts)]))["card0"]
    assert values(found).get(field) == (None if expected is None else pytest.approx(expected))


def test_a_value_that_is_not_told_has_a_reason_that_is_fit_to_print() -> None:
    answer = {"card0": {"GPU use (%)": "N/A", "Fan RPM": "\x1b[31m" * 20}}
    found = parse_rocm_smi(json.dumps(answer))["card0"]
    assert found.troubles["gpu_busy_pct"].text == "rocm-smi:gpu use (%): N/A"
    assert found.troubles["fan_rpm"].text.startswith("rocm-smi:fan rpm: \\u001b[31m")
    assert len(found.troubles["fan_rpm"].text) < 80
    found = parse_amd_smi(json.dumps([amd(0, fan={"rpm": "N/A"})]))["card0"]
    assert found.troubles["fan_rpm"].text == "amd-smi:fan.rpm: N/A"


def test_documents_are_found_among_anything_and_the_search_ends() -> None:
    assert list(documents('x {"a": NaN} y [1] [{"b": {}}] {"c": ')) == [{"a": None}, [{"b": {}}]]
    assert list(documents("[" * 200_000)) == []


# Asking


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_tool_that_is_missing_fails_or_hangs_is_an_error(tmp_path: Path) -> None:
    script(tmp_path, "failing", "echo nothing >&2; exit 3")
    script(tmp_path, "hanging", "exec sleep 60")
    script(tmp_path, "warning", "echo '{}'; exit 2")
    with pytest.raises(ToolError, match="No such file"):
        run([str(tmp_path / "missing")])
    with pytest.raises(ToolError, match="ended with 3"):
        run([str(tmp_path / "failing")])
    with pytest.raises(ToolError, match=r"no answer within 0\.1 s"):
        run([str(tmp_path / "hanging")], timeout_s=0.1)
    assert run([str(tmp_path / "warning")]) == "{}\n"


def test_what_a_tool_complains_of_is_in_the_error_and_fit_to_print(tmp_path: Path) -> None:
    script(tmp_path, "rocm-smi", "printf 'first\\nno \\033[31mdriver\\n' >&2; exit 3")
    with pytest.raises(ToolError) as error:
        run([str(tmp_path / "rocm-smi")])
    assert str(error.value) == "rocm-smi ended with 3: no \\u001b[31mdriver"


def test_a_tool_that_floods_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "OUTPUT_BYTES", 100_000)
    script(tmp_path, "flood", "exec yes")
    with pytest.raises(ToolError, match="flood printed over 0 MiB"):
        run([str(tmp_path / "flood")], lambda text: False)
    script(tmp_path, "complains", "yes >&2 & echo '{}'; wait")
    with pytest.raises(ToolError, match=r"no answer within 0\.2 s: y"):
        run([str(tmp_path / "complains")], lambda text: False, timeout_s=0.2)


def test_an_answer_counts_although_the_tool_hangs_fails_or_leaves_a_child(tmp_path: Path) -> None:
    for end in ("exec sleep 60", "exit 9", "sleep 60 &"):
        script(tmp_path, "late", f"echo '{{}}'; echo bad >&2; {end}")
        assert run([str(tmp_path / "late")], timeout_s=0.5) == "{}\n"


def test_no_child_of_a_tool_outlives_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "held")
    with open(os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK), "rb") as held:
        script(tmp_path, "parent", f"sleep 60 > {tmp_path / 'held'} & echo started")
        assert run([str(tmp_path / "parent")]) == "started\n"
        os.set_blocking(held.fileno(), True)
        assert held.read() == b""  # ends when the child does


def test_tools_are_found_in_the_folders_of_rocm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("path", "root/bin", "opt"):
        (tmp_path / folder).mkdir(parents=True)
        script(tmp_path / folder, f"in-{folder[:4]}", "echo")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("ROCM_PATH", str(tmp_path / "root"))
    monkeypatch.setattr(asking, "ROCM_BIN", str(tmp_path / "opt"))
    for name in ("in-path", "in-root", "in-opt"):
        assert Path(asking.find(name)).name == name
    with pytest.raises(ToolError, match="in-none is neither in PATH nor in"):
        asking.find("in-none")


def test_an_answer_is_kept_for_a_while_and_a_failure_for_longer() -> None:
    now, asked = [0.0], []

    def ask() -> Mapping[str, Found]:
        asked.append(now[0])
        if now[0] >= 2:
            raise ToolError("gone")
        return {"card0": Found()}

    tool = Tool(ask, cache_s=1.0, clock=lambda: now[0])
    for now[0] in (0.0, 0.5, 1.0, 1.5, 2.0, 2.0 + RETRY_S / 2, 2.0 + RETRY_S):
        known = [*tool.cards()]
        assert known == (["card0"] if now[0] < 2 else [])
    assert asked == [0.0, 1.0, 2.0, 2.0 + RETRY_S]
    assert tool.error == "gone"


def test_a_card_takes_what_only_a_tool_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"card0": OLD | {"PCI Bus": "0000:0A:00.0", "Fan RPM": "99999"}})
    script(tmp_path, "rocm-smi", f"echo '{answer}'")
    script(tmp_path, "amd-smi", "echo '[]'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    plant(tmp_path / "drm", {"vendor": "0x1002\n", "uevent": "PCI_SLOT_NAME=0000:0a:00.0\n"})
    (sample,) = Cards(tmp_path / "drm", vendor_tools()).sample()
    assert (sample.power_w, sample.power_kind) == (39.0, PowerKind.AVERAGE)
    assert sample.source["gpu_busy_pct"] == "rocm-smi:gpu use (%)"
    assert "99,999 is not within" in sample.errors["fan_rpm"]


def test_a_tool_adds_nothing_to_a_card_that_it_does_not_know() -> None:
    found = Found()
    Tool(lambda: {"card7": Found()}).read(["0000:0a:00.0", None], ["power_w"], found)
    assert (found.values, found.troubles) == ({}, {})


def test_a_tools_reason_joins_the_others_and_its_failure_is_a_last_one() -> None:
    told = Found()
    told.fail("fan_rpm", "rocm-smi:fan rpm: N/A")
    found = Found()
    found.fail("fan_rpm", "hwmon:fan1_input: no such file", 2)
    Tool(lambda: {"card0": told}).read(["card0"], ["fan_rpm"], found)
    assert found.troubles["fan_rpm"] == (
        "hwmon:fan1_input: no such file; rocm-smi:fan rpm: N/A", 2
    )  # fmt: skip

    def fail() -> Mapping[str, Found]:
        raise ToolError("rocm-smi is missing")

    Tool(fail).read(["card0"], ["fan_rpm", "power_w"], found)
    assert "missing" not in found.troubles["fan_rpm"].text
    assert found.troubles["power_w"].text == "rocm-smi is missing"
