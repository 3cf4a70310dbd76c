"""What a model is asked when its precisions are tried, and how its answers are judged.

Inputs are real, since a quantised network's error depends on the numbers that flow through it: the
held-out rows of ``digits``, graded texts for sentence encoders, small files of many types. A model
of another kind is asked its golden inputs. Without any, inputs are made up, and a few made-up rows
prove nothing, so an automatic precision stays with the file as it is.

The answers of a kind that is known are judged as they would be sent: labels after their thresholds,
and the vectors of whole texts, not those of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cluster.models.frames.tensor import pack_tensor, unpack_tensor
from cluster.models.kinds.adapter import Question
from cluster.models.repository.manifest import Manifest, PayloadError
from cluster.models.runtime.golden import Tensors
from cluster.models.runtime.loss import Exam, Loss, of_grades, of_labels, worst_of
from cluster.models.samples import graded_texts, held_out_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The sources of sample files, each in every type: half a point is told even if two labels change.
SOURCES_MAX = 50
#: The pairs of a family of texts with their grades: the places of two texts in their families, and
#: how many families the second is further on. The grades are those of the STS tasks, coarser: like
#: meaning, same subject, another subject.
PAIRS = ((0, 1, 0, 2), (0, 2, 0, 1), (1, 2, 0, 1), (0, 0, 1, 0), (1, 2, 2, 0))
#: What the numbers of a kind's outputs mean.
MEANINGS: Mapping[str, str] = {
    "file-type": "labels",
    "rows": "labels",
    "text-embedding": "vectors",
}


class _Kind(NamedTuple):
    """Payloads, how their results are judged, and what they are."""

    payloads: Sequence[bytes]
    judge: Callable[[Sequence[bytes], Sequence[bytes]], Loss]
    said: str


class _Place(NamedTuple):
    """Where the answer to a question is: the rows ``start`` to ``end`` of a group."""

    question: Question
    group: int
    start: int
    end: int


def exam_of(
    manifest: Manifest,
    reader: Callable[[], Callable[[bytes], object]],
    golden: Tensors | None = None,
) -> Exam:
    """The exam for a model, whose inputs ``golden`` are. For a kind that is known ``reader`` makes
    what reads a payload into a question.
    """
    known = _known(manifest)
    if known is not None and (places := _places(map(reader(), known.payloads))) is not None:
        return Exam(_grouped(places), partial(_judged, places, known.judge), known.said)
    return inputs_exam(manifest, golden, "its golden inputs")


def first_look(golden: Tensors | None) -> Exam:
    """A short exam, to see whether a model's precision as it is wished for runs on a device."""
    return Exam((golden,) if golden else (), None, "its golden inputs" if golden else "made up")


def inputs_exam(manifest: Manifest, inputs: Tensors | None, said: str) -> Exam:
    """The exam by a graph's ``inputs``, made up if there are none."""
    if inputs:
        return Exam((inputs,), partial(worst_of, what=MEANINGS.get(manifest.kind, "")), said)
    return Exam((), None, "made-up numbers, which prove nothing; golden inputs would")


def _known(manifest: Manifest) -> _Kind | None:
    """What a model of this name and kind can be asked."""
    if manifest.kind == "rows" and manifest.name == "digits":
        rows = held_out_digits()[0]
        return _Kind([pack_tensor(rows)], _labels_judged, f"{len(rows)} held-out rows")
    if manifest.kind == "text-embedding":
        texts = [text.encode() for family in graded_texts() for text in family]
        pairs = len(PAIRS) * len(graded_texts())
        return _Kind(texts, _grades_judged, f"{pairs} graded pairs of {len(texts)} texts")
    if manifest.kind == "file-type":
        from cluster.models.kinds.filetypes import file_block
        from cluster.models.sample_files import MAKERS, sample_files

        files = [file_block(content) for _, content in sample_files(SOURCES_MAX)]
        return _Kind(files, _labels_judged, f"{len(files)} files of {len(MAKERS)} types")
    return None


def _places(read: Iterable[object]) -> list[_Place] | None:
    """Where each question's answer will be: the fullest group comes first, as it is timed, and a
    question that can't share a run is a group of its own. None if a payload is refused. A payload
    that is answered at once takes no part.
    """
    questions: list[tuple[Any, Question]] = []
    try:
        for at, it in enumerate(read):
            if isinstance(it, Exception):
                return None
            if isinstance(it, Question):
                questions.append((it.bucket if it.network.batches else at, it))
    except PayloadError:
        return None
    sizes: dict[Any, int] = {}
    for group, it in questions:
        sizes[group] = sizes.get(group, 0) + it.items
    fullest = sorted(sizes, key=sizes.__getitem__, reverse=True)
    numbers = {group: number for number, group in enumerate(fullest)}
    ends, places = dict.fromkeys(sizes, 0), []
    for group, it in questions:
        start, ends[group] = ends[group], ends[group] + it.items
        places.append(_Place(it, numbers[group], start, ends[group]))
    return places


def _grouped(places: Sequence[_Place]) -> tuple[Tensors, ...]:
    import numpy as np

    groups: dict[int, list[Tensors]] = {}
    for it in places:
        groups.setdefault(it.group, []).append(it.question.inputs)
    return tuple(
        {name: np.concatenate([one[name] for one in some]) for name in some[0]}
        for _, some in sorted(groups.items())
    )


def _judged(
    places: Sequence[_Place],
    judge: Callable[[Sequence[bytes], Sequence[bytes]], Loss],
    own: Sequence[Tensors],
    other: Sequence[Tensors],
) -> Loss:
    def results(answers: Sequence[Tensors]) -> list[bytes]:
        return [
            it.question.write(
                {name: answers[it.group][name][it.start : it.end] for name in it.question.outputs}
            )
            for it in places
        ]

    return judge(results(own), results(other))


def _labels_judged(own: Sequence[bytes], other: Sequence[bytes]) -> Loss:
    def labels(results: Sequence[bytes]) -> list[Any]:
        found = [msgspec.msgpack.decode(it) for it in results]
        rows = [row for it in found for row in (it if isinstance(it, list) else [it])]
        return [row["label"] for row in rows]

    return of_labels(labels(own), labels(other))


def _grades_judged(own: Sequence[bytes], other: Sequence[bytes]) -> Loss:
    import numpy as np

    def cosines(results: Sequence[bytes]) -> NDArray[Any]:
        vectors = np.stack([unpack_tensor(it) for it in results])
        families = vectors.reshape(len(graded_texts()), -1, vectors.shape[-1])
        return np.stack(
            [
                (families[:, first] * np.roll(families[:, second], -further, 0)).sum(1)
                for first, second, further, _ in PAIRS
            ],
            axis=1,
        )

    grades = np.tile([grade for *_, grade in PAIRS], (len(graded_texts()), 1))
    return of_grades(cosines(own), cosines(other), grades)
