"""A worker's probe: the load of its cards, and when they are not fit for work."""

import errno
import re
import threading
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from cluster.vocabulary.task import Gpu, GpuLoad, Load
from perfkit.gpu import probe as module
from perfkit.gpu.card import Card
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.device.record import DeviceRecord
from perfkit.gpu.device.schema import Found, GpuSample
from perfkit.gpu.probe import (
    HUNG_AFTER_S,
    WELL_AFTER_S,
    GpuProbe,
    complaint,
)
from perfkit.gpu.processes.fdinfo import OwnUse, own_use
from tests.perfkit.gpu.trees import Kernel, sample_of

#: What the kernel shows of a card that falls asleep when nobody has used it for 5 s.
CAN_SLEEP = {"power/control": "auto\n", "power/autosuspend_delay_ms": "5000\n"}
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
        gpus=(GpuLoad(free_bytes=7 << 30, busy_pct=37.0, temperature_c=61.0, power_w=83.021),),
    )
    assert probe(tmp_path).gpus() == [Gpu("polaris", 8 << 30)]


def test_without_a_card_nothing_is_said_of_one(tmp_path: Path) -> None:
    assert probe(tmp_path)() == HOST
    assert probe(tmp_path).gpus() == []


def test_each_card_has_its_own_figures_and_only_the_overheated_one_is_in_trouble(
    tmp_path: Path,
) -> None:
    plant(tmp_path)
    other = {
        **POLARIS,
        "uevent": "PCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:0b:00.0\n",
        "gpu_busy_percent": "3\n",
        "mem_info_vram_used": "0\n",
        "hwmon/hwmon2/temp1_input": "99000\n",
        "hwmon/hwmon2/power1_input": "0\n",
    }
    plant(tmp_path, other, card="card1")
    load = probe(tmp_path)()
    hot = "0000:0b:00.0 is overheated: edge 99 °C, critical 94 °C"
    assert load.gpus == (
        GpuLoad(free_bytes=7 << 30, busy_pct=37.0, temperature_c=61.0, power_w=83.021),
        GpuLoad(free_bytes=8 << 30, busy_pct=3.0, temperature_c=99.0, trouble=hot),
    )
    bound = GpuProbe(tmp_path, host=lambda: HOST, card="0000:0b:00.0")
    assert bound.gpus() == [Gpu("polaris", 8 << 30)]
    assert (bound().gpus, bound().gpu_trouble) == (load.gpus[1:], hot)
    assert load.gpu_trouble is None


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


PCI_ID = "DRIVER=amdgpu\nPCI_ID=1002:{:04X}\nPCI_SLOT_NAME=0000:0A:00.0\n"


def chip_of(device_id: int, **files: str | None) -> Mapping[str, str | None]:
    """The made-up card's files with another chip behind them."""
    return {
        **POLARIS,
        "device": f"{device_id:#06x}\n",
        "uevent": PCI_ID.format(device_id),
        **files,
    }


@pytest.mark.parametrize(
    ("device_id", "milli_c", "critical_c"),
    [
        (0x67DF, 94_500, 94),  # Polaris 10
        (0x67DF, 93_500, None),
        (0x687F, 86_000, 85),  # Vega 10
        (0x67EF, 96_000, None),  # Polaris 11, of which nothing is known
        (0x15BF, 110_000, None),  # an APU
        (0xFFFE, 110_000, None),
    ],
)
def test_a_chip_whose_limit_is_documented_has_it_where_the_card_tells_none_and_no_other_chip_does(
    tmp_path: Path, device_id: int, milli_c: int, critical_c: int | None
) -> None:
    heat = {"hwmon/hwmon2/temp1_crit": None, "hwmon/hwmon2/temp1_input": f"{milli_c}\n"}
    plant(tmp_path, chip_of(device_id, **heat))
    expected = "" if critical_c is None else f"critical {critical_c} °C"
    assert (complaint(sample_of(tmp_path)) or "").endswith(expected)
    assert (complaint(sample_of(tmp_path)) is None) == (critical_c is None)


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
    (card,) = load.gpus
    assert card == GpuLoad(free_bytes=card.free_bytes, trouble=load.gpu_trouble)


def test_a_card_that_falls_asleep_while_it_is_asked_is_not_in_trouble(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path)
    kernel.refuse_sensors(errno.EPERM)
    said = iter([False, True, True])
    monkeypatch.setattr(Card, "is_suspended", lambda card: next(said))
    (card,) = probe(tmp_path)().gpus
    assert card == GpuLoad(free_bytes=7 << 30, asleep=True)


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
    assert ask() == msgspec.structs.replace(HOST, gpu_trouble="the cards have not answered for 6 s")
    answers.set()
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)
    assert ask() == well


