"""The table of goals for watching cards: what a sample and a sampler cost, and whether it is right.

No card is needed for the cost: reading one is reading files, so a made-up tree on this machine's
own file system stands in. On a real card the driver's own time in the kernel comes on top; no
reader can save it. Whether the figures are right is known of recordings only, which are given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from perfkit.bench.goals.recorded import Recording, read_recordings
from perfkit.bench.goals.table import OPTIMIZED, Goal, GoalRow, GoalTable, chosen, make_row
from perfkit.bench.goals.torn import torn_inputs
from perfkit.bench.workloads.load import WrongResult
from perfkit.bench.workloads.rounds import Arm, ArmSamples, Say, prefixed, take_turns
from perfkit.evidence.environment import fingerprint
from perfkit.gpu.card import Cards, FastReader
from perfkit.gpu.device.made_up import made_up_card
from perfkit.gpu.sampler import GROUPS, GpuSampler, thread_cpu_s

OPENING, WAKING = "opening the files each time", "a thread that only wakes"
#: The made-up card's files that a sample needs, and the sample: `activity`, and whether it sleeps.
FILES = (
    "power/runtime_status",
    "gpu_busy_percent",
    "mem_info_vram_used",
    "hwmon/hwmon2/power1_input",
)
VALUES = (37, 1 << 30, 83.021)


@dataclass(frozen=True)
class GpuSizes:
    """How much is measured: rounds, samples and seconds in each, and torn inputs."""

    rounds: int
    samples: int
    watch_s: float
    torn: int = 200


#: As many torn inputs have to be read for a verdict.
TORN_MIN = 100_000
PROFILES: Mapping[str, GpuSizes] = {
    "quick": GpuSizes(rounds=6, samples=2_000, watch_s=1.5, torn=2_000),
    "full": GpuSizes(rounds=12, samples=10_000, watch_s=5.0, torn=TORN_MIN),
}

GOALS = (
    Goal(
        "fast_sample", "fast_sample", "µs", "lower", "value", 5.0,
        "p50 ≤ 5 µs", note="three fields of a card from files held open, and whether it sleeps",
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
        "sampler_10_hz", "cpu_10_hz", "% of a core", "lower", "ratio", 3.0,
        "≤ 3 × a thread that only wakes", WAKING,
        note="processor time of the sampler's thread while three fields are watched",
    ),
)  # fmt: skip
FIELDS_RIGHT = Goal(
    "fields_right", "fields_right", "%", "higher", "value", 99.0, "≥ 99 %"
)  # fmt: skip
RECORDINGS_RIGHT = Goal(
    "recordings_right", "recordings_right", "%", "higher", "value", 100.0, "all recordings"
)
TORN = Goal("torn_inputs", "torn_inputs", "wrong", "lower", "value", 0.0, f"none of {TORN_MIN:,}")
#: Mistakes that are told below the table.
MISTAKES_TOLD = 10
NOT_GIVEN = "none were given; `perfkit bench gpu --recorded FOLDER` compares some"


def measure_gpu(
    profile: str | GpuSizes = "quick",
    *,
    seed: int = 0,
    progress: Say | None = None,
    recorded: Path | None = None,
) -> GoalTable:
    """Measure every goal on this machine; `recorded` is a folder for `read_recordings`.

    Raises ExperimentError for an unknown profile and a folder without recordings, and WrongResult
    if a sample is not what the files say.
    """
    name, sizes = chosen(profile, PROFILES)
    environment, began_s = fingerprint(), time.perf_counter()
    say = prefixed(progress, "gpu")
    recordings = read_recordings(recorded) if recorded is not None else []
    with made_up_card() as root:
        readings = _costs(root, sizes, seed, say)
    say(f"{sizes.torn:,} torn inputs")
    wrong = torn_inputs(sizes.torn, seed)
    rows = [make_row(goal, readings, seed) for goal in GOALS]
    counted = [*_recording_rows(recordings), _torn_row(wrong, sizes.torn)]
    mistakes = [line for found in recordings for line in found.wrong] + wrong
    notes = [f"{row.name}: {row.note}." for row in counted] + mistakes[:MISTAKES_TOLD]
    if len(mistakes) > MISTAKES_TOLD:
        notes.append(f"… {len(mistakes):,} in all")
    took_s = time.perf_counter() - began_s
    return GoalTable((*rows, *counted), environment, name, seed, "", took_s, tuple(notes))


def _recording_rows(recordings: Sequence[Recording]) -> list[GoalRow]:
    """How much of the recordings was read right; unknown without one."""
    fields_n = sum(found.fields_n for found in recordings)
    right_n = fields_n - sum(found.fields_wrong_n for found in recordings)
    whole_n = sum(not found.wrong for found in recordings)
    return [
        _counted(FIELDS_RIGHT, right_n, fields_n, "fields of recorded cards"),
        _counted(RECORDINGS_RIGHT, whole_n, len(recordings), "recordings without a wrong figure"),
    ]


def _counted(goal: Goal, right_n: int, of_n: int, what: str) -> GoalRow:
    """The row of a share that was counted, and so is exact."""
    row = make_row(goal, {})
    if not of_n:
        return replace(row, note=f"{what}, but {NOT_GIVEN}")
    share = 100.0 * right_n / of_n
    met = goal.goal is not None and share >= goal.goal
    note = f"{right_n:,} of {of_n:,} {what}"
    return replace(row, value=share, low=share, high=share, met=met, note=note)


def _torn_row(wrong: Sequence[str], inputs: int) -> GoalRow:
    """How many torn inputs were read wrongly; fewer than TORN_MIN prove nothing if none was."""
    met = False if wrong else (True if inputs >= TORN_MIN else None)
    note = (
        f"of {inputs:,} torn files of cards and profilers; an exception or a made-up value is wrong"
    )
    count = float(len(wrong))
    return replace(make_row(TORN, {}), value=count, low=count, high=count, met=met, note=note)


def _costs(root: Path, sizes: GpuSizes, seed: int, say: Callable[[str], None]) -> ArmSamples:
    card = next(iter(Cards(root)))
    reader = FastReader(card, GROUPS["activity"])
    files = [card.info.device / name for name in FILES]

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


def _open_and_read(files: list[Path]) -> tuple[float, ...]:
    """The same sample as a script would take it."""
    texts = []
    for path in files:
        with open(path) as file:
            texts.append(file.read().strip())
    status, busy, vram_used, power = texts
    assert status == "active"
    return int(busy), int(vram_used), int(power) / 1_000_000


def _median_us(sample: Callable[[], tuple[float | None, ...]], samples: int) -> float:
    """Microseconds that a sample takes; raises WrongResult for a wrong one."""
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
    sampler.read("activity")  # finds the file of each field, once
    with sampler:
        cpu_pct = _cpu_pct(lambda: sampler.cpu_s, watch_s, rate_hz)
    (key,) = sampler.tracks
    rows = sampler.rows(key, "activity")
    if {row.values for row in rows} != {VALUES} or len(rows) < watch_s * rate_hz / 2 - 2:
        raise WrongResult(f"a sampler at {rate_hz:g} Hz kept {len(rows)} rows in {watch_s:g} s")
    return {f"cpu_{rate_hz}_hz": cpu_pct}


def _wake(rate_hz: int, watch_s: float) -> Mapping[str, float]:
    """The same for a thread that only wakes at that rate: the lower bound of every sampler."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            time.sleep(1 / rate_hz)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return {f"cpu_{rate_hz}_hz": _cpu_pct(lambda: thread_cpu_s(thread), watch_s, rate_hz)}
    finally:
        done.set()
        thread.join()


def _cpu_pct(used_s: Callable[[], float], watch_s: float, rate_hz: int) -> float:
    """Percent of a core that a thread uses while it is watched, without its start."""
    threading.Event().wait(0.5 / rate_hz)
    began_s, cpu_s = time.perf_counter(), used_s()
    threading.Event().wait(watch_s)
    return 100.0 * (used_s() - cpu_s) / (time.perf_counter() - began_s)
