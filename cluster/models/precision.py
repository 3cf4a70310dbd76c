"""What each precision of a model is worth on this host: its loss of accuracy, speed and size."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.inference import MEANINGS, Model, ModelRepository
from cluster.models.kinds.adapter import Question
from cluster.models.kinds.filetypes import file_payload
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.candidates import Row
from cluster.models.runtime.choice import AUTO, BUDGET_POINTS, Wish, candidates, fastest, try_all
from cluster.models.runtime.golden import read_tensors
from cluster.models.runtime.session import CPU
from cluster.models.samples import LIKE_AND_UNLIKE, held_out_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Measured", "Row", "measure_precisions", "sample_payloads"]

#: The questions of a trial.
FILES_MAX = 32


class Measured(NamedTuple):
    """The rows of a model's precisions on each provider, and which of them `AUTO` would take, None
    without one that is fit; ``inputs`` says what they answered.
    """

    rows: tuple[Row, ...]
    best: Row | None
    inputs: str


def measure_precisions(
    repository: ModelRepository,
    name: str,
    version: str | None = None,
    *,
    providers: Sequence[str] = ("cpu",),
    budget_points: float = BUDGET_POINTS,
    golden: Path | None = None,
    threads: int = 1,
) -> Measured:
    """Try a model in each precision on each of ``providers``, "cpu" and "webgpu"; an automatic one
    may lose ``budget_points``.

    It answers the inputs in the file ``golden``, or questions of its kind where there are some, or
    else made-up numbers. `cluster.models.runtime.golden` explains the loss, which is against the
    model's own file on the CPU.

    Raises:
        ModelError: there is no such model, or it does not run on the CPU.
    """
    model = repository.load(name, version, threads=threads, preference=(CPU,))
    info = model.describe()
    inputs: Mapping[str, NDArray[Any]] | None = None
    if golden is not None:
        inputs, said = read_tensors(golden), f"the {golden.name} given"
    elif payloads := sample_payloads(info.name, info.kind):
        inputs, said = _joined(model, payloads)
    else:
        said = "made-up numbers, so the loss tells little; --golden names better ones"
    wish = Wish(precision=AUTO, budget_points=budget_points)
    request, failed = candidates(
        repository.workshop(name, info.version), wish, providers, threads,
        MEANINGS.get(info.kind, ""),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="precision-") as folder:
        try:
            rows = (*try_all(request, inputs, Path(folder)), *failed)
        except ModelError as error:
            raise ModelError(f"model {info.name!r}: it can't be tried: {error}") from error
    at = fastest(wish, rows)
    return Measured(rows, None if at is None else rows[at], said)


def sample_payloads(name: str, kind: str) -> list[bytes]:
    """Payloads that a model of this name and kind answers; none where they can't be guessed."""
    if name == "digits":
        from cluster.models.frames.tensor import pack_tensor

        return [pack_tensor(held_out_digits()[0])]
    if kind == "text-embedding":
        return [text.encode() for some in LIKE_AND_UNLIKE for text in some]
    if kind == "file-type":
        return [file_payload(path) for path in sorted(Path(os.__file__).parent.glob("*.py"))][
            :FILES_MAX
        ]
    return []


def _joined(model: Model, payloads: Sequence[bytes]) -> tuple[dict[str, NDArray[Any]], str]:
    """The inputs of the questions of one bucket, the fullest, and what they are in words."""
    import numpy as np

    buckets: dict[Any, list[Question]] = {}
    for payload in payloads:
        question = model.prepare(payload)
        if isinstance(question, Question):
            buckets.setdefault(question.bucket, []).append(question)
    fullest = max(buckets.values(), key=lambda it: sum(one.items for one in it))
    names = fullest[0].inputs
    inputs = {name: np.concatenate([it.inputs[name] for it in fullest]) for name in names}
    return inputs, f"{sum(it.items for it in fullest)} questions of its kind"
