"""Samples of made-up cards with every trap, whole and fast."""

import errno
import os
from pathlib import Path

import pytest

from perfkit.gpu.card import REPLAN_AFTER, Card, Cards, FastReader
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import SAMPLED_FIELDS, CardState, Found, PowerKind
from perfkit.gpu.sources.tools import Tool
from tests.perfkit.gpu.trees import Kernel, card_of, sample_of, table_v1_3


def test_a_polaris_of_today_is_sampled_whole(tmp_path: Path) -> None:
    plant(tmp_path)
    sample = sample_of(tmp_path)
    told = {name: value for name, value in sample.to_dict().items() if value is not None}
    del told["monotonic_s"], told["source"], told["errors"]
    assert told == {
        "card": "card0", "pci": "0000:0a:00.0", "name": "AMD Polaris 10 [1002:67df]",
        "driver": "amdgpu", "state": "active", "pci_id": "1002:67df", "family": "polaris",
        "is_apu": False, "gpu_busy_pct": 37, "mem_busy_pct": 12,
        "vram_used_bytes": 1 << 30, "vram_total_bytes": 8 << 30,
        "vis_vram_used_bytes": 1 << 20, "vis_vram_total_bytes": 256 << 20,
        "gtt_used_bytes": 20 << 20, "gtt_total_bytes": 8342712320,
        "sclk_hz": 611_000_000, "mclk_hz": 2_000_000_000,
        "power_w": 83.021, "power_kind": "instant", "power_cap_w": 145.0,
        "temp_edge_c": 61.0, "temp_edge_crit_c": 94.0, "fan_rpm": 1210, "voltage_mv": 900,
        "pcie_speed_gts": 8.0, "pcie_gen": 3, "pcie_width": 16,
    }  # fmt: skip
    assert set(sample.errors) == {name for name in SAMPLED_FIELDS if name not in told}
    assert sample.usable_free_bytes == 7 << 30
    assert sample.hottest_c == 61.0
    assert sample.source["power_w"] == "hwmon:power1_input"
    assert sample.source["sclk_hz"] == "hwmon:freq1_input"


@pytest.mark.parametrize(
    ("code", "symbol"),
    [
        (errno.EPERM, "EPERM"),
        (errno.EBUSY, "EBUSY"),
        (errno.EINVAL, "EINVAL"),
        (errno.ENODATA, "ENODATA"),
        (errno.EOPNOTSUPP, errno.errorcode[errno.EOPNOTSUPP]),
        (errno.ENODEV, "ENODEV"),
    ],
)
def test_a_file_that_refuses_leaves_its_field_unknown_with_the_reason(
    tmp_path: Path, kernel: Kernel, code: int, symbol: str
) -> None:
    plant(tmp_path)
    kernel.says["gpu_busy_percent"] = code
    sample = sample_of(tmp_path)
    assert sample.gpu_busy_pct is None
    assert sample.errors["gpu_busy_pct"].startswith(f"sysfs:gpu_busy_percent: {symbol}, ")
    assert sample.state is CardState.ACTIVE
    assert sample.power_w == 83.021


def test_a_missing_busy_file_is_unknown_and_not_idle(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "gpu_busy_percent": None})
    sample = sample_of(tmp_path)
    assert sample.gpu_busy_pct is None
    assert sample.errors["gpu_busy_pct"] == "sysfs:gpu_busy_percent: no such file"


