"""Real inputs for the models that a cluster serves, each with the expected answer.

Before a model is timed, its accuracy on inputs with a known truth (held-out rows; a file's suffix)
is measured in this process and has to reach a floor. The cluster's answers are then compared one by
one with those of this process, so that a task with its neighbour's answer is caught.
"""

from __future__ import annotations

import math
import os
import random
import sysconfig
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import msgspec

from cluster.models.inference import ModelRepository, file_payload
from perfkit.bench.workloads.load import ExperimentError, Work, WrongResult

#: A model below this is broken, not slow.
ACCURACY_MIN = 0.9
#: How far scores of two processes may differ, whose batches differ.
SCORE_TOLERANCE = 1e-3
CONFIDENCE = 0.95
#: What magika must call a file of the installed Python, by its suffix.
FILE_LABELS: Mapping[str, frozenset[str]] = {
    ".py": frozenset({"python"}),
    ".pyc": frozenset({"pythonbytecode"}),
    ".so": frozenset({"elf"}),
    ".h": frozenset({"c", "cpp"}),
}
#: Installed packages, and the library's tests: files that are wrong on purpose.
FOLDERS_APART = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
#: Distinct files; more tasks repeat them.
FILES_MAX = 200
#: A shorter file says too little about its type.
FILE_BYTES_MIN = 256

#: Payloads, and for each the labels that are right.
Inputs = tuple[list[bytes], list[frozenset[str]]]


@lru_cache(maxsize=8)
def model_work(name: str, tasks: int, seed: int) -> Work:
    """`tasks` real inputs for a model, in an order that follows from the seed.

    Its `figures` hold the accuracy with its interval; its `facts` the number of distinct inputs and
    the execution provider that really ran. Raises ExperimentError for a model without known
    inputs, WrongResult for an accuracy below ACCURACY_MIN, ModelError if it cannot be loaded.
    """
    if name not in INPUTS:
        raise ExperimentError(f"no inputs are known for model {name!r}; take {', '.join(INPUTS)}")
    model = ModelRepository().load(name)
    payloads, truths = INPUTS[name](tasks, random.Random(seed))
    answers = model.infer_batch(payloads)
    right = sum(_label(answer) in truth for answer, truth in zip(answers, truths, strict=True))
    accuracy = right / len(answers)
    if accuracy < ACCURACY_MIN:
        raise WrongResult(
            f"model {name!r} is right about {right} of {len(answers)} inputs, less than "
            f"{ACCURACY_MIN:.0%}: its speed means nothing"
        )
    low, high = _proportion_interval(right, len(answers))
    info = model.describe()
    rounds = -(-tasks // len(payloads))
    return Work(
        name,
        (payloads * rounds)[:tasks],
        (answers * rounds)[:tasks],
        models=(name,),
        same=_same_answer,
        facts={
            "provider": info.provider,
            "model_sha256": info.file_sha256,
            "distinct_inputs": len(payloads),
        },
        figures={"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high},
    )


def _digits(tasks: int, rng: random.Random) -> Inputs:
    """Rows that the model was not trained on."""
    from cluster.models.frames.tensor import pack_tensor
    from cluster.models.samples import held_out_digits

    rows, labels = held_out_digits()
    order = rng.sample(range(len(rows)), len(rows))
    truths = [frozenset({str(labels[place])}) for place in order]
    return [pack_tensor(rows[place]) for place in order], truths


def _magika(tasks: int, rng: random.Random) -> Inputs:
    """Files of the installed Python, about as many of each suffix."""
    found = python_files()
    if not found:
        raise ExperimentError("the installed Python has no files of a known type to ask about")
    wanted = min(tasks, FILES_MAX)
    chosen: list[Path] = []
    for number, (_, paths) in enumerate(sorted(found.items())):
        share = wanted // len(found) + (number < wanted % len(found))
        chosen += rng.sample(paths, min(share, len(paths)))
    rng.shuffle(chosen)
    return [file_payload(path) for path in chosen], [FILE_LABELS[path.suffix] for path in chosen]


def python_files() -> dict[str, list[Path]]:
    """Files of the installed Python, without installed packages, by the suffixes of FILE_LABELS."""
    found: dict[str, set[Path]] = {suffix: set() for suffix in FILE_LABELS}
    for top in ("stdlib", "platstdlib", "include"):
        for folder, inner, names in os.walk(sysconfig.get_path(top)):
            inner[:] = set(inner) - FOLDERS_APART
            for path in (Path(folder, name) for name in names):
                if path.suffix in found and path.stat().st_size >= FILE_BYTES_MIN:
                    found[path.suffix].add(path)
    return {suffix: sorted(paths) for suffix, paths in found.items() if paths}


INPUTS: Mapping[str, Callable[[int, random.Random], Inputs]] = {
    "digits": _digits,
    "magika": _magika,
}


def _label(answer: bytes) -> str:
    return str(msgspec.msgpack.decode(answer)["label"])


def _same_answer(result: bytes, expected: bytes) -> bool:
    """Whether two answers agree, up to the last digits of the score."""
    if result == expected:
        return True
    try:
        got, wanted = msgspec.msgpack.decode(result), msgspec.msgpack.decode(expected)
        close = abs(got.pop("score") - wanted.pop("score")) <= SCORE_TOLERANCE
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return False
    return bool(close and got == wanted)


def _proportion_interval(right: int, count: int) -> tuple[float, float]:
    """E. B. Wilson's score interval (JASA 22, 1927), which also holds near 1."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At 0 and 1 rounding could exclude the share itself.
    low, high = (middle - half) / scale, (middle + half) / scale
    return max(0.0, min(share, low)), min(1.0, max(share, high))
