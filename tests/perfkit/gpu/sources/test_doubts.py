"""Doubts in words: a utilisation that nothing else confirms, and why a card is throttled."""

from pathlib import Path

import pytest

from perfkit.gpu.device.made_up import POLARIS, plant
from tests.perfkit.gpu.trees import sample_of, table_v1_3

#: 100 % at the lowest level's clock, with a tenth of the power that the card may take.
PINNED: dict[str, str | bytes | None] = {
    **POLARIS,
    "gpu_busy_percent": "100\n",
    "hwmon/hwmon2/freq1_input": "300000000\n",
    "hwmon/hwmon2/power1_input": "14500000\n",
}
NO_POWER = {"hwmon/hwmon2/power1_input": None}
NO_CLOCK = {"hwmon/hwmon2/freq1_input": None, "pp_dpm_sclk": None}
#: An APU has no power cap.
APU = {"device": "0x15d8\n", "hwmon/hwmon2/power1_cap": None}


@pytest.mark.parametrize(
    ("files", "doubt"),
    [
        ({}, "300 MHz and 14.5 W"),
        ({"hwmon/hwmon2/freq1_input": "26000000\n"}, "26 MHz and 14.5 W"),
        ({"gpu_busy_percent": "99\n"}, "300 MHz and 14.5 W"),
        (NO_POWER, "300 MHz"),
        (NO_CLOCK, "14.5 W"),
        ({**APU, "hwmon/hwmon2/power1_input": "3000000\n"}, "300 MHz and 3.0 W"),
        ({"pp_dpm_sclk": "S: 19Mhz *\n0: 500Mhz \n1: 2500Mhz \n"}, "300 MHz and 14.5 W"),
        ({"gpu_busy_percent": "98\n"}, None),
        ({"hwmon/hwmon2/freq1_input": "301000000\n"}, None),
        ({"hwmon/hwmon2/power1_input": "30000000\n"}, None),
        ({**APU, "hwmon/hwmon2/power1_input": "14500000\n"}, None),
        ({**NO_POWER, **NO_CLOCK}, None),
    ],
)
def test_full_utilisation_of_an_idle_card_is_doubted_and_stays(
    tmp_path: Path, files: dict[str, str | None], doubt: str | None
) -> None:
    plant(tmp_path, {**PINNED, **files})
    sample = sample_of(tmp_path)
    assert sample.gpu_busy_pct == int((files.get("gpu_busy_percent") or "100").strip())
    text = f"sysfs:gpu_busy_percent says {sample.gpu_busy_pct} % at {doubt}, which is idle"
    assert sample.errors.get("gpu_busy_pct") == (text if doubt else None)


def test_a_throttled_card_says_why(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "gpu_metrics": table_v1_3(indep_throttle_status=1 << 35)})
    sample = sample_of(tmp_path)
    assert sample.throttle_reasons == ("temperature at the edge (TEMP_EDGE)",)
    assert sample.source["throttle_bits"] == "gpu_metrics:v1.3:indep_throttle_status"


def test_bits_that_are_not_documented_for_a_chip_are_no_reasons(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "gpu_metrics": table_v1_3(throttle_status=5)})
    sample = sample_of(tmp_path)
    assert (sample.throttle_bits, sample.throttle_reasons) == (5, None)
    assert sample.errors["throttle_reasons"] == (
        "gpu_metrics:v1.3:throttle_status: 0x5, which is not documented for this chip"
    )


def test_without_a_table_nothing_is_known_of_throttling(tmp_path: Path) -> None:
    plant(tmp_path)
    assert sample_of(tmp_path).throttle_reasons is None


def test_the_bit_that_a_navi_31_always_sets_is_no_reason(tmp_path: Path) -> None:
    table = table_v1_3(throttle_status=2, indep_throttle_status=1 << 36)
    plant(tmp_path, {**POLARIS, "device": "0x744c\n", "gpu_metrics": table})
    sample = sample_of(tmp_path)
    assert (sample.throttle_bits, sample.throttle_reasons) == (1 << 36, ())
