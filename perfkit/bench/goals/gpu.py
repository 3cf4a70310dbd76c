"""The table of goals for watching cards: what a sample and a sampler cost, and whether it is right.

No card is needed: reading one is reading files, so a made-up tree on this machine's own file system
stands in. What the driver does in the kernel before it answers comes on top on a real card, and
cannot be saved by whoever asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from perfkit.bench.goals.gpu_fuzz import fuzz
from perfkit.bench.goals.recorded_cards import judge
from perfkit.bench.goals.table import OPTIMIZED, Goal, GoalTable, chosen, make_row
from perfkit.bench.workloads.load import WrongResult
from perfkit.bench.workloads.rounds import Arm, ArmSamples, take_turns
from perfkit.evidence.environment import fingerprint
from perfkit.gpu.card import Cards, FastReader
from perfkit.gpu.sampler import GROUPS, GpuSampler, thread_cpu_s

OPENING, WAKING = "opening the files each time", "a thread that only wakes"
#: Where recorded cards are looked for; they are not part of the project.
RECORDED = Path("../shared/gpu/sysfs")
FIELDS = GROUPS["activity"]

#: The made-up card's files: those of a Polaris before Linux 6.6.
FILES: Mapping[str, str] = {
    "vendor": "0x1002\n",
    "uevent": "DRIVER=amdgpu\nPCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:09:00.0\n",
    "power/runtime_status": "active\n",
    "gpu_busy_percent": "11\n",
    "mem_info_vram_used": "536870912\n",
    "mem_info_vram_total": "4294967296\n",
    "hwmon/hwmon4/name": "amdgpu\n",
    "hwmon/hwmon4/power1_average": "41045000\n",
}
VALUES = (11, 536870912, 41.045)


@dataclass(frozen=True)
class GpuSizes:
    """How much is measured: rounds, samples and seconds in each, and inputs over all rounds."""

    rounds: int
    samples: int
    watch_s: float
    inputs: int


PROFILES: Mapping[str, GpuSizes] = {
    "quick": GpuSizes(rounds=6, samples=2_000, watch_s=1.5, inputs=100_000),
    "full": GpuSizes(rounds=12, samples=10_000, watch_s=5.0, inputs=400_000),
}

GOALS = (
    Goal(
        "recorded_cards", "recorded", "%", "higher", "value", 100.0,
        "every field as read by hand", note=f"fields of the cards in {RECORDED}, if it is there",
    ),
    Goal(
        "fast_sample", "fast_sample", "µs", "lower", "value", 10.0,
        "p50 ≤ 10 µs", note="three fields of a card from files held open, and whether it sleeps",
    ),
    Goal(
        "fast_sample_vs_opening", "fast_sample", "µs", "lower", "ratio", 0.2,
        "≤ 1/5 of opening the files each time", OPENING,
        note="the same files through open, read and close",
    ),
    Goal(
        "sampler_100_hz", "cpu_100_hz", "% of a core", "lower", "value", 0.5,
        "≤ 0.5 % of a core", WAKING,
        note="processor time of the sampler's thread while three fields are watched",
    ),
    Goal(
        "sampler_10_hz", "cpu_10_hz", "% of a core", "lower", "value", 0.1,
        "≤ 0.1 % of a core", WAKING,
        note="processor time of the sampler's thread while three fields are watched",
    ),
    Goal(
        "bad_inputs", "bad_inputs", "wrong", "lower", "value", 0.0,
        "no exception, no made-up value",
        note="damaged files, tables and answers of tools; 100,000 in the quick profile",
    ),
)  # fmt: skip


def measure_gpu(
    profile: str | GpuSizes = "quick",
    *,
    seed: int = 0,
    recorded: Path = RECORDED,
    progress: Callable[[str], None] | None = None,
) -> GoalTable:
    """Measure every goal on this machine.

    Raises ExperimentError for an unknown profile and WrongResult when a sample was not what the
    files say.
    """
    name, sizes = chosen(profile, PROFILES)
    environment, began_s = fingerprint(), time.perf_counter()
    tell = progress or (lambda line: None)
    with made_up_card() as root:
        readings = _costs(root, sizes, seed, lambda line: tell(f"gpu: {line}"))
    readings["bad_inputs"] = {OPTIMIZED: _bad_inputs(sizes, seed, tell)}
    judged, differ = judge(recorded)
    for text in differ:
        tell(f"gpu: {text}")
    if judged:
        right = 100.0 * (judged - len(differ)) / judged
        readings["recorded"] = {OPTIMIZED: [right] * sizes.rounds}
    return GoalTable(
        tuple(make_row(goal, readings, seed) for goal in GOALS),
        environment,
        name,
        seed,
        "",
        time.perf_counter() - began_s,
    )


@contextmanager
def made_up_card() -> Iterator[Path]:
    """A folder that stands in for /sys/class/drm, with one card."""
    with TemporaryDirectory(prefix="gpu-card-") as folder:
        for name, text in FILES.items():
            path = Path(folder) / "card0" / "device" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield Path(folder)


def _costs(root: Path, sizes: GpuSizes, seed: int, say: Callable[[str], None]) -> ArmSamples:
    card = next(iter(Cards(root)))
    reader = FastReader(card, FIELDS)
    files = [root / "card0/device" / name for name in FILES if name.endswith(_READ)]

    def held() -> Mapping[str, float]:
        return {"fast_sample": _median_us(lambda: reader.read().values, sizes.samples)}

    def opened() -> Mapping[str, float]:
        return {"fast_sample": _median_us(lambda: _open_and_read(files), sizes.samples)}

    readings = take_turns({OPTIMIZED: held, OPENING: opened}, sizes.rounds, seed, "µs", say)
    card.close()
    for rate_hz in (100, 10):
        arms: dict[str, Arm] = {
            OPTIMIZED: partial(_watch, root, rate_hz, sizes.watch_s),
            WAKING: partial(_wake, rate_hz, sizes.watch_s),
        }
        readings |= take_turns(arms, sizes.rounds, seed, f"% of a core at {rate_hz} Hz", say)
    return readings


#: What opening the files each time has to open: the three fields, and whether the card sleeps.
_READ = ("runtime_status", "gpu_busy_percent", "vram_used", "power1_average")


def _open_and_read(files: list[Path]) -> tuple[float, ...]:
    """The same sample as a script would take it."""
    texts = {}
    for path in files:
        with open(path) as file:
            texts[path.name] = file.read()
    assert texts["runtime_status"].strip() == "active"
    return (
        int(texts["gpu_busy_percent"]),
        int(texts["mem_info_vram_used"]),
        int(texts["power1_average"]) / 1_000_000,
    )


def _median_us(sample: Callable[[], tuple[float | None, ...]], samples: int) -> float:
    """Microseconds that a sample takes, after it was found to be right."""
    if sample() != VALUES:
        raise WrongResult(f"a sample of the made-up card was {sample()}, not {VALUES}")
    taken_ns = []
    for _ in range(samples):
        began_ns = time.perf_counter_ns()
        sample()
        taken_ns.append(time.perf_counter_ns() - began_ns)
    return median(taken_ns) / 1_000


def _watch(root: Path, rate_hz: int, watch_s: float) -> Mapping[str, float]:
    """Processor time of a sampler's thread, in percent of a core."""
    sampler = GpuSampler(root, rates_hz={"activity": rate_hz})
    sampler.read("activity")  # which file has which field is found out once
    with sampler:
        cpu_pct = _cpu_pct(lambda: sampler.cpu_s, watch_s)
    (key,) = sampler.tracks
    rows = sampler.rows(key, "activity")
    if {row.values for row in rows} != {VALUES} or len(rows) < watch_s * rate_hz / 2 - 2:
        raise WrongResult(f"a sampler at {rate_hz:g} Hz kept {len(rows)} rows in {watch_s:g} s")
    return {f"cpu_{rate_hz}_hz": cpu_pct}


def _wake(rate_hz: int, watch_s: float) -> Mapping[str, float]:
    """The same for a thread that does nothing but wake at that rate: what no sampler goes below."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            time.sleep(1 / rate_hz)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return {f"cpu_{rate_hz}_hz": _cpu_pct(lambda: thread_cpu_s(thread), watch_s)}
    finally:
        done.set()
        thread.join()


def _cpu_pct(used_s: Callable[[], float], watch_s: float) -> float:
    began_s, cpu_s = time.perf_counter(), used_s()
    threading.Event().wait(watch_s)
    return 100.0 * (used_s() - cpu_s) / (time.perf_counter() - began_s)


def _bad_inputs(sizes: GpuSizes, seed: int, tell: Callable[[str], None]) -> list[float]:
    """How many inputs went wrong, in each round."""
    wrong = []
    for number in range(sizes.rounds):
        texts = list(fuzz(-(-sizes.inputs // sizes.rounds), seed + number))
        for text in texts[:10]:
            tell(f"gpu: {text}")
        tell(f"gpu: bad inputs, round {number + 1} of {sizes.rounds}: {len(texts)} wrong")
        wrong.append(float(len(texts)))
    return wrong
