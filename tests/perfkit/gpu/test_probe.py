"""A worker's probe: the load of its cards, and when they are not fit for work."""

import errno
import threading
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from cluster.vocabulary.task import Gpu, Load
from perfkit.gpu import probe as module
from perfkit.gpu.card import Card
from perfkit.gpu.made_up import POLARIS, plant
from perfkit.gpu.probe import HUNG_AFTER_S, WELL_AFTER_S, GpuProbe, complaint
from perfkit.gpu.schema import GpuSample
from tests.perfkit.gpu.trees import Kernel, sample_of

HOST = Load(rss_bytes=1, memory_free_bytes=2)


def probe(root: Path, clock: list[float] | None = None) -> GpuProbe:
    now = clock or [0.0]
    return GpuProbe(root, clock=lambda: now[0], host=lambda: HOST)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls is no card that hangs."""
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)


def test_the_load_has_what_the_card_says_beside_the_host(tmp_path: Path) -> None:
    plant(tmp_path)
    assert probe(tmp_path)() == Load(
        rss_bytes=1,
        memory_free_bytes=2,
        vram_free_bytes=7 << 30,
        gpu_busy_pct=37.0,
        temperature_c=61.0,
    )
    assert probe(tmp_path).gpus() == [Gpu("polaris", 8 << 30)]


def test_without_a_card_nothing_is_said_of_one(tmp_path: Path) -> None:
    assert probe(tmp_path)() == HOST
    assert probe(tmp_path).gpus() == []


def test_the_emptier_of_two_cards_counts_for_memory_and_the_hotter_for_heat(tmp_path: Path) -> None:
    plant(tmp_path)
    other = {
        **POLARIS,
        "uevent": "PCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:0b:00.0\n",
        "gpu_busy_percent": "3\n",
        "mem_info_vram_used": "0\n",
        "hwmon/hwmon2/temp1_input": "99000\n",
    }
    plant(tmp_path, other, card="card1")
    load = probe(tmp_path)()
    assert (load.gpu_busy_pct, load.temperature_c, load.gpu_trouble) == (20.0, 99.0, None)
    assert load.vram_free_bytes == 7 << 30  # the overheated one is not for work


def test_an_overheated_card_is_not_fit_until_it_has_been_cool_for_a_while(tmp_path: Path) -> None:
    device = plant(tmp_path)
    clock = [0.0]
    ask = probe(tmp_path, clock)
    heat = device / "hwmon/hwmon2/temp1_input"
    told = []
    for now, milli_c in (
        (0, 93_900),
        (1, 94_000),
        (2, 90_000),
        (3, 80_000),
        (11, 80_000),
        (13, 80_000),
    ):
        clock[0] = now
        heat.write_text(f"{milli_c}\n")
        told.append(ask().gpu_trouble)
    hot = "0000:0a:00.0 is overheated: edge 94 °C, critical 94 °C"
    warm = "0000:0a:00.0 has not cooled down: edge 90 °C, critical 94 °C"
    assert told == [None, hot, warm, warm, warm, None]
    assert 2 + WELL_AFTER_S <= 13


def test_a_card_without_a_limit_of_its_own_has_a_usual_one(tmp_path: Path) -> None:
    hot = {"hwmon/hwmon2/temp1_crit": None, "hwmon/hwmon2/temp1_input": "94500\n"}
    plant(tmp_path, {**POLARIS, **hot})
    assert "critical 94 °C" in (complaint(sample_of(tmp_path)) or "")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EBUSY, "is being reset, or hangs"), (errno.ENODEV, "is gone")]
)
def test_a_card_that_hangs_or_is_gone_is_not_fit(
    tmp_path: Path, kernel: Kernel, code: int, words: str
) -> None:
    plant(tmp_path)
    kernel.refuse_sensors(code)
    load = probe(tmp_path)()
    assert load.gpu_trouble == f"0000:0a:00.0 {words}"
    assert (load.vram_free_bytes, load.gpu_busy_pct, load.temperature_c) == (None, None, None)


def test_a_silent_card_delays_no_heartbeat_and_is_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path)
    clock = [0.0]
    ask = probe(tmp_path, clock)
    answers, well = threading.Event(), ask()
    sample = Card.sample

    def hang(card: Card, wanted: Collection[str]) -> GpuSample:
        answers.wait()
        return sample(card, wanted)

    monkeypatch.setattr(Card, "sample", hang)
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    assert ask() == well
    clock[0] = HUNG_AFTER_S
    assert ask() == msgspec.structs.replace(HOST, gpu_trouble="the cards have not answered for 5 s")
    answers.set()
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)
    assert ask() == well


def test_a_sleeping_card_is_fit(tmp_path: Path) -> None:
    plant(tmp_path, {**POLARIS, "power/runtime_status": "suspended\n"})
    assert probe(tmp_path)() == HOST


def test_a_card_that_was_away_is_found_again(tmp_path: Path) -> None:
    plant(tmp_path)
    clock = [0.0]
    ask = probe(tmp_path, clock)
    (tmp_path / "card0").rename(tmp_path / "away")
    assert ask().gpu_trouble == "0000:0a:00.0 is gone"
    (tmp_path / "away").rename(tmp_path / "card4")
    clock[0] = 1.0
    ask()
    clock[0] = 1.0 + WELL_AFTER_S
    assert ask().gpu_trouble is None
