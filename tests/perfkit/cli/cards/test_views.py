"""What people see of cards: the lines, the table of processes, and the live table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfkit.cli.cards.views import (
    Watch,
    Watched,
    card_lines,
    live_table,
    plain_lines,
    reasons,
    watched_samples,
)
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import CardState, GpuSample
from perfkit.gpu.sampler import GpuSampler
from perfkit.profile.activity.sparklines import PLAIN_RAMP, RAMP, Series, sparkline
from tests.perfkit.gpu.trees import SENSOR_FILES, Kernel

HEALTHY = GpuSample(
    card="card0", pci="0000:0a:00.0", name="AMD Polaris 10", gpu_busy_pct=37.0,
    vram_used_bytes=1 << 30, vram_total_bytes=8 << 30, power_w=83.0, power_cap_w=145.0,
    temp_edge_c=61.0, temp_edge_crit_c=94.0, errors={"temp_memory_c": "no such file"},
)  # fmt: skip
COLUMNS = ("busy", "VRAM", "power", "hottest")


def watched(sample: GpuSample, series: Series = ()) -> Watched:
    return Watched(sample, dict.fromkeys(COLUMNS, series), sample)


def words(sample: GpuSample) -> list[str]:
    return [text for _, text in reasons(watched(sample))]


# Why a card needs a look


def test_a_healthy_card_needs_none_even_if_a_lesser_sensor_is_missing() -> None:
    assert words(HEALTHY) == []


def test_the_worst_reason_comes_first() -> None:
    sample = replace(
        HEALTHY, temp_edge_c=95.0, ras_uncorrected_n=2, power_w=None,
        throttle_reasons=("power limit", "hot memory"),
        errors={"gpu_busy_pct": "says 100 % when idle", "power_w": "EPERM"},
    )  # fmt: skip
    assert list(reasons(watched(sample))) == [
        ("red", "overheated: edge 95 °C, critical 94 °C"),
        ("red", "2 uncorrected errors"),
        ("yellow", "throttled: power limit, hot memory"),
        ("dim", "unknown: power"),
        ("dim", "busy doubtful: says 100 % when idle"),
    ]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (CardState.GONE, "gone"),
        (CardState.RESETTING, "being reset, or hangs"),
        (CardState.SUSPENDED, "asleep, and not woken to be asked"),
    ],
)
def test_a_card_that_is_not_there_or_asleep_says_that_and_nothing_else(
    state: CardState, text: str
) -> None:
    errors = {"gpu_busy_pct": "the card is away"}
    assert words(GpuSample(card="card0", state=state, errors=errors)) == [text]


# Sparklines


@pytest.mark.parametrize(
    ("series", "drawn"),
    [
        ((), "      "),
        ([(60.0, 100.0)], "     █"),
        ([(60.0, 0.0), (45.0, 50.0), (55.0, None)], "    ▅▁"),
        ([(1.0, 100.0), (0.0, 100.0), (-9.0, 100.0)], "█     "),
        ([(58.0, 0.0), (59.0, 100.0), (35.0, None)], "     ▅"),
        ([(60.0, 250.0), (50.0, -5.0)], "    ▁█"),
    ],
)
def test_a_sparkline_is_the_last_minute_with_gaps(series: Series, drawn: str) -> None:
    assert sparkline(series, 60.0, 6, 0.0, 100.0) == drawn


def test_without_a_limit_a_sparkline_ends_at_a_round_figure() -> None:
    assert sparkline([(60.0, 4.0)], 60.0, 1, 0.0, None) == RAMP[round(7 * 4 / 5)]
    assert sparkline([(60.0, 0.0)], 60.0, 1, 0.0, None) == RAMP[0]
    assert sparkline([(60.0, 4.0)], 60.0, 1, 0.0, None, PLAIN_RAMP).isascii()


# The live table


def table(cards: Sequence[Watched], width: int) -> list[str]:
    return live_table(cards, width, 60.0).plain.split("\n")


def test_the_table_fits_the_terminal_and_uses_its_width() -> None:
    large = replace(
        HEALTHY, pci="0001:c3:00.0", vram_used_bytes=190 << 30, vram_total_bytes=192 << 30,
        gpu_busy_pct=100.0, power_w=1000.0, power_cap_w=1000.0, temp_edge_c=103.0,
        throttle_reasons=("a reason that goes on",) * 9,
    )  # fmt: skip
    cards = [watched(HEALTHY, [(60.0, 50.0)]), watched(large, [(60.0, 50.0)])]
    for width, least in ((80, 74), (120, 114), (200, 170)):
        lines = table(cards, width)
        assert len(lines) == 6
        assert all(len(line) <= width for line in lines)
        assert len(lines[0]) >= least
        assert "190.0/192 GiB" in lines[3]
        assert lines[3].endswith("103 °C")
    assert table(cards, 80)[4].endswith("…")
    plain = live_table(cards, 80, 60.0, PLAIN_RAMP).plain
    assert plain.isascii()
    assert max(map(len, plain.split("\n"))) == 80


def test_a_row_has_the_figures_and_below_it_the_name() -> None:
    head, row, below, _ = table([watched(HEALTHY)], 80)
    assert head.split() == ["card", *COLUMNS]
    assert row.split() == ["0a:00.0", "37", "%", "1.0/8", "GiB", "83/145", "W", "61", "°C"]
    assert below == "  AMD Polaris 10"


def test_an_unknown_figure_is_a_question_mark_and_a_gap() -> None:
    asleep = GpuSample(card="card3", state=CardState.SUSPENDED)
    _, row, below, _ = table([watched(asleep, [(60.0, None)])], 80)
    assert row.split() == ["card3", "?", "?", "?", "?"]
    assert below == "  AMD card; asleep, and not woken to be asked"


def test_without_a_terminal_a_card_is_a_line() -> None:
    hot = replace(HEALTHY, temp_edge_c=95.0)
    first, second = plain_lines([watched(HEALTHY), watched(hot)]).plain.split("\n")
    figures = "0000:0a:00.0  busy 37 %, VRAM 1.0/8 GiB, power 83/145 W, hottest 61 °C"
    assert first.partition("  ")[2] == figures
    assert second.endswith("hottest 95 °C; overheated: edge 95 °C, critical 94 °C")


def test_cards_in_trouble_come_first_and_a_gone_card_keeps_its_scale(tmp_path: Path) -> None:
    well = {**POLARIS, "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:0B:00.0\n"}
    first, second = plant(tmp_path), plant(tmp_path, well, "card1")
    watch = Watch(sampler := GpuSampler(tmp_path))
    for group in ("activity", "thermal"):
        sampler.read(group)
    cards = watch.cards()
    assert [card.key for card in cards] == ["0a:00.0", "0b:00.0"]
    series = cards[0].series
    assert [value for _, value in series["VRAM"]] == [1 << 30]
    assert [value for _, value in series["hottest"]] == [61.0]
    second.rename(tmp_path / "away")
    cards = watch.cards()
    assert [card.sample.state for card in cards] == [CardState.GONE, CardState.ACTIVE]
    assert cards[0].limits.vram_total_bytes == 8 << 30
    assert first.exists()
    sampler.stop()


def test_a_card_that_the_sampler_leaves_alone_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, {**POLARIS, "power/autosuspend_delay_ms": "5000\n"})
    watch = Watch(sampler := GpuSampler(tmp_path))
    assert not watch.cards()[0].rests
    (track,) = sampler.tracks.values()
    assert track.rest is not None
    track.rest.until_s = math.inf
    kernel = Kernel(monkeypatch)
    (card,) = watch.cards()
    assert (card.rests, card.key, card.sample.gpu_busy_pct) == (True, "0a:00.0", None)
    assert not [name for name in kernel.read if name.startswith(SENSOR_FILES)]
    assert card.limits.vram_total_bytes == 8 << 30
    assert [text for _, text in reasons(card)] == [
        "idle, and left alone so that it can fall asleep"
    ]
    (told,) = watched_samples(sampler)
    assert (told.pci, told.gpu_busy_pct) == ("0000:0a:00.0", None)
    assert told.errors["power_w"] == "idle, and left alone so that it can fall asleep"
    assert not [name for name in kernel.read if name.startswith(SENSOR_FILES)]
    sampler.stop()


# A card in a few lines


def text(sample: GpuSample) -> str:
    return "\n".join(line.plain for line in card_lines(sample))


def test_what_only_some_cards_tell_is_shown_where_it_is_known() -> None:
    assert "thrott" not in text(HEALTHY)
    rich: dict[str, Any] = {
        "throttle_reasons": ("power limit",), "ras_corrected_n": 3, "ras_uncorrected_n": 0,
        "compute_partition": "SPX", "memory_partition": "NPS1", "energy_j": 12_500.0,
    }  # fmt: skip
    assert text(replace(HEALTHY, **rich)).splitlines()[4] == (
        "  throttled: power limit; errors 3 corrected, 0 uncorrected; "
        "partitions compute SPX, memory NPS1; energy 12.5 kJ"
    )
    assert "  not throttled" in text(replace(HEALTHY, throttle_reasons=()))
