"""What it is worth that workers of a host share a model's weights: memory, loading, speed.

The same model is served plain, each worker with its own weights, and shared. Memory is the sum of
the workers' PSS, which divides a shared page by the processes that map it; RSS would count it in
each of them. It is read after every worker has answered, because an untouched page is in no
process's memory. Loading is timed in fresh processes that have imported everything and opened a
small model before, so that the runtime's own start is left out; a first load, into an empty cache,
is noted separately. Speed is that of two sessions in one process that take turns, after their
answers were compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cluster.local import LocalCluster
from cluster.models.frames.tensor import unpack_tensor
from cluster.models.inference import Model, ModelRepository
from cluster.models.runtime.cache import Cache
from cluster.models.samples import LIKE_AND_UNLIKE
from cluster.scratch import ScratchFolder
from cluster.vocabulary.printable import count_of
from perfkit.bench.goals.cluster_runs import MIB
from perfkit.bench.goals.table import BASELINE as PLAIN
from perfkit.bench.goals.table import OPTIMIZED as SHARED
from perfkit.bench.goals.table import Goal, GoalTable, make_row
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.bench.workloads.rounds import Arm, ArmSamples, Say, prefixed, run_module, take_turns
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.text import quantity
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.watch import process_memory

MODEL = "minilm"
#: How far a component of a vector of length 1 may differ between plain and shared.
TOLERANCE = 1e-5
LOAD_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class SharingSizes:
    """How much is measured: rounds of clusters (of each number of ``workers``), loads and items."""

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


def measure_sharing(
    sizes: SharingSizes = SharingSizes(), *, seed: int = 0, progress: Say | None = None
) -> GoalTable:
    """Measure plain and shared weights on this machine; takes about a minute.

    Raises ModelError if the model cannot be loaded, ExperimentError if it cannot be shared here or
    PSS is unknown, WrongResult if plain and shared disagree or mistake a meaning.
    """
    say = prefixed(progress, "sharing")
    environment, began_s = fingerprint(), time.perf_counter()
    texts = sorted({text.encode() for triple in LIKE_AND_UNLIKE for text in triple})
    samples = _item_samples(texts, sizes, seed, say)
    samples |= _load_samples(sizes, seed, say)
    samples |= _memory_samples(texts, sizes, say)
    goals = [*map(_memory_goal, sizes.workers)]
    goals += [GOALS[figure] for figure in ("load", "network", "item")]
    first = [quantity(_first_load_ms()) for _ in range(sizes.first_loads)]
    return GoalTable(
        tuple(make_row(goal, samples, seed) for goal in goals),
        environment,
        "sharing",
        seed,
        "",
        time.perf_counter() - began_s,
        (f"Model {MODEL}. A first load, which fills the cache: {', '.join(first)} ms.",),
        ("shared", "plain"),
    )


def _memory_goal(workers: int) -> Goal:
    """The goal for a number of workers; most are for comparison."""
    figure = f"pss_{workers}"
    note = f"total PSS of {count_of(workers, 'worker')} with {MODEL}"
    unasked = Goal(f"shared_{figure}", figure, "MiB", "lower", "ratio", None, "for comparison",
                   against=PLAIN, note=note)  # fmt: skip
    return GOALS.get(figure, unasked)


# Speed


def _item_samples(texts: Sequence[bytes], sizes: SharingSizes, seed: int, say: Say) -> ArmSamples:
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
        return {"item": median(times_ms)}

    return ask


def check_same(plain: Model, shared: Model, texts: Sequence[bytes]) -> None:
    """Raise WrongResult unless plain and shared give the same vector for each text."""
    answers = zip(texts, *(model.infer_batch([*texts]) for model in (plain, shared)), strict=True)
    for text, one, other in answers:
        off = float(abs(unpack_tensor(one) - unpack_tensor(other)).max())
        if not off <= TOLERANCE:
            raise WrongResult(
                f"{MODEL} gives another vector when shared: {text!r} is off by {off:g}"
            )


def check_meaning(model: Model) -> None:
    """Raise WrongResult unless texts of like meaning are nearer than those of like words."""
    for triple in LIKE_AND_UNLIKE:
        text, like, unlike = map(unpack_tensor, model.infer_batch([it.encode() for it in triple]))
        if not text @ like > text @ unlike:
            raise WrongResult(f"{MODEL} finds {triple[0]!r} nearer to {triple[2]!r}: it is broken")


# Loading


def _load_samples(sizes: SharingSizes, seed: int, say: Say) -> ArmSamples:
    arms: dict[str, Arm] = {
        PLAIN: lambda: load_times(share=False),
        SHARED: lambda: load_times(share=True),
    }
    return take_turns(arms, sizes.load_rounds, seed, "ms to load", say)


def load_times(*, share: bool, cache: Path | None = None) -> Mapping[str, float]:
    """Milliseconds for a fresh process to open the network, and to load the whole model.

    Without `cache` it uses the user's. Raises ExperimentError if it fails.
    """
    arguments = ["share" if share else "plain", *([] if cache is None else [str(cache)])]
    printed = run_module(
        "perfkit.bench.goals.sharing", *arguments, what=f"loading {MODEL}", timeout_s=LOAD_TIMEOUT_S
    )
    network, load = map(float, printed.split())
    return {"network": network, "load": load}


def _first_load_ms() -> float:
    with ScratchFolder("sharing-") as folder:
        return load_times(share=True, cache=Path(folder))["load"]


def _load_once(how: str, cache: str | None = None) -> None:
    """Load the model and print the milliseconds, after the first costs of any model."""
    import tokenizers as _tokenizers  # noqa: F401

    ModelRepository().load("digits")
    repository = ModelRepository(share=how == "share", cache=Cache(Path(cache)) if cache else None)
    info = repository.load(MODEL).describe()
    print(info.network_ms, info.load_ms)


# Memory


def _memory_samples(texts: Sequence[bytes], sizes: SharingSizes, say: Say) -> ArmSamples:
    """Total PSS of the workers in MiB, as clusters grow one after the other."""
    samples: ArmSamples = {}
    for number in range(1, sizes.memory_rounds + 1):
        # One cluster at a time: two would share the runtime's code, and each look smaller.
        for arm in (PLAIN, SHARED) if number % 2 else (SHARED, PLAIN):
            for workers, pss_bytes in grown(arm == SHARED, sizes.workers, texts):
                figure = samples.setdefault(f"pss_{workers}", {})
                figure.setdefault(arm, []).append(pss_bytes / MIB)
                pss = quantity(pss_bytes / MIB, "MiB")
                say(
                    f"round {number} of {sizes.memory_rounds}, {arm}: "
                    f"{count_of(workers, 'worker')} {pss}"
                )
    return samples


def grown(share: bool, counts: Iterable[int], texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Each number of workers with their total PSS in bytes, as a cluster of this model grows.

    Raises ExperimentError if PSS is unknown, ClusterError if a worker does not come up.
    """
    with (
        LocalCluster(0, OPTIMIZED, models=(MODEL,), share_models=share) as local,
        local.client() as client,
    ):
        for count in counts:
            while len(local.workers) < count:
                local.add_worker()
            # A worker that has answered as many tasks as there are texts has touched its pages.
            while min(worker.finished for worker in client.status().workers) < len(texts):
                list(client.map(MODEL, [*texts] * count))
            samples = [process_memory(worker.pid) for worker in local.workers]
            known = [it.pss_bytes for it in samples if it is not None and it.pss_bytes is not None]
            if len(known) < count:
                raise ExperimentError("this system does not tell the PSS of a worker")
            yield count, sum(known)


if __name__ == "__main__":
    _load_once(*sys.argv[1:])
