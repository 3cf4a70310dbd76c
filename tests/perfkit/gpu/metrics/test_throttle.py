"""What holds a card back: the kernel's common bits, and those of single chips."""

import pytest

from perfkit.gpu.metrics.throttle import throttle_reasons

INDEPENDENT = "gpu_metrics:v1.3:indep_throttle_status"
OWN = "gpu_metrics:v1.0:throttle_status"


def names(bits: int, source: str, chip: str = "", family: str = "") -> list[str] | None:
    told = throttle_reasons(bits, source, chip, family)
    return None if told is None else [text.rpartition("(")[2].rstrip(")") for text in told]


def test_reasons_are_words_in_the_order_of_the_bits() -> None:
    assert throttle_reasons(1 << 36 | 1, INDEPENDENT, "Navi 21", "navi2") == (
        "package power limit 0 (PPT0)",
        "temperature at the hotspot (TEMP_HOTSPOT)",
    )


@pytest.mark.parametrize("source", [INDEPENDENT, OWN])
def test_no_bit_is_no_reason(source: str) -> None:
    assert throttle_reasons(0, source, "", "") == ()


@pytest.mark.parametrize("family", ["navi3", "navi4"])
def test_the_bit_that_rdna_3_and_4_always_set_says_nothing(family: str) -> None:
    assert names(1 << 36, INDEPENDENT, "Navi 48", family) == []
    assert names(1 << 36 | 1, INDEPENDENT, "Navi 48", family) == ["PPT0"]


@pytest.mark.parametrize(
    ("chip", "bits", "expected"),
    [
        ("Vega 20", 1 << 2 | 1 << 13, ["TEMP_HOTSPOT", "PPT0"]),
        ("Vega 12", 1 << 9 | 1 << 11, ["TDC_GFX", "PPT0"]),
        ("Arcturus MI100", 1 << 9, ["PPT0"]),
        ("Aldebaran MI200", 1 << 6 | 1 << 13, ["TEMP_GPU", "TEMP_VR_MEM0"]),
        ("Navi 10", 1 << 12 | 1 << 14, ["TDC_GFX", "PPT0"]),
        ("Navi 21", 1 << 11 | 1 << 13, ["TDC_GFX", "PPT0"]),
        ("Renoir", 1 << 2 | 1 << 10, ["SPPT", "PROCHOT_GFX"]),
        ("Phoenix 2", 1 | 1 << 12, ["SPL", "EDC_GFX"]),
        ("Van Gogh", 1 << 9 | 1 << 10, ["TDC_GFX", "TDC_CVIP"]),
        ("Aqua Vanjaram MI300", 1 << 1 | 1 << 4, ["PPT0", "TEMP_MEM"]),
    ],
)
def test_a_chip_has_bits_of_its_own(chip: str, bits: int, expected: list[str]) -> None:
    assert names(bits, OWN, chip) == expected


@pytest.mark.parametrize("chip", ["", "Cyan Skillfish"])
def test_bits_of_another_chip_are_not_guessed(chip: str) -> None:
    assert throttle_reasons(2, OWN, chip, "") is None


@pytest.mark.parametrize(("source", "bit"), [(INDEPENDENT, 63), (OWN, 31)])
def test_a_bit_without_a_meaning_is_told_by_its_number(source: str, bit: int) -> None:
    told = throttle_reasons(1 << bit, source, "Navi 21", "navi2")
    assert told == (f"without a known meaning (bit {bit})",)
