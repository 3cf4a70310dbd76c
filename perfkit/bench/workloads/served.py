"""Real inputs for the models that a cluster serves, each with the answer it must get.

A model that answers fast and wrong is no model, so before anything is timed it has to be right: its
accuracy on inputs whose truth is known from elsewhere (held-out rows; what a file's suffix says) is
measured in this process and has to reach a floor. The cluster's answers are then compared one by
one with those of this process, so that a task that came back with its neighbour's answer is caught.
"""

from __future__ import annotations

import math
import random
import sysconfig
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import msgspec

from cluster.models.inference import Model, ModelRepository, file_payload
from perfkit.bench.workloads.load import ExperimentError, Work, WrongResult

#: A model below this is broken, not slow.
ACCURACY_MIN = 0.9
#: How far scores may differ between one process's answer and another's, batched otherwise.
SCORE_TOLERANCE = 1e-3
CONFIDENCE = 0.95
#: What magika must call a file of the installed Python, by its suffix.
FILE_LABELS: Mapping[str, frozenset[str]] = {
    ".py": frozenset({"python"}),
    ".pyc": frozenset({"pythonbytecode"}),
    ".so": frozenset({"elf"}),
    ".h": frozenset({"c", "cpp"}),
}
#: Distinct files asked about; more tasks ask about them again.
FILES_MAX = 200
#: Below this a model has little to go by, and neither would a person.
FILE_BYTES_MIN = 256

#: Payloads, and for each the labels that are right.
Inputs = tuple[list[bytes], list[frozenset[str]]]


@lru_cache(maxsize=8)
def model_work(name: str, tasks: int, seed: int) -> Work:
    """`tasks` real inputs for a model, in an order that follows from the seed.

    Its `figures` hold the accuracy with its interval, and over how many inputs; its `facts` the
    execution provider that really ran. Raises ExperimentError for a model without known inputs,
    WrongResult when its accuracy is below ACCURACY_MIN, ModelError when it cannot be loaded.
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
    rounds = -(-tasks // len(payloads))
    return Work(
        name,
        (payloads * rounds)[:tasks],
        (answers * rounds)[:tasks],
        models=(name,),
        same=_same_answer,
        facts=_facts(model, len(payloads)),
        figures={"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high},
    )


def _facts(model: Model, distinct: int) -> dict[str, str | int]:
    info = model.describe()
    return {
        "provider": info.provider,
        "model_sha256": info.file_sha256,
        "distinct_inputs": distinct,
    }


def _digits(tasks: int, rng: random.Random) -> Inputs:
    """Rows that the model was not trained on."""
    from cluster.models.samples import held_out_digits
    from cluster.models.tensor import pack_tensor

    rows, labels = held_out_digits()
    order = rng.sample(range(len(rows)), len(rows))
    truths = [frozenset({str(labels[place])}) for place in order]
    return [pack_tensor(rows[place]) for place in order], truths


def _magika(tasks: int, rng: random.Random) -> Inputs:
    """Files of the installed Python, as many of each suffix as there are tasks for."""
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
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "include")}
    found: dict[str, set[Path]] = {}
    for folder in folders:
        for suffix in FILE_LABELS:
            found.setdefault(suffix, set()).update(folder.rglob(f"*{suffix}"))
    usable = {
        suffix: sorted(path for path in paths if _is_usable(path))
        for suffix, paths in found.items()
    }
    return {suffix: paths for suffix, paths in usable.items() if paths}


def _is_usable(path: Path) -> bool:
    # The tests beside the library hold files that are wrong on purpose.
    apart = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    return apart.isdisjoint(path.parts) and path.stat().st_size >= FILE_BYTES_MIN


INPUTS: Mapping[str, Callable[[int, random.Random], Inputs]] = {
    "digits": _digits,
    "magika": _magika,
}


def _label(answer: bytes) -> str:
    return str(msgspec.msgpack.decode(answer)["label"])


def _same_answer(result: bytes, expected: bytes) -> bool:
    """Whether two answers agree in everything but the last digits of the score."""
    if result == expected:
        return True
    try:
        got, wanted = msgspec.msgpack.decode(result), msgspec.msgpack.decode(expected)
        close = abs(got.pop("score") - wanted.pop("score")) <= SCORE_TOLERANCE
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return False
    return bool(close and got == wanted)


def _proportion_interval(right: int, count: int) -> tuple[float, float]:
    """E. B. Wilson's score interval (JASA 22, 1927), which holds near 1 as well."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # Rounding must not leave the share itself outside at 0 and 1.
    low, high = (middle - half) / scale, (middle + half) / scale
    return max(0.0, min(share, low)), min(1.0, max(share, high))
