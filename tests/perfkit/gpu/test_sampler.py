"""Cards watched: groups at their rates, rings that are full, energy, and tables of it."""

import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gpu import sampler as module
from perfkit.gpu.card import Cards
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.schema import CardState
from perfkit.gpu.readings import samples_sheet
from perfkit.gpu.sampler import (
    GAP_MAX_S,
    GROUPS,
    GpuSampler,
    Series,
    energy_j,
    read_pcie_bw,
)
from tests.perfkit.gpu.trees import Kernel
from tests.waiting import until

PCI = "0000:0a:00.0"
#: What the kernel shows of a card that falls asleep when nobody has used it for 5 s.
CAN_SLEEP = {"power/control": "auto\n", "power/autosuspend_delay_ms": "5000\n"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("perfkit.gpu.card.time.monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_thread_reads_each_group_at_its_own_rate(tmp_path: Path) -> None:
    plant(tmp_path)
    with GpuSampler(tmp_path, rates_hz={"activity": 200, "thermal": 50, "link": 0}) as sampler:
        assert sampler.start() is sampler
        until(lambda: len(sampler.rows(PCI, "thermal")) >= 4)
    activity, thermal = sampler.rows(PCI, "activity"), sampler.rows(PCI, "thermal")
    assert len(activity) > len(thermal)
    assert {row.values for row in activity} == {(37, 1 << 30, 83.021)}
    assert {row.values for row in thermal} == {(61.0, None, None, 1210)}
    assert "gpu-sampler" not in {thread.name for thread in threading.enumerate()}
    sampler.stop()


def test_a_stopped_sampler_starts_again(tmp_path: Path) -> None:
    plant(tmp_path)
    sampler = GpuSampler(tmp_path, rates_hz={"activity": 500})
    for rows in (1, 3):
        with sampler:
            until(lambda rows=rows: len(sampler.rows(PCI, "activity")) >= rows)  # type: ignore[misc]
    assert len(sampler.rows(PCI, "activity")) >= 3


def test_a_running_sampler_tells_its_processor_time(tmp_path: Path) -> None:
    plant(tmp_path)
    sampler = GpuSampler(tmp_path, rates_hz={"activity": 500})
    assert sampler.cpu_s == 0
    with sampler:
        until(lambda: len(sampler.rows(PCI, "activity")) >= 2)
        used_s = sampler.cpu_s
        assert used_s > 0
        until(lambda: sampler.cpu_s > used_s)
    assert sampler.cpu_s == 0


def test_a_full_ring_forgets_the_oldest_row(tmp_path: Path, clock: Clock) -> None:
    plant(tmp_path)
    sampler = GpuSampler(tmp_path, rows_max=3)
    for _ in range(5):
        sampler.read("activity")
        clock.now_s += 1
    assert [row.monotonic_s for row in sampler.rows(PCI, "activity")] == [102, 103, 104]


def test_power_is_summed_to_energy_over_short_gaps(tmp_path: Path, clock: Clock) -> None:
    device = plant(tmp_path)
    sampler = GpuSampler(tmp_path)
    assert sampler.samples()[0].energy_j is None
    power = device / "hwmon/hwmon2/power1_input"
    for watts, then_s in ((100, 1.0), (200, 2.0), (200, 60.0), (50, 1.0), (None, 1.0), (70, 1.0)):
        power.write_text("" if watts is None else f"{watts}000000\n")
        sampler.read("activity")
        clock.now_s += then_s
    sample = sampler.samples()[0]
    assert sample.energy_j == pytest.approx(150 * 1.0 + 200 * 2.0)
    assert sample.source["energy_j"] == "sampler:power_w"


RAMP: Series = [(0.0, 10.0), (1.0, 20.0), (2.0, 20.0), (3.0, None), (4.0, 20.0), (5.0, 20.0)]


@pytest.mark.parametrize(
    ("from_s", "to_s", "joules"),
    [
        (0.0, 1.0, 15.0),
        (0.5, 2.0, 8.75 + 20.0),
        (0.2, 0.4, 2.6),
        (4.0, 5.0, 20.0),
        (1.5, 2.5, None),  # rests on a reading that is unknown
        (-1.0, 1.0, None),  # nothing was read before
        (4.5, 5.5, None),  # nor after
    ],
)
def test_energy_between_two_moments(from_s: float, to_s: float, joules: float | None) -> None:
    assert energy_j(RAMP, from_s, to_s) == (None if joules is None else pytest.approx(joules))


def test_powers_too_far_apart_give_no_energy() -> None:
    assert energy_j([(0.0, 1.0), (GAP_MAX_S, 1.0)], 1.0, 2.0) == pytest.approx(1.0)
    assert energy_j([(0.0, 1.0), (GAP_MAX_S + 0.1, 1.0)], 1.0, 2.0) is None
    assert energy_j([], 0.0, 1.0) is None


@given(
    st.lists(st.floats(0, 500), min_size=2, max_size=20),
    st.tuples(*[st.floats(0, 1)] * 3),
)
def test_energies_of_parts_add_up_to_that_of_the_whole(
    watts: list[float], cuts: tuple[float, float, float]
) -> None:
    points = [(float(at), value) for at, value in enumerate(watts)]
    a, b, c = (cut * (len(watts) - 1) for cut in sorted(cuts))
    parts = [energy_j(points, a, b), energy_j(points, b, c)]
    whole = energy_j(points, a, c)
    assert whole is not None
    assert sum(part for part in parts if part is not None) == pytest.approx(whole, abs=1e-6)
    assert None not in parts


def test_utilisation_is_averaged_over_the_latest_readings(tmp_path: Path) -> None:
    device = plant(tmp_path)
    sampler = GpuSampler(tmp_path)
    for busy in ("0", "", "50", "100"):
        (device / "gpu_busy_percent").write_text(busy)
        sampler.read("activity")
    sample = sampler.samples()[0]
    assert (sample.gpu_busy_mean_pct, sample.gpu_busy_mean_n) == (50.0, 3)


def test_a_card_that_moves_is_followed_and_a_new_one_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    root, elsewhere = tmp_path / "drm", tmp_path / "elsewhere"
    plant(root, card="card1")
    other = {**POLARIS, "uevent": "PCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:0b:00.0\n"}
    plant(elsewhere, other, card="card3")
    with GpuSampler(root, rates_hz={"activity": 200}) as sampler:
        (root / "card1").rename(root / "card2")
        # All of a new card is there at once, as in sysfs.
        (elsewhere / "card3").rename(root / "card3")
        until(lambda: "0000:0b:00.0" in sampler.tracks)
        until(lambda: len(sampler.rows("0000:0b:00.0", "activity")) > 0)
    assert [sample.card for sample in sampler.samples()] == ["card2", "card3"]


def test_pcie_traffic_is_watched_only_when_asked_for(tmp_path: Path, kernel: Kernel) -> None:
    plant(tmp_path, {**POLARIS, "pcie_bw": "11886 2528 256\n"})
    with GpuSampler(tmp_path, rates_hz={"activity": 500}) as sampler:
        until(lambda: len(sampler.rows(PCI, "activity")) >= 3)
        assert sampler.samples()[0].pcie_rx_bytes_per_s is None
    assert "pcie_bw" not in kernel.read
    with GpuSampler(tmp_path, pcie_bw=True) as sampler:
        until(lambda: sampler.samples()[0].pcie_rx_bytes_per_s is not None)
        sample = sampler.samples()[0]
    assert (sample.pcie_rx_bytes_per_s, sample.pcie_tx_bytes_per_s) == (11886 * 256, 2528 * 256)


@pytest.mark.parametrize("content", [None, "", "1 2\n", "1 2 -3\n", "a b c\n"])
def test_odd_pcie_traffic_is_unknown(tmp_path: Path, content: str | None) -> None:
    assert read_pcie_bw(plant(tmp_path, {**POLARIS, "pcie_bw": content})) is None


def test_the_frame_has_a_row_for_each_reading(tmp_path: Path, clock: Clock) -> None:
    pytest.importorskip("pandas")
    device = plant(tmp_path)
    sampler = GpuSampler(tmp_path, rates_hz={"activity": 10, "thermal": 1})
    sampler.read("activity")
    clock.now_s += 1
    sampler.read("thermal")
    (device / "power/runtime_status").write_text("suspended\n")
    clock.now_s += 1
    sampler.read("activity")
    frame = sampler.to_frame()
    assert [*frame.columns] == [
        "pci", "monotonic_s", "state", *GROUPS["activity"], *GROUPS["thermal"]
    ]  # fmt: skip
    assert frame["monotonic_s"].to_list() == [100.0, 101.0, 102.0]
    assert frame["state"].to_list() == ["active", "active", "suspended"]
    assert frame["power_w"].isna().to_list() == [False, True, True]
    assert frame["temp_edge_c"].isna().to_list() == [True, False, True]


def test_a_table_for_notebooks(tmp_path: Path) -> None:
    plant(tmp_path)
    shown = GpuSampler(Cards(tmp_path))._repr_html_()
    for text in (PCI, "AMD Polaris 10", "37 %", "1.0 GiB", "83.02 W", "61 °C", "611 MHz"):
        assert text in shown
    assert "No AMD card was found." in samples_sheet([]).html


@pytest.mark.parametrize(
    ("rates", "reason"),
    [({"heat": 1.0}, "no group 'heat'; there are activity"), ({"thermal": 5_000.0}, "5000 Hz")],
)
def test_wrong_rates_are_refused(tmp_path: Path, rates: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        GpuSampler(tmp_path, rates_hz=rates)


def watched(sampler: GpuSampler, clock: Clock, seconds: int) -> None:
    """Read every group once a second, as the sampler's thread would."""
    for _ in range(seconds):
        for group in sampler.rates_hz:
            sampler.read(group)
        clock.now_s += 1


def test_an_idle_card_is_left_alone_until_it_works(
    tmp_path: Path, clock: Clock, kernel: Kernel
) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP, "gpu_busy_percent": "0\n"})
    sampler = GpuSampler(tmp_path)
    watched(sampler, clock, 8)
    kernel.read.clear()
    watched(sampler, clock, 4)
    assert [name for name in kernel.read if not name.startswith(("runtime_", "mem_info"))] == []
    resting = sampler.rows(PCI, "thermal")[-4:]
    assert {row.values for row in resting} == {(None,) * len(GROUPS["thermal"])}
    (device / "mem_info_vram_used").write_text("4096\n")
    (device / "gpu_busy_percent").write_text("99\n")
    watched(sampler, clock, 20)
    for group in sampler.rates_hz:
        rows = sampler.rows(PCI, group)[-20:]
        assert {row.values[0] for row in rows} == {sampler.rows(PCI, group)[-1].values[0]}
        assert rows[0].values[0] is not None
    assert sampler.rows(PCI, "activity")[-20].values[0] == 99


def test_energy_has_a_gap_where_a_card_was_left_alone(tmp_path: Path, clock: Clock) -> None:
    plant(tmp_path, {**POLARIS, **CAN_SLEEP, "gpu_busy_percent": "0\n"})
    sampler = GpuSampler(tmp_path)
    watched(sampler, clock, 60)
    known = [row for row in sampler.rows(PCI, "activity") if row.values[2] is not None]
    steps = [after.monotonic_s - before.monotonic_s for before, after in pairwise(known)]
    expected = sum(step for step in steps if step == 1) * 83.021
    assert sampler.tracks[PCI].energy_j == pytest.approx(expected)
    assert max(steps) > GAP_MAX_S


@pytest.mark.parametrize(
    ("files", "let_sleep"), [({}, True), (CAN_SLEEP, False)], ids=["can't sleep", "must not"]
)
def test_a_card_that_cannot_or_must_not_sleep_is_watched_all_the_time(
    tmp_path: Path, clock: Clock, files: Mapping[str, str], let_sleep: bool
) -> None:
    plant(tmp_path, {**POLARIS, **files, "gpu_busy_percent": "0\n"})
    sampler = GpuSampler(tmp_path, let_sleep=let_sleep)
    watched(sampler, clock, 60)
    assert {row.values for row in sampler.rows(PCI, "activity")} == {(0, 1 << 30, 83.021)}


def test_a_sleeping_card_is_watched_without_waking_it(tmp_path: Path, kernel: Kernel) -> None:
    plant(tmp_path, {**POLARIS, "power/runtime_status": "suspended\n"})
    sampler = GpuSampler(tmp_path)
    kernel.read.clear()
    for group in sampler.rates_hz:
        sampler.read(group)
    assert set(kernel.read) == {"runtime_status"}
    assert {row.state for row in sampler.rows(PCI, "activity")} == {CardState.SUSPENDED}