@pytest.mark.parametrize(
    ("file", "content", "field", "value"),
    [
        ("gpu_busy_percent", "101\n", "gpu_busy_pct", None),
        ("gpu_busy_percent", "-1\n", "gpu_busy_pct", None),
        ("gpu_busy_percent", "", "gpu_busy_pct", None),
        ("gpu_busy_percent", "1_0\n", "gpu_busy_pct", None),
        ("gpu_busy_percent", "٣\n", "gpu_busy_pct", None),
        ("gpu_busy_percent", "12\n" + "\0" * 4093, "gpu_busy_pct", 12),
        ("gpu_busy_percent", "0\n", "gpu_busy_pct", 0),
        ("hwmon/hwmon2/power1_input", "4294967295\n", "power_w", None),
        ("hwmon/hwmon2/power1_input", "4294000000\n", "power_w", None),
        ("hwmon/hwmon2/power1_cap", "0\n", "power_cap_w", None),
        ("hwmon/hwmon2/temp1_input", "511000\n", "temp_edge_c", None),
        ("hwmon/hwmon2/temp1_input", "-5000\n", "temp_edge_c", -5.0),
        ("hwmon/hwmon2/temp1_input", None, "temp_edge_c", None),
        ("hwmon/hwmon2/fan1_input", "65535\n", "fan_rpm", None),
        ("mem_info_vram_total", "0\n", "vram_total_bytes", None),
        ("mem_info_vram_used", "8589934593\n", "vram_used_bytes", None),
        ("mem_info_gtt_used", "9000000000\n", "gtt_used_bytes", None),
        ("current_link_width", "255\n", "pcie_width", 16),
        ("current_link_speed", "Unknown speed\n", "pcie_gen", 3),
        ("current_link_speed", "5 GT/s\n", "pcie_gen", 2),
        ("current_link_speed", "32.0 GT/s PCIe\n", "pcie_gen", 5),
    ],
)
def test_an_implausible_value_is_refused_with_a_reason(
    tmp_path: Path, file: str, content: str | None, field: str, value: float | None
) -> None:
    plant(tmp_path, {**POLARIS, file: content})
    sample = sample_of(tmp_path)
    assert getattr(sample, field) == value
    if value is None:
        assert file.rpartition("/")[2] in sample.errors[field]


def test_used_memory_above_the_total_is_refused_and_the_total_stays(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "mem_info_vram_used": "8589934593\n"})
    sample = sample_of(tmp_path)
    assert (sample.vram_used_bytes, sample.vram_total_bytes) == (None, 8 << 30)
    assert sample.usable_free_bytes is None
    assert "more than the total of 8,589,934,592" in sample.errors["vram_used_bytes"]
    assert "vram_used_bytes" not in sample.source


def test_both_powers_give_the_average(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "hwmon/hwmon2/power1_average": "80000000\n"})
    sample = sample_of(tmp_path)
    assert (sample.power_w, sample.power_kind) == (80.0, PowerKind.AVERAGE)


def test_an_average_that_overflowed_gives_way_to_the_moment(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "hwmon/hwmon2/power1_average": "4294900000\n"})
    sample = sample_of(tmp_path)
    assert (sample.power_w, sample.power_kind) == (83.021, PowerKind.INSTANT)
    assert "power1_average: 4,294.9 is not within" in sample.errors["power_w"]


def test_hwmon_is_found_by_its_name_and_not_by_its_number(tmp_path: Path) -> None:
    other = {"hwmon/hwmon0/name": "nvme\n", "hwmon/hwmon0/temp1_input": "35000\n"}
    plant(tmp_path, {**POLARIS, **other})
    assert sample_of(tmp_path).temp_edge_c == 61.0


@pytest.mark.parametrize("numbers", [("1", "2", "3"), ("3", "1", "2")])
def test_sensors_go_by_their_labels(tmp_path: Path, numbers: tuple[str, ...]) -> None:
    heat = {"edge": "50000", "junction": "60000", "mem": "70000"}
    files = {f"hwmon/hwmon2/temp{n}_label": label for n, label in zip(numbers, heat, strict=True)}
    files |= {f"hwmon/hwmon2/temp{n}_input": t for n, t in zip(numbers, heat.values(), strict=True)}
    plant(tmp_path, {**POLARIS, **files})
    sample = sample_of(tmp_path)
    assert (sample.temp_edge_c, sample.temp_junction_c, sample.temp_memory_c) == (50, 60, 70)


