"""What another precision costs: a loss of accuracy in points, with an interval.

A point is one per cent. A loss is against the model's own file on the CPU, and its interval has
95 % confidence. An automatic precision has to lose less than its budget by the *upper* end of it;
an interval that holds the budget is inconclusive, and such a precision is not taken.

**Labels**: the share of answers with another label. Accuracy can't fall by more, whatever the right
labels are. The interval is Wilson's
(https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval), so half a point can be told
from 765 answers on, if none of them changes.

**Texts with grades**: the accuracy of a sentence encoder is Spearman's rank correlation between the
cosines of pairs of texts and the grades that people gave these pairs, times 100: the main score of
the STS tasks in MTEB (Muennighoff et al., 2022, https://arxiv.org/abs/2210.07316). The loss is that
of the model minus that of the candidate. The bootstrap draws whole families of texts, and the same
ones for both, since the pairs of a family share texts.

**Vectors without grades**: 100 × (1 − Spearman's correlation of the cosines of all pairs, between
the model and the candidate). This is stricter: it counts a changed order of pairs that have nothing
to do with each other too. The bootstrap draws vectors.

**Numbers**: the mean difference relative to the mean size. The bootstrap draws rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from cluster.models.runtime.golden import Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
#: The normal deviate for it.
_Z = 1.959963984540054
RESAMPLES = 1000
#: A bootstrap of fewer says nothing.
COUNT_MIN = 20
#: The vectors whose pairs are compared, at most.
VECTORS_MAX = 100

#: The losses within a trial: the model's own answers, and a candidate's, to each group of inputs.
Judge: TypeAlias = "Callable[[Sequence[Tensors], Sequence[Tensors]], Loss]"


class Loss(msgspec.Struct, frozen=True):
    """A loss in points and its interval, from ``count`` answers or pairs of them. With grades
    ``accuracy_points`` is the candidate's accuracy.
    """

    points: float
    low: float
    high: float
    count: int
    accuracy_points: float | None = None

    def verdict(self, budget_points: float) -> Literal["within", "beyond", "inconclusive"]:
        """Whether it is within a budget."""
        if self.high <= budget_points:
            return "within"
        return "beyond" if self.low > budget_points else "inconclusive"

    def __str__(self) -> str:
        """As ``0.08 (-0.16 to 0.33) points``."""
        return f"{self.points:.2f} ({self.low:.2f} to {self.high:.2f}) points"


class Exam(NamedTuple):
    """What a trial asks, and how it is judged. The arrays of a group have the same rows; without
    groups a trial makes its inputs up. Without a ``judge`` no loss is told. ``said`` names the
    inputs in words.
    """

    groups: tuple[Tensors, ...]
    judge: Judge | None
    said: str


def of_labels(own: Sequence[Any], other: Sequence[Any]) -> Loss:
    """The loss of answers that are labels."""
    count = len(own)
    if not count:
        return Loss(0.0, 0.0, 100.0, 0)
    share = sum(a != b for a, b in zip(own, other, strict=True)) / count
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = _Z / (1 + _Z**2 / count) * (share * (1 - share) / count + (_Z / count / 2) ** 2) ** 0.5
    low, high = max(0.0, middle - spread), min(1.0, middle + spread)
    return Loss(100 * share, 100 * low if share else 0.0, 100 * high, count)


def of_grades(own: NDArray[Any], other: NDArray[Any], grades: NDArray[Any]) -> Loss:
    """The loss of cosines [families, pairs] of texts that have such ``grades``."""

    answers, candidates, wanted = (_places(it) for it in (own, other, grades))

    def lost(rows: NDArray[Any]) -> float:
        want = _ranks(wanted[rows].ravel())
        own_ranks, other_ranks = (_ranks(it[rows].ravel()) for it in (answers, candidates))
        return _correlation(own_ranks, want) - _correlation(other_ranks, want)

    loss = _bootstrapped(lost, len(own), grades.size)
    return msgspec.structs.replace(
        loss, accuracy_points=100 * spearman(other.ravel(), grades.ravel())
    )


def of_vectors(own: NDArray[Any], other: NDArray[Any]) -> Loss:
    """The loss of vectors [rows, width] without grades."""
    import numpy as np

    cosines = [_places(_cosines(it[:VECTORS_MAX])) for it in (own, other)]

    def lost(rows: NDArray[Any]) -> float:
        first, second = np.triu_indices(len(rows), 1)
        first, second = rows[first], rows[second]
        apart = first != second
        a, b = (_ranks(it[first[apart], second[apart]]) for it in cosines)
        return 1 - _correlation(a, b)

    count = len(cosines[0])
    return _bootstrapped(lost, count, count * (count - 1) // 2)


def of_numbers(own: NDArray[Any], other: NDArray[Any]) -> Loss:
    """The loss of numbers [rows]."""
    import numpy as np

    own, other = own.astype(np.float64), other.astype(np.float64)

    def lost(rows: NDArray[Any]) -> float:
        return float(np.abs(own - other)[rows].mean() / max(np.abs(own[rows]).mean(), 1e-6))

    return _bootstrapped(lost, len(own), len(own))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation; equal numbers share the mean of their ranks."""
    return _correlation(_ranks(_places(a)), _ranks(_places(b)))


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    import numpy as np

    first, second = a - a.mean(), b - b.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    if not size:
        return float(np.array_equal(first, second))
    return float(first @ second) / size


