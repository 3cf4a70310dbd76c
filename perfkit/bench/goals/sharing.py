"""What it is worth that workers of a host share a model's weights: memory, loading, speed.

The same model is served the plain way, each worker with weights of its own, and shared. Memory is
the sum of the workers' PSS, which divides a shared page by the processes that map it; RSS would
count it in each of them and hide all there is to see. It is taken after every worker has answered,
because a page that nobody has touched is in nobody's memory. Loading is timed in processes of their
own that have imported everything and opened a small model before, so that it is not the runtime's
own start that is timed; the first load, into an empty cache, is told beside it.
Speed is that of two sessions in one process that take turns, after their answers were compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.local import LocalCluster
from cluster.models.cache import Cache
from cluster.models.inference import Model, ModelRepository
from cluster.models.samples import LIKE_AND_UNLIKE
from cluster.models.tensor import unpack_tensor
from perfkit.bench.goals.cluster_runs import MIB
from perfkit.bench.goals.table import BASELINE as PLAIN
from perfkit.bench.goals.table import OPTIMIZED as SHARED
from perfkit.bench.goals.table import Goal, GoalRow, ends, make_row, number, verdict
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.bench.workloads.rounds import Arm, Readings, take_turns
from perfkit.evidence.tables import data_frame, html_table
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.watch import process_memory

if TYPE_CHECKING:
    import pandas as pd

MODEL = "minilm"
#: How far a component of a vector may differ between the two ways; its length is 1.
TOLERANCE = 1e-5

Say = Callable[[str], None]


@dataclass(frozen=True)
class SharingSizes:
    """How much is measured: rounds of clusters, of ``workers`` each, of loads and of items."""

    workers: tuple[int, ...] = (1, 2, 4)
    memory_rounds: int = 3
    load_rounds: int = 8
    first_loads: int = 2
    item_rounds: int = 16


GOALS: Mapping[str, Goal] = {
    goal.figure: goal
    for goal in (
        Goal(
            "shared_pss_4", "pss_4", "MiB", "lower", "ratio", 0.45,
            "≤ 0.45 × the plain way", against=PLAIN, note=f"total PSS of 4 workers with {MODEL}",
        ),
        Goal(
            "shared_load", "load", "ms", "lower", "ratio", 1 / 3,
            "≥ 3 × faster", against=PLAIN, note="load from the cache",
        ),
        Goal(
            "shared_network", "network", "ms", "lower", "ratio", None,
            "for comparison", against=PLAIN, note="the same without reading the tokenizer",
        ),
        Goal(
            "shared_latency", "item", "ms", "lower", "ratio", 1.05,
            "≤ 1.05 × the plain way", against=PLAIN, note="one text at a time",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SharingTable:
    """Rows of both ways, `optimized` shared and `baseline` plain: total PSS for each number of
    workers, load and latency. `first_load_ms` are loads into an empty cache.
    """

    rows: tuple[GoalRow, ...]
    first_load_ms: tuple[float, ...]

    def __iter__(self) -> Iterator[GoalRow]:
        return iter(self.rows)

    def to_frame(self) -> pd.DataFrame:
        """A row for each figure: both ways, their ratio with its interval, and the goal."""
        named = {"plain": "baseline", "shared": "value", "shared_low": "low", "shared_high": "high"}
        same = ("ratio", "ratio_low", "ratio_high", "goal", "met")
        columns = {"name": "name", "unit": "unit", **named, **{it: it for it in same}}
        rows = [{it: getattr(row, of) for it, of in columns.items()} for row in self.rows]
        return data_frame(rows, list(columns))

    def _repr_html_(self) -> str:
        first = ", ".join(map(number, self.first_load_ms))
        return html_table(
            f"{MODEL} the plain way and with shared weights, in turns (95 % intervals)",
            ("figure", "plain", "shared", "ratio", "asked", "met", "what"),
            [
                (
                    row.name,
                    f"{number(row.baseline)} {row.unit}",
                    f"{number(row.value)} {row.unit} {ends(row.low, row.high)}",
                    f"{number(row.ratio)} {ends(row.ratio_low, row.ratio_high)}",
                    row.goal_text,
                    verdict(row),
                    row.note,
                )
                for row in self.rows
            ],
            [f"A first load, which makes the files: {first} ms."],
        )


def measure_sharing(
    sizes: SharingSizes | None = None, *, seed: int = 0, progress: Say | None = None
) -> SharingTable:
    """Measure both ways on this machine; about a minute.

    `progress` is called with one plain line at a time. Raises ModelError when the model cannot be
    loaded, ExperimentError when it cannot be shared here or the system does not tell PSS,
    WrongResult when the two ways disagree or mistake a meaning.
    """
    sizes, say = sizes or SharingSizes(), progress or (lambda line: None)
    texts = sorted({text.encode() for triple in LIKE_AND_UNLIKE for text in triple})
    readings = _item_readings(texts, sizes, seed, say)
    readings |= _load_readings(sizes, seed, say)
    readings |= _memory_readings(texts, sizes, say)
    goals = [*map(_memory_goal, sizes.workers)]
    goals += [GOALS[figure] for figure in ("load", "network", "item")]
    rows = tuple(make_row(goal, readings, seed) for goal in goals)
    return SharingTable(rows, tuple(_first_load_ms() for _ in range(sizes.first_loads)))


def _memory_goal(workers: int) -> Goal:
    """The row of a number of workers; asked is only something of some."""
    figure = f"pss_{workers}"
    note = f"total PSS of {workers} worker{'s' if workers > 1 else ''} with {MODEL}"
    unasked = Goal(f"shared_{figure}", figure, "MiB", "lower", "ratio", None, "for comparison",
                   against=PLAIN, note=note)  # fmt: skip
    return GOALS.get(figure, unasked)


# Speed


def _item_readings(texts: Sequence[bytes], sizes: SharingSizes, seed: int, say: Say) -> Readings:
    plain, shared = (ModelRepository(share=share).load(MODEL) for share in (False, True))
    if not shared.describe().shared:
        why = "; ".join(shared.describe().notes) or f"it runs on {shared.provider}"
        raise ExperimentError(f"{MODEL} cannot be shared here: {why}")
    check_same(plain, shared, texts)
    check_meaning(shared)
    arms = {PLAIN: _item_arm(plain, texts), SHARED: _item_arm(shared, texts)}
    return take_turns(arms, sizes.item_rounds, seed, "ms an item", say)


def _item_arm(model: Model, texts: Sequence[bytes]) -> Arm:
    def ask() -> Mapping[str, float]:
        times_ms = []
        for text in texts:
            began_s = time.perf_counter()
            model.infer_batch([text])
            times_ms.append((time.perf_counter() - began_s) * 1e3)
        return {"item": statistics.median(times_ms)}

    return ask


def check_same(plain: Model, shared: Model, texts: Sequence[bytes]) -> None:
    """Raises WrongResult unless both ways give the same vector for each text."""
    answers = zip(texts, *(model.infer_batch([*texts]) for model in (plain, shared)), strict=True)
    for text, one, other in answers:
        off = float(abs(unpack_tensor(one) - unpack_tensor(other)).max())
        if not off <= TOLERANCE:
            raise WrongResult(
                f"{MODEL} gives another vector when shared: {text!r} is off by {off:g}"
            )


def check_meaning(model: Model) -> None:
    """Raises WrongResult unless texts of like meaning are nearer than those of like words."""
    for triple in LIKE_AND_UNLIKE:
        text, like, unlike = map(unpack_tensor, model.infer_batch([it.encode() for it in triple]))
        if not text @ like > text @ unlike:
            raise WrongResult(f"{MODEL} finds {triple[0]!r} nearer to {triple[2]!r}: it is broken")


# Loading


def _load_readings(sizes: SharingSizes, seed: int, say: Say) -> Readings:
    arms: dict[str, Arm] = {
        PLAIN: lambda: load_times(share=False),
        SHARED: lambda: load_times(share=True),
    }
    return take_turns(arms, sizes.load_rounds, seed, "ms to load", say)


def load_times(*, share: bool, cache: Path | None = None) -> Mapping[str, float]:
    """The milliseconds a fresh process takes to open the network and to load all of the model, from
    the user's cache or another.

    Raises:
        ExperimentError: it could not.
    """
    command = [sys.executable, "-m", "perfkit.bench.goals.sharing", "share" if share else "plain"]
    command += [] if cache is None else [str(cache)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise ExperimentError(f"{MODEL} could not be loaded: {done.stderr.strip()[-500:]}")
    network, load = map(float, done.stdout.split())
    return {"network": network, "load": load}


def _first_load_ms() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return load_times(share=True, cache=Path(folder))["load"]


def _load_once(how: str, cache: str | None = None) -> None:
    """Load the model and print the milliseconds; what any model costs the first time is over."""
    import tokenizers as _tokenizers  # noqa: F401

    ModelRepository().load("digits")
    repository = ModelRepository(share=how == "share", cache=Cache(Path(cache)) if cache else None)
    info = repository.load(MODEL).describe()
    print(info.network_ms, info.load_ms)


# Memory


def _memory_readings(texts: Sequence[bytes], sizes: SharingSizes, say: Say) -> Readings:
    """Total PSS of the workers, in MiB, as one cluster after the other grows."""
    readings: Readings = {}
    for number_ in range(sizes.memory_rounds):
        # One cluster at a time: two would share the runtime's code, and each look smaller.
        for way in (PLAIN, SHARED) if number_ % 2 == 0 else (SHARED, PLAIN):
            for workers, pss_bytes in grown(way == SHARED, sizes.workers, texts):
                figure = readings.setdefault(f"pss_{workers}", {})
                figure.setdefault(way, []).append(pss_bytes / MIB)
                say(
                    f"round {number_ + 1} of {sizes.memory_rounds}, {way}: {workers} workers "
                    f"{pss_bytes / MIB:.0f} MiB"
                )
    return readings


def grown(share: bool, counts: Iterable[int], texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Each number of workers with their total PSS in bytes, as a cluster of this model grows.

    Raises:
        ExperimentError: the system does not tell PSS. ClusterError: a worker did not come up.
    """
    with (
        LocalCluster(0, OPTIMIZED, models=(MODEL,), share_models=share) as local,
        local.client() as client,
    ):
        for count in counts:
            while len(local.workers) < count:
                local.add_worker()
            # Until each has answered as many as there are texts: then it has touched what it needs.
            while min(worker.finished for worker in client.status().workers) < len(texts):
                list(client.map(MODEL, [*texts] * count))
            samples = [process_memory(worker.pid) for worker in local.workers]
            known = [it.pss_bytes for it in samples if it is not None and it.pss_bytes is not None]
            if len(known) < count:
                raise ExperimentError("this system does not tell the PSS of a worker")
            yield count, sum(known)


if __name__ == "__main__":
    _load_once(*sys.argv[1:])