def test_a_label_without_its_reading_is_an_error_and_no_value(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "hwmon/hwmon2/temp3_label": "mem\n"})
    sample = sample_of(tmp_path)
    assert sample.temp_memory_c is None
    assert sample.errors["temp_memory_c"] == "hwmon:temp3_input: no such file"
    assert sample.errors["temp_memory_crit_c"] == "hwmon:temp3_crit: no such file"
    assert sample.errors["temp_junction_c"] == "hwmon: no sensor labelled junction"


def test_an_unlabelled_sensor_is_the_first_one(tmp_path: Path) -> None:
    labels = [name for name in POLARIS if name.endswith("_label")]
    plant(tmp_path, {**POLARIS, **dict.fromkeys(labels, None)})
    sample = sample_of(tmp_path)
    assert (sample.temp_edge_c, sample.sclk_hz, sample.voltage_mv) == (61.0, 611_000_000, 900)
    assert sample.source["mclk_hz"] == "sysfs:pp_dpm_mclk"


@pytest.mark.parametrize(
    ("levels", "sclk_hz", "reason"),
    [
        ("0: 300Mhz \n1: 608Mhz *\n", 608_000_000, None),
        ("S: 19Mhz *\n0: 500Mhz \n1: 2500Mhz \n", 19_000_000, None),
        ("0: 800Mhz *\n1: 800Mhz *\n", 800_000_000, None),
        ("0: 300Mhz \n1: 608Mhz \n", None, "no level is marked"),
        ("0: 300Mhz *\n1: 608Mhz *\n", None, "several levels are marked"),
        ("\n", None, "no levels"),
        ("0: fast *\n", None, "not a level"),
        ("0: 300Mhz \n1: 608Mhz *\n" + "\0" * 4000, 608_000_000, None),
    ],
)
def test_without_a_sensor_the_marked_level_is_the_clock(
    tmp_path: Path, levels: str, sclk_hz: int | None, reason: str | None
) -> None:
    clocks = {"hwmon/hwmon2/freq1_input": None, "hwmon/hwmon2/freq1_label": None}
    plant(tmp_path, {**POLARIS, **clocks, "pp_dpm_sclk": levels})
    sample = sample_of(tmp_path)
    assert sample.sclk_hz == sclk_hz
    assert reason is None or reason in sample.errors["sclk_hz"]


def test_the_link_comes_from_the_levels_where_the_device_does_not_tell(tmp_path: Path) -> None:
    link = {"current_link_speed": None, "current_link_width": None}
    plant(
        tmp_path,
        {**POLARIS, **link, "pp_dpm_pcie": "0: 2.5GT/s, x1 310Mhz *\n1: 16.0GT/s, x16 619Mhz \n"},
    )
    sample = sample_of(tmp_path)
    assert (sample.pcie_gen, sample.pcie_width, sample.pcie_speed_gts) == (1, 1, 2.5)
    assert sample.source["pcie_width"] == "sysfs:pp_dpm_pcie"


@pytest.mark.parametrize("status", ["suspended\n", "suspending\n"])
def test_a_suspended_card_is_not_woken(tmp_path: Path, kernel: Kernel, status: str) -> None:
    plant(tmp_path, {**POLARIS, "power/runtime_status": status})
    card = card_of(tmp_path)
    kernel.read.clear()
    sample = card.sample()
    known = ["vram_total_bytes", "vis_vram_total_bytes", "gtt_total_bytes"]
    assert kernel.read == [
        "runtime_status",
        *(f"mem_info_{name.removesuffix('_bytes')}" for name in known),
    ]
    assert (sample.state, sample.is_apu, sample.pci) == (CardState.SUSPENDED, False, "0000:0a:00.0")
    assert {name for name in SAMPLED_FIELDS if getattr(sample, name) is not None} == {*known}
    assert set(sample.errors) == set(SAMPLED_FIELDS) - {*known}
    kernel.read.clear()
    assert FastReader(card, ["gpu_busy_pct"]).read()[1:] == (CardState.SUSPENDED, (None,))
    assert set(kernel.read) == {"runtime_status"}


