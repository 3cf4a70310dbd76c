"""A zero that stands for unknown is unknown, whichever source says it."""

import json
from pathlib import Path

import pytest

from perfkit.gpu.card import FastReader
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import NEVER_ZERO, Found
from perfkit.gpu.sources import amdsmi
from perfkit.gpu.sources.smi import parse_amd_smi, parse_rocm_smi
from tests.perfkit.gpu.trees import card_of, sample_of, table_v1_3

HWMON = {
    "temp_edge_c": "hwmon/hwmon2/temp1_input",
    "voltage_mv": "hwmon/hwmon2/in0_input",
    "power_w": "hwmon/hwmon2/power1_input",
}
UNKNOWN = "0, which stands for an unknown value"


@pytest.mark.parametrize(("name", "file"), HWMON.items())
def test_a_file_of_hwmon_that_says_zero_leaves_its_field_unknown(
    tmp_path: Path, name: str, file: str
) -> None:
    plant(tmp_path, {**POLARIS, file: "0\n"})
    sample = sample_of(tmp_path)
    assert getattr(sample, name) is None
    assert sample.errors[name].endswith(UNKNOWN)
    assert FastReader(card_of(tmp_path), [name, "gpu_busy_pct"]).read().values == (None, 37)


def test_a_zero_gives_way_to_the_next_source(tmp_path: Path) -> None:
    table = table_v1_3(temperature_edge=50, average_socket_power=90)
    zeros = {HWMON["temp_edge_c"]: "0\n", HWMON["power_w"]: "0\n"}
    plant(tmp_path, {**POLARIS, **zeros, "gpu_metrics": table})
    sample = sample_of(tmp_path)
    assert (sample.temp_edge_c, sample.power_w) == (50, 90)


def test_only_the_fans_own_file_says_that_a_fan_stands_still(tmp_path: Path) -> None:
    table = {"gpu_metrics": table_v1_3(temperature_edge=50, current_fan_speed=0)}
    plant(tmp_path, {**POLARIS, **table, "hwmon/hwmon2/fan1_input": "0\n"})
    assert sample_of(tmp_path).fan_rpm == 0
    plant(tmp_path, {**POLARIS, **table, "hwmon/hwmon2/fan1_input": None})
    sample = sample_of(tmp_path)
    assert sample.fan_rpm is None
    assert sample.errors["fan_rpm"] == (
        "gpu_metrics:v1.3:current_fan_speed: 0, which a card without a fan says too"
    )


def test_what_may_be_zero_stays_zero(tmp_path: Path) -> None:
    zeros = dict.fromkeys(["gpu_busy_percent", "mem_busy_percent", "mem_info_vram_used"], "0\n")
    plant(tmp_path, {**POLARIS, **zeros, "hwmon/hwmon2/freq1_input": "0\n"})
    sample = sample_of(tmp_path)
    told = (sample.gpu_busy_pct, sample.mem_busy_pct, sample.vram_used_bytes, sample.sclk_hz)
    assert told == (0, 0, 0, 0)


ROCM_SMI = {
    "PCI Bus": "0000:09:00.0",
    "Temperature (Sensor memory) (C)": "0.0",
    "Average Graphics Package Power (W)": "0.0",
    "Voltage (mV)": "0",
    "Fan RPM": "0",
    "GPU use (%)": "0",
}
AMD_SMI = {
    "gpu": 0,
    "temperature": {"mem": {"value": 0, "unit": "C"}},
    "power": {"socket_power": {"value": 0, "unit": "W"}, "gfx_voltage": 0},
    "energy": {"total_energy_consumption": {"value": 0.0, "unit": "J"}},
    "fan": {"rpm": 0},
    "usage": {"gfx_activity": {"value": 0, "unit": "%"}},
}
AMDSMI = {
    "memory": 0,
    "power": {"average_socket_power": 0, "gfx_voltage": 0},
    "activity": {"gfx_activity": 0},
}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(
            lambda: parse_rocm_smi(json.dumps({"card0": ROCM_SMI}))["0000:09:00.0"], id="rocm-smi"
        ),
        pytest.param(lambda: parse_amd_smi(json.dumps([AMD_SMI]))["card0"], id="amd-smi"),
        pytest.param(lambda: amdsmi.parse(AMDSMI), id="amdsmi"),
    ],
)
def test_a_tools_zero_is_unknown_where_a_files_is(found: object) -> None:
    told = found()  # type: ignore[operator]
    assert {name: field.value for name, field in told.values.items()} == {"gpu_busy_pct": 0}
    assert {"temp_memory_c", "power_w", "voltage_mv"} <= told.troubles.keys()


@pytest.mark.parametrize("name", sorted(NEVER_ZERO))
def test_every_field_that_is_never_zero_refuses_it_from_any_source(name: str) -> None:
    found = Found()
    found.put(name, 0.0, "any:source")
    assert found.values == {}
    assert found.troubles[name].text == f"any:source: {UNKNOWN}"
    found.put(name, 0.5, "other:source")
    assert found.values[name].value == 0.5


# What says more than that a file is missing


def test_a_reason_replaces_the_one_that_a_file_is_missing_and_no_other() -> None:
    found = Found()
    found.fail("power_w", "no such file", 2)
    found.fail("power_w", "refused")
    found.fail("power_w", "later")
    assert found.troubles["power_w"].text == "refused"