def test_a_card_that_takes_long_to_tell_its_power_is_asked_for_it_rarely_and_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = plant(tmp_path)
    clock, asked = [0.0], []
    ask, find = probe(tmp_path, clock), Card.find
    is_asked, answers = threading.Event(), threading.Event()

    def slow(card: Card, record: DeviceRecord, wanted: Collection[str]) -> Found:
        if "power_w" in wanted:
            asked.append(clock[0])
            is_asked.set()
            answers.wait()
            clock[0] += 0.5
        return find(card, record, wanted)

    monkeypatch.setattr(Card, "find", slow)
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    ask()
    assert is_asked.wait(30.0)
    (card,) = ask().gpus
    assert (card.busy_pct, card.power_w) == (37.0, None)
    answers.set()
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)
    told = [card.power_w for card in ask().gpus]
    for now_s in (1.0, 10.0, 11.0):
        clock[0] = now_s
        device.joinpath("hwmon/hwmon2/power1_input").write_text(f"{now_s * 1e6:.0f}\n")
        told += [card.power_w for card in ask().gpus]
    assert asked == [0.0, 11.0]
    assert told == [83.021, 83.021, 83.021, 11.0]


def test_a_sleeping_card_is_announced_and_fit_and_is_not_woken(
    tmp_path: Path, kernel: Kernel
) -> None:
    plant(tmp_path, {**POLARIS, "power/runtime_status": "suspended\n"})
    ask = probe(tmp_path)
    kernel.read.clear()
    assert ask.gpus() == [Gpu("polaris", 8 << 30)]
    asleep = GpuLoad(free_bytes=7 << 30, asleep=True)
    assert ask() == msgspec.structs.replace(HOST, gpus=(asleep,))
    # A label and a name are texts in the driver.
    free_of_cost = re.compile("runtime_.*|mem_info_.*|.*_label|name")
    assert [name for name in kernel.read if not free_of_cost.fullmatch(name)] == []


def test_an_unknown_chip_is_announced_without_a_family_and_an_apu_with_the_memory_it_can_use(
    tmp_path: Path,
) -> None:
    plant(tmp_path, chip_of(0xFFFE))
    assert probe(tmp_path).gpus() == [Gpu(None, 8 << 30)]
    plant(tmp_path, chip_of(0x1586, mem_info_vram_total="2147483648\n"))
    assert probe(tmp_path).gpus() == [Gpu("navi3", (2 << 30) + 8342712320, is_apu=True)]
    (card,) = probe(tmp_path)().gpus
    assert card.free_bytes == (1 << 30) + 8342712320 - 20971520
    plant(tmp_path, chip_of(0x67DF, mem_info_vram_total=None))
    assert probe(tmp_path).gpus() == [Gpu("polaris", None)]


def test_an_idle_card_is_left_alone_so_that_it_can_sleep(tmp_path: Path, kernel: Kernel) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP, "gpu_busy_percent": "0\n"})
    clock = [0.0]
    ask = probe(tmp_path, clock)
    asked_s = []
    for now in range(120):
        clock[0] = now
        kernel.read.clear()
        (card,) = ask().gpus
        assert (card.busy_pct, card.temperature_c, card.asleep) == (0.0, 61.0, False)
        assert ("power1_input" in kernel.read) == ("temp1_input" in kernel.read)
        if "temp1_input" in kernel.read:
            asked_s.append(now)
    gaps = [after - before for before, after in pairwise(asked_s)]
    assert max(gaps[:5]) == 1
    assert [gap for gap in gaps if gap > 1] == [8, 15, 30, 60][: len([g for g in gaps if g > 1])]
    assert len(asked_s) < 20
    (device / "mem_info_vram_used").write_text("2147483648\n")
    kernel.read.clear()
    assert ask().gpus[0].free_bytes == 6 << 30
    assert "temp1_input" in kernel.read, "its memory is used, so it works"


FDINFO = """pos:\t0
drm-driver:\tamdgpu
drm-pdev:\t0000:0a:00.0
drm-client-id:\t{client}
drm-memory-vram:\t1024 KiB
drm-memory-gtt:\t16 KiB
drm-engine-gfx:\t5000 ns
drm-engine-compute:\t70 ns
"""


def test_the_workers_own_use_of_a_card_is_told_with_each_heartbeat(tmp_path: Path) -> None:
    process = tmp_path / "self"
    plant(tmp_path / "drm")
    links = "/dev/dri/renderD128", "/dev/dri/renderD128", "/dev/dri/card0", "/var/log/notes"
    for number, (link, client) in enumerate(zip(links, (1, 1, 2, 3), strict=True)):
        for folder in ("fd", "fdinfo"):
            (process / folder).mkdir(parents=True, exist_ok=True)
        (process / "fd" / str(number)).symlink_to(link)
        (process / "fdinfo" / str(number)).write_text(FDINFO.format(client=client))
    assert own_use(process) == {"0000:0a:00.0": OwnUse(2 << 20, 32 << 10, 10_140)}
    ask = GpuProbe(tmp_path / "drm", host=lambda: HOST, process=process)
    (card,) = ask().gpus
    assert (card.own_memory_bytes, card.own_engine_ns) == (2 << 20, 10_140)
    assert OwnUse(2 << 20, 32 << 10).memory_bytes(is_apu=True) == (2 << 20) + (32 << 10)
    assert own_use(tmp_path / "nowhere") == {}


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