@pytest.mark.parametrize(
    ("runtime", "power", "state"),
    [
        (None, "D3cold\n", CardState.SUSPENDED),
        ("unsupported\n", "D3cold\n", CardState.SUSPENDED),
        ("unsupported\r\n", "D3hot\r\n", CardState.SUSPENDED),
        ("error\n", "D3hot\n", CardState.SUSPENDED),
        ("", "D3cold\n", CardState.SUSPENDED),
        ("resuming\n", "D0\n", CardState.SUSPENDED),
        ("suspended\n", None, CardState.SUSPENDED),
        ("unsupported\n", "D0\n", CardState.ACTIVE),
        ("unsupported\n", "unknown\n", CardState.ACTIVE),
        ("unsupported\n", None, CardState.ACTIVE),
        ("error\n", "D0\n", CardState.ACTIVE),
        (None, None, CardState.ACTIVE),
        ("active\n", "D0\n", CardState.ACTIVE),
    ],
)
def test_power_management_tells_whether_a_card_sleeps(
    tmp_path: Path, kernel: Kernel, runtime: str | None, power: str | None, state: CardState
) -> None:
    plant(tmp_path, {**POLARIS, "power/runtime_status": runtime, "power_state": power})
    assert sample_of(tmp_path).state is state
    assert ("gpu_busy_percent" in kernel.read) == (state is CardState.ACTIVE)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (errno.EBUSY, CardState.RESETTING),
        (errno.EPERM, CardState.RESETTING),
        (errno.ENODEV, CardState.GONE),
        (errno.EINVAL, CardState.ACTIVE),
    ],
)
def test_when_every_sensor_refuses_the_card_is_in_that_state(
    tmp_path: Path, kernel: Kernel, code: int, state: CardState
) -> None:
    plant(tmp_path)
    kernel.refuse_sensors(code)
    for file in ("pp_dpm", "mem_info"):
        kernel.says[file] = code
    card = card_of(tmp_path)
    sample = card.sample()
    assert sample.state is state
    assert sample.gpu_busy_pct is None
    assert FastReader(card, ["gpu_busy_pct", "temp_edge_c"]).read()[1:] == (state, (None, None))


def test_one_sensor_that_answers_makes_no_reset(tmp_path: Path, kernel: Kernel) -> None:
    plant(tmp_path)
    kernel.refuse_sensors()
    del kernel.says["fan1"]
    assert sample_of(tmp_path).state is CardState.ACTIVE


def test_a_card_that_goes_is_gone_and_comes_back_under_another_number(tmp_path: Path) -> None:
    plant(tmp_path, card="card1")
    cards = Cards(tmp_path)
    (tmp_path / "card1").rename(tmp_path / "away")
    (gone,) = cards.sample()
    assert (gone.state, gone.pci, gone.power_w) == (CardState.GONE, "0000:0a:00.0", None)
    assert gone.errors["power_w"] == "the card is gone"
    (tmp_path / "away").rename(tmp_path / "card7")
    (sample,) = cards.sample()
    assert (sample.card, sample.state, sample.power_w) == ("card7", CardState.ACTIVE, 83.021)


def test_a_card_that_comes_back_in_its_place_is_read_anew(tmp_path: Path) -> None:
    plant(tmp_path)
    card = card_of(tmp_path)
    assert card.sample().gpu_busy_pct == 37
    (tmp_path / "card0").rename(tmp_path / "before")
    plant(tmp_path, {**POLARIS, "gpu_busy_percent": "99\n"})
    assert card.sample().gpu_busy_pct == 99