def worst_of(own: Sequence[Tensors], other: Sequence[Tensors], what: str = "") -> Loss:
    """The largest loss of any output, where nothing but the graph is known.

    ``what`` is "labels" or "vectors" for the meaning of rows of numbers; without it the worse of
    both counts.
    """
    found = []
    for own_part, other_part in zip(own, other, strict=True):
        for name, want in own_part.items():
            found += _losses(want, other_part[name], what)
    if not found:
        return Loss(0.0, 0.0, 100.0, 0)
    return Loss(
        max(it.points for it in found),
        max(it.low for it in found),
        max(it.high for it in found),
        min(it.count for it in found),
    )


def _losses(want: NDArray[Any], other: NDArray[Any], what: str) -> list[Loss]:
    import numpy as np

    if not want.size:
        return []
    if not np.issubdtype(want.dtype, np.floating):
        return [of_labels(want.ravel().tolist(), other.ravel().tolist())]
    if want.ndim < 2 or want.shape[-1] < 2:
        return [of_numbers(want.ravel(), other.ravel())]
    found = []
    if what != "vectors":
        best = (it.reshape(-1, it.shape[-1]).argmax(1).tolist() for it in (want, other))
        found.append(of_labels(*best))
    if what != "labels":
        middle = tuple(range(1, want.ndim - 1))  # a text's vector is the mean of its tokens'
        found.append(of_vectors(*(it.astype(np.float64).mean(middle) for it in (want, other))))
    return found


def _bootstrapped(lost: Callable[[NDArray[Any]], float], rows: int, count: int) -> Loss:
    """A loss by all ``rows``, and its interval by the percentiles of resamples of them."""
    import numpy as np

    points = 100 * lost(np.arange(rows))
    if rows < COUNT_MIN:
        return Loss(points, min(0.0, points), 100.0, count)
    chance = np.random.default_rng(0)
    found = [100 * lost(chance.integers(0, rows, rows)) for _ in range(RESAMPLES)]
    rest = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(found, [rest, 100 - rest]).tolist()
    return Loss(points, low, high, count)


def _places(values: NDArray[Any]) -> NDArray[Any]:
    """The place of each number among the distinct ones. A resample's numbers are in the same order,
    so they are sorted once for all resamples.
    """
    import numpy as np

    places: NDArray[Any] = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    return places


def _ranks(places: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    counts = np.bincount(places)
    ranks: NDArray[Any] = (counts.cumsum() - (counts - 1) / 2)[places]
    return ranks


def _cosines(vectors: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    cosines: NDArray[Any] = units @ units.T
    return cosines
