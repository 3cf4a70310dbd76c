"""A loaded model: payloads in, results out.

Reading a payload and running the network are apart, so that a worker reads the next questions while
the network computes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import msgspec

from cluster.models.frames.metadata import TensorMetadata
from cluster.models.frames.tensors import DESCRIBE, MAGIC
from cluster.models.kinds.adapter import Adapter, Alike, Question
from cluster.models.kinds.named_tensors import NamedTensors, NoFrame
from cluster.models.repository.manifest import Label, ModelError, PayloadError
from cluster.models.runtime.loss import Loss
from cluster.models.runtime.network import Network, Outputs


class ModelInfo(msgspec.Struct, frozen=True):
    """A loaded model: what `DESCRIBE` is answered with, as JSON.

    ``versions`` are those served here. ``inputs`` and ``outputs`` are the graph's own, -1 for an
    open axis; with ``batches`` the first axis of each is that of a batch, of at most
    ``batch_items_max`` rows in one run of the session. ``load_ms`` is how long this load took,
    ``network_ms`` of it for the network; the first load of a process includes the import of the
    runtime. `cluster.models.runtime.session` explains ``provider`` and ``nodes_by_provider``.
    ``golden`` says that it gave its golden outputs, ``shared`` that its weights are mapped, once
    for all workers of the host. ``loss`` is that of an automatic precision, None for the file as it
    is; ``notes`` tell what this load had to make, and why: see
    `cluster.models.runtime.sharing`.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    kind: str
    description: str
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    batches: bool
    batch_items_max: int
    labels: tuple[Label, ...]
    provider: str
    device: str | None
    nodes_by_provider: dict[str, int] | None
    precision: str
    threads: int
    sessions: int
    golden: bool
    load_ms: float
    network_ms: float
    file_size_bytes: int
    file_sha256: str
    shared: bool
    notes: tuple[str, ...]
    loss: Loss | None = None


class Model:
    """A loaded model, made by `ModelRepository.load`.

    ``prepare`` needs no network, so a thread of its own may call it while ``run`` computes. All
    methods may be called from any thread. ``refusal`` says why it took no made-up input when it was
    loaded; None if it ran.
    """

    def __init__(
        self,
        network: Network,
        adapter: Adapter,
        frames: NamedTensors,
        info: ModelInfo,
        *,
        refusal: str | None = None,
    ) -> None:
        self.name = info.name
        self.version = info.version
        self.provider = network.provider
        self.threads = network.threads
        self.labels = info.labels
        self.refusal = refusal
        self._adapter = adapter
        self._frames = frames
        self._info = info

    def describe(self) -> ModelInfo:
        """The model's description as plain data."""
        return self._info

    def prepare(self, payload: bytes | memoryview) -> Question | bytes | Exception:
        """The question in a payload, its result if that needs no run, or why it is refused."""
        if payload == DESCRIBE:
            return msgspec.json.encode(self._info)
        try:
            if bytes(payload[: len(MAGIC)]) == MAGIC:
                try:
                    return self._frames.read(payload)
                except NoFrame:
                    if not self._adapter.takes_any_bytes:
                        raise
            return self._adapter.read(payload)
        except PayloadError as error:
            return PayloadError(f"model {self.name!r}: {error}")

    def run(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """The result of each question of one bucket, or the exception in its place.

        They run together. One that fails inside the runtime does not fail the others: the runtime
        does not say which one it was, so each is run again alone. Rows over ``batch_items_max``
        take a run of their own.
        """
        if not questions:
            return []
        network = questions[0].network
        together = questions[0].by_rows and all(it.network is network for it in questions)
        if len(questions) > 1 and not together:
            return [answer for question in questions for answer in self.run([question])]
        try:
            outputs = self._run(questions)
        except ModelError as error:
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self.run([question])]
        if not questions[0].by_rows:
            return [self._written(questions[0], outputs)]
        found = self._written_alike(questions, outputs)
        if found is not None:
            return found
        results: list[bytes | Exception] = []
        start = 0
        for question in questions:
            end = start + question.items
            rows = {name: outputs[name][start:end] for name in question.outputs}
            results.append(self._written(question, rows))
            start = end
        return results

    def handle_batch(self, payloads: Sequence[bytes]) -> list[bytes | Exception]:
        """The result of each payload, or the exception in its place: `prepare`, then `run` for
        those of each bucket, as many at once as ``batch_items_max`` allows.
        """
        answers = [self.prepare(payload) for payload in payloads]
        buckets: dict[Hashable, list[int]] = {}
        for at, answer in enumerate(answers):
            if isinstance(answer, Question):
                buckets.setdefault(answer.bucket, []).append(at)
        for places in buckets.values():
            for some in _runs(answers, places, self._info.batch_items_max):
                questions = [it for at in some if isinstance(it := answers[at], Question)]
                for at, result in zip(some, self.run(questions), strict=True):
                    answers[at] = result
        return [it for it in answers if not isinstance(it, Question)]

    def infer_batch(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The result of each payload.

        Raises:
            ModelError: the first exception among the results of `handle_batch`.
        """
        results = []
        for result in self.handle_batch(payloads):
            if isinstance(result, Exception):
                raise result
            results.append(result)
        return results

    def _written_alike(
        self, questions: Sequence[Question], outputs: Outputs
    ) -> list[bytes | Exception] | None:
        """The results of questions that are alike, made together; None if they are not."""
        alike = _all_alike(questions)
        found = None if alike is None else alike.write(outputs, len(questions))
        return None if found is None else [*found]

    def _written(self, question: Question, outputs: Outputs) -> bytes | Exception:
        try:
            return question.write(outputs)
        except ModelError as error:
            return ModelError(f"model {self.name!r} {error}")

    def _run(self, questions: Sequence[Question]) -> Outputs:
        """The outputs that the questions need, of all their rows in order."""
        import numpy as np

        first, *others = questions
        network = first.network
        names = dict.fromkeys(name for question in questions for name in question.outputs)
        if not first.by_rows:
            return network.run(first.inputs, names)
        if alike := _all_alike(questions):
            feed = alike.join([it.payload for it in questions])
        elif others:  # the usual case needs no copy
            feeds = [it.alike.join([it.payload]) if it.alike else it.inputs for it in questions]
            feed = {n: np.concatenate([it[n] for it in feeds]) for n in feeds[0]}
        else:
            feed = first.inputs
        return network.run_rows(feed, names)


def _all_alike(questions: Sequence[Question]) -> Alike | None:
    """What is done for all these questions at once; None if they are not alike."""
    alike = questions[0].alike
    return alike if all(it.alike is alike for it in questions) else None


def _runs(answers: Sequence[object], places: Sequence[int], items_max: int) -> Iterator[list[int]]:
    """The places of questions in groups of at most ``items_max`` items; a larger one is alone."""
    some: list[int] = []
    items = 0
    for at in places:
        question = answers[at]
        assert isinstance(question, Question)
        if some and items + question.items > items_max:
            yield some
            some, items = [], 0
        some.append(at)
        items += question.items
    if some:
        yield some