def test_fields_missing_in_sysfs_come_from_the_table(tmp_path: Path) -> None:
    lacking = ["gpu_busy_percent", "mem_busy_percent", *(f for f in POLARIS if "hwmon" in f)]
    lacking += [
        "current_link_speed",
        "current_link_width",
        "pp_dpm_pcie",
        "pp_dpm_sclk",
        "pp_dpm_mclk",
    ]
    table = table_v1_3(
        temperature_edge=56, temperature_hotspot=59, temperature_mem=54, average_gfx_activity=83,
        average_umc_activity=40, average_socket_power=180, energy_accumulator=1 << 20,
        current_gfxclk=2100, current_uclk=1000, throttle_status=5, current_fan_speed=1400,
        pcie_link_width=8, pcie_link_speed=160, voltage_gfx=1025, indep_throttle_status=1 << 36,
    )  # fmt: skip
    plant(tmp_path, {**POLARIS, **dict.fromkeys(lacking, None), "gpu_metrics": table})
    sample = sample_of(tmp_path)
    assert (sample.gpu_busy_pct, sample.gpu_busy_avg_pct, sample.mem_busy_pct) == (83, 83, 40)
    assert (sample.power_w, sample.power_kind) == (180, PowerKind.SOCKET)
    assert (sample.temp_edge_c, sample.temp_junction_c, sample.temp_memory_c) == (56, 59, 54)
    assert (sample.sclk_hz, sample.mclk_hz) == (2_100_000_000, 1_000_000_000)
    assert (sample.fan_rpm, sample.voltage_mv) == (1400, 1025)
    assert (sample.pcie_gen, sample.pcie_width) == (4, 8)
    assert sample.throttle_bits == 1 << 36
    assert sample.energy_j is None
    assert sample.source["throttle_bits"] == "gpu_metrics:v1.3:indep_throttle_status"
    assert not set(sample.source) & set(sample.errors)


def test_a_disagreement_is_noted_and_the_first_source_stays(tmp_path: Path) -> None:
    table = table_v1_3(average_gfx_activity=5)
    plant(tmp_path, {**POLARIS, "gpu_busy_percent": "99\n", "gpu_metrics": table})
    sample = sample_of(tmp_path)
    assert (sample.gpu_busy_pct, sample.gpu_busy_avg_pct) == (99, 5)
    assert sample.errors["gpu_busy_pct"] == (
        "sysfs:gpu_busy_percent says 99 %, gpu_metrics:v1.3:average_gfx_activity 5 %"
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"", "0 bytes, less than a header"),
        (bytes(120), "revision 0.0 is not known"),
        (table_v1_3()[:4] + bytes(116), "all zero"),
        (table_v1_3()[:100], "cut off after 100 of 120 bytes"),
        (b"\x78\x00\x01\x0a" + b"\1" * 116, "revision 1.10 is not known"),
        (b"\x60\x00\x01\x03" + b"\1" * 116, "96 bytes where v1.3 has 120"),
    ],
)
def test_a_table_that_can_not_be_read_is_refused_whole(
    tmp_path: Path, table: bytes, reason: str
) -> None:
    plant(tmp_path, {**POLARIS, "gpu_metrics": table})
    sample = sample_of(tmp_path)
    assert sample.errors["throttle_bits"] == f"gpu_metrics: {reason}"
    assert sample.throttle_bits is None
    assert sample.power_w == 83.021


def test_a_table_that_the_kernel_refuses_says_why(tmp_path: Path, kernel: Kernel) -> None:
    plant(tmp_path, {**POLARIS, "gpu_metrics": table_v1_3()})
    kernel.says["gpu_metrics"] = errno.EOPNOTSUPP
    assert "gpu_metrics: " in sample_of(tmp_path).errors["throttle_bits"]


UNKNOWN_CHIP = {"device": "0xfff0\n", "uevent": "DRIVER=amdgpu\n"}


