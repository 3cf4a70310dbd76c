"""What each precision of a model is worth on this host: its loss of accuracy, speed and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.models.exam import exam_of, inputs_exam
from cluster.models.inference import ModelRepository
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.candidates import PART_ROWS, Row
from cluster.models.runtime.choice import AUTO, BUDGET_POINTS, Wish, candidates, fastest, try_all
from cluster.models.runtime.golden import read_tensors
from cluster.models.runtime.session import CPU
from cluster.scratch import ScratchFolder

__all__ = ["Measured", "Row", "measure_precisions"]


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

    `cluster.models.exam` has what it is asked, unless the file ``golden`` has inputs. The loss is
    against the model's own file on the CPU: see `cluster.models.runtime.loss`.

    Raises:
        ModelError: there is no such model, or it does not run on the CPU.
    """
    model = repository.load(name, version, threads=threads, preference=(CPU,))
    manifest, info = repository.find(name).manifest, model.describe()
    if golden is None:
        exam = exam_of(manifest, lambda: model.prepare)
    else:
        exam = inputs_exam(manifest, read_tensors(golden), f"the {golden.name} given")
    wish = Wish(precision=AUTO, budget_points=budget_points)
    request, failed = candidates(
        repository.workshop(name, info.version), wish, providers, threads,
        manifest.batch_items_max or PART_ROWS,
    )  # fmt: skip
    with ScratchFolder("precision-") as folder:
        try:
            rows = (*try_all(request, exam, Path(folder)), *failed)
        except ModelError as error:
            raise ModelError(f"model {info.name!r}: it can't be tried: {error}") from error
    at = fastest(wish, rows)
    return Measured(rows, None if at is None else rows[at], exam.said)