@pytest.mark.parametrize(
    ("files", "is_apu"),
    [
        ({"hwmon/hwmon2/power1_cap": None}, None),
        ({"hwmon/hwmon2/pwm1": "35\n"}, False),
        ({"hwmon/hwmon2/in1_label": "vddnb\n"}, True),
        ({"gpu_metrics": table_v1_3(average_gfx_activity=1)}, False),
        ({"gpu_metrics": b"\x78\x00\x02\x01" + b"\1" * 116}, True),
        ({"hwmon/hwmon2/name": None}, None),
    ],
)
def test_a_chip_that_is_not_in_the_table_shows_what_it_is(
    tmp_path: Path, files: dict[str, str | bytes | None], is_apu: bool | None
) -> None:
    plant(tmp_path, {**POLARIS, **UNKNOWN_CHIP, **files})
    sample = sample_of(tmp_path)
    assert sample.is_apu is is_apu
    assert (sample.name, sample.family) == ("AMD card [1002:fff0]", None)


def test_a_tool_is_asked_last(tmp_path: Path) -> None:
    plant(tmp_path)
    found = Found()
    found.put("temp_junction_c", 71, "told:junction")
    found.put("temp_edge_c", 1, "told:edge")
    (sample,) = Cards(tmp_path, [Tool(lambda: {"0000:0a:00.0": found})]).sample()
    assert (sample.temp_edge_c, sample.temp_junction_c) == (61.0, 71)
    assert sample.source["temp_junction_c"] == "told:junction"


# Fast reading


def test_a_fast_reader_opens_each_file_once(tmp_path: Path, kernel: Kernel) -> None:
    device = plant(tmp_path)
    fields = ["gpu_busy_pct", "vram_used_bytes", "power_w"]
    reader = FastReader(card_of(tmp_path), fields)
    assert reader.read().values == (37, 1 << 30, 83.021)
    kernel.read.clear()
    (device / "gpu_busy_percent").write_text("38\n")
    assert reader.read().values == (38, 1 << 30, 83.021)
    files = ["runtime_status", "gpu_busy_percent", "mem_info_vram_used", "power1_input"]
    assert kernel.read == files


def test_a_fast_reader_asks_another_source_for_fields_without_a_file(
    tmp_path: Path, kernel: Kernel
) -> None:
    plant(tmp_path, {**POLARIS, "gpu_metrics": table_v1_3(temperature_hotspot=70)})
    reader = FastReader(card_of(tmp_path), ["temp_edge_c", "temp_junction_c", "temp_memory_c"])
    assert reader.read().values == (61.0, 70, None)
    kernel.says["temp1_input"] = errno.EBUSY
    assert reader.read().values == (None, 70, None)


def test_a_fast_reader_finds_a_file_that_appears_later(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "gpu_busy_percent": None})
    device = tmp_path / "card0/device"
    reader = FastReader(card_of(tmp_path), ["gpu_busy_pct"])
    assert reader.read().values == (None,)
    (device / "gpu_busy_percent").write_text("5\n")
    assert {reader.read().values for _ in range(REPLAN_AFTER)} == {(None,), (5,)}


def test_a_fast_reader_refuses_an_unknown_field(tmp_path: Path) -> None:
    plant(tmp_path)
    with pytest.raises(ValueError, match="no field 'watts'; there are gpu_busy_pct, "):
        FastReader(card_of(tmp_path), ["watts"])


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        return [entry.name for entry in Path("/proc/self/fd").iterdir()]

    plant(tmp_path, {**POLARIS, "gpu_metrics": table_v1_3()})
    before = descriptors()
    cards = Cards(tmp_path)
    for _ in range(5):
        cards.sample()
        FastReader(card_of(tmp_path), ["gpu_busy_pct"]).card.close()
    assert len(descriptors()) > len(before)
    cards.close()
    assert len(descriptors()) == len(before)
    cards.sample()
    del cards  # dropped cards need not be closed
    assert len(descriptors()) == len(before)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    device = plant(tmp_path, {**POLARIS, "gpu_busy_percent": None})
    os.mkfifo(device / "gpu_busy_percent")
    card: Card = card_of(tmp_path)
    sample = card.sample(["gpu_busy_pct"])
    assert sample.gpu_busy_pct is None
    assert "ESPIPE" in sample.errors["gpu_busy_pct"]
