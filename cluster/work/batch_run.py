"""One run of a model, for tasks of several leases together.

It never waits: an idle slot runs what is there, and a batch forms of what arrives meanwhile. The
oldest lease decides the bucket; leases of the same kind and bucket join while the batch has room. A
task that can't be done by its deadline is not begun: it fails at once and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from math import inf
from typing import Any, NamedTuple

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.stored_results import FinishedTasks
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure, KindBatches
from cluster.work.batch_curve import BatchCurve, BatchCurves
from cluster.work.batch_sizes import BatchSizes
from cluster.work.handlers import NOT_STARTED, Handlers, Model, call_batch, sort_out

#: the most tasks of a lease in a batch: those without a question take no place in it
TASKS_MAX = 1_024
#: the most items of a kind that a slot wants for a batch, if its model takes as many; it takes a
#: task to have one item until it has run some
IN_HAND_MAX = 64
#: the most payloads that are read ahead of a look at what waits
READ_AHEAD_MAX = 64
#: what a payload is read as that needs no run
OUTCOME = bytes, BaseException


class TimedOut(ClusterError):
    """A task could not be done by its deadline."""


class Share(NamedTuple):
    """The part of a lease in a batch: outcomes from position ``first`` on, a question's index in
    the place of each that the run gives.
    """

    lease: HeldLease
    first: int
    found: list[Any]


class Place(int):
    """A question's index in the run."""


class Unread(NamedTuple):
    """A payload that no model has read yet, and its place in a lease."""

    lease: HeldLease
    position: int
    payload: Any


class BatchRuns:
    """The models among the ``handlers``, and what was learned of their runs."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._curves: dict[str, BatchCurves] = {}
        self._counts = BatchSizes()
        #: the tasks of a kind that were last told to be wanted
        self._told: dict[str, int] = {}
        #: called in a slot's thread when far more or less are
        self.on_news: Callable[[], None] = lambda: None
        #: counts the runs from zero again
        self.clear_counts = self._counts.clear

    def counts(self) -> list[KindBatches]:
        """How the batches of the models formed so far."""
        return self._counts.told(self._handlers.models)

    def sizes(self) -> dict[str, int]:
        """The kinds whose tasks are run together, and how many tasks at most to have for that."""
        sizes = {k: min(m.batch_items_max, IN_HAND_MAX) for k, m in self._handlers.models.items()}
        return {kind: most for kind, most in sizes.items() if most > 1}

    def wants(self) -> dict[str, int]:
        """How many tasks of a kind to have for a batch, of the kinds that have run: enough to learn
        whether larger batches pay, and not more, since another client's task waits behind them.
        """
        sizes, curves = self.sizes(), self._curves.copy()
        self._told = {
            kind: curves[kind].tasks_wanted(IN_HAND_MAX) for kind in sizes if kind in curves
        }
        return self._told

    def _learned(self, kind: str, items: int, tasks: int, busy_s: float) -> None:
        """Take note of a run, after its curve has."""
        self._counts.add(kind, items, busy_s)
        curves = self._curves[kind]
        curves.observe(items, tasks)
        told, wanted = self._told.get(kind, 0), curves.tasks_wanted(IN_HAND_MAX)
        if curves.most > 1 and not told < 2 * wanted <= 4 * told:
            self._told = self._told | {kind: wanted}
            self.on_news()

    def begin(self, kind: str, model: Model, limits: Limits) -> BatchRun:
        """A new batch of this kind, for its model."""
        curves = self._curves.get(kind)
        if curves is None or curves.most != model.batch_items_max:
            curves = self._curves[kind] = BatchCurves(model.batch_items_max)
        count = partial(self._learned, kind)
        return BatchRun(model, curves, self._handlers.converter(kind), limits, count)

    def unread(self, leases: Iterable[HeldLease]) -> list[Unread]:
        """The payloads that `read` would read, of leases that nobody works on."""
        models = self._handlers.models
        found = (
            Unread(lease, position, payload)
            for lease in leases
            if lease.kind in models
            for position, payload in enumerate(islice(lease.pending, READ_AHEAD_MAX), lease.next)
            if position not in lease.prepared
        )
        return list(islice(found, READ_AHEAD_MAX))

    def read(self, unread: Iterable[Unread]) -> None:
        """Have the models read payloads, while other threads work on the leases."""
        for lease, position, payload in unread:
            model = self._handlers.models.get(lease.kind)
            if model is not None and position >= lease.next:
                convert = self._handlers.converter(lease.kind)
                lease.prepared[position] = prepare(model, convert, payload)

    def run_quick(
        self, kind: str, payloads: Sequence[Any], most_s: float, clock: Callable[[], float]
    ) -> Sequence[Any] | None:
        """The outcomes of payloads, read and run in the caller's thread; None if it is not known
        that the runs take at most ``most_s``.
        """
        model, curves = self._handlers.models.get(kind), self._curves.get(kind)
        if model is None or curves is None or (curves.newest.predict_s(1) or inf) > most_s:
            return None
        convert = self._handlers.converter(kind)
        read = [prepare(model, convert, payload) for payload in payloads]
        questions = [one for one in read if not isinstance(one, OUTCOME)]
        buckets = {question.bucket for question in questions}
        if len(buckets) != 1:
            return None
        curve = curves[buckets.pop()]
        sizes = [question.items for question in questions]
        run_s = curve.predict_s(min(curve.items, sum(sizes)))
        if run_s is None or run_s * max(1.0, sum(sizes) / curve.items) > most_s:
            return None
        answers: list[Any] = []
        for start, stop in _runs(sizes, curve.items):
            began_at, items = clock(), sum(sizes[start:stop])
            answers += call_batch(model.run, questions[start:stop])
            took_s = clock() - began_at
            curve.observe(items, took_s)
            self._learned(kind, items, stop - start, took_s)
        found = iter(answers)
        return [one if isinstance(one, OUTCOME) else next(found) for one in read]


class BatchRun:
    """A batch of one kind: `take` tasks of leases, `run` them, `finished` gives what to report.

    ``convert`` makes the payload for the model of a received buffer; ``count`` is told the items
    of a run, its tasks and its seconds.
    """

    def __init__(
        self,
        model: Model,
        curves: BatchCurves,
        convert: Callable[[Any], Any],
        limits: Limits,
        count: Callable[[int, int, float], None],
    ) -> None:
        self._model = model
        self._curves = curves
        self._count = count
        self._convert = convert
        self._most = limits.result_bytes, min(limits.most_inline_bytes, limits.result_bytes)
        self._shares: list[Share] = []
        self._questions: list[Any] = []
        #: of the first question
        self._bucket: Hashable
        self._curve: BatchCurve
        #: how long the run takes if it gets full
        self._longest_s: float
        self._items = 0
        self._outcomes: Sequence[Any] = ()
        self._began_at = self._ended_at = 0.0

    @property
    def leases(self) -> list[HeldLease]:
        """Those with tasks in it."""
        return [share.lease for share in self._shares]

    def take(self, leases: Sequence[HeldLease], now: float) -> list[HeldLease]:
        """Start tasks of these leases, in order; returns those with tasks left that did not fit."""
        left = []
        for lease in leases:
            share = Share(lease, lease.next, [])
            while lease.pending and self._start_next(share, now):
                pass
            if share.found:
                self._shares.append(share)
            if lease.pending:
                left.append(lease)
        return left

    def run(self, clock: Callable[[], float]) -> None:
        """Run the questions, and learn how long that took."""
        self._began_at = clock()
        if self._questions:
            self._outcomes = call_batch(self._model.run, self._questions)
        self._ended_at = clock()
        if self._items:
            took_s = self._ended_at - self._began_at
            self._curve.observe(self._items, took_s)
            self._count(self._items, len(self._questions), took_s)

    def finished(self) -> list[tuple[HeldLease, FinishedTasks]]:
        """The outcomes for each lease. The run's time is divided among the tasks, so that the sum
        of what leases report is the time that the slot worked.
        """
        reports = []
        count = sum(len(share.found) for share in self._shares)
        each_s, at = (self._ended_at - self._began_at) / max(1, count), self._began_at
        for lease, first, found in self._shares:
            outcomes: list[bytes] = []
            failures: list[Failure] = []
            results = [self._outcomes[x] if type(x) is Place else x for x in found]
            sort_out(results, first, outcomes, failures, *self._most, lease.store)
            ended_at = at + each_s * len(found)
            reports.append((lease, FinishedTasks(outcomes, failures, at, ended_at)))
            at = ended_at
        return reports

    def _start_next(self, share: Share, now: float) -> bool:
        """Start the next task of a lease; false if it does not fit."""
        lease = share.lease
        position = lease.next
        read = CancelledError(NOT_STARTED) if position in lease.cancelled else self._read(lease)
        if isinstance(read, OUTCOME):
            if not lease.claim_one():
                return False
            share.found.append(read)
        elif not self._begin(read, share, now):
            return False
        lease.prepared.pop(position, None)
        return len(share.found) < TASKS_MAX

    def _begin(self, question: Any, share: Share, now: float) -> bool:
        """Give a question a place in the run, unless it would be late; false if it does not fit."""
        items, bucket = question.items, question.bucket
        if self._questions and (bucket != self._bucket or self._items + items > self._curve.items):
            return False
        if not share.lease.claim_one():
            return False
        late = self._late(share.lease, bucket, items, now)
        share.found.append(late or self._place(question, bucket, items))
        return True

    def _read(self, lease: HeldLease) -> Any:
        """The next payload of a lease as the model reads it, unless it was read ahead."""
        read = lease.prepared.get(lease.next)
        if read is not None:
            return read
        try:
            return prepare(self._model, self._convert, lease.pending[0])
        except IndexError:  # it was given back
            return CancelledError(NOT_STARTED)

    def _late(self, lease: HeldLease, bucket: Hashable, items: int, now: float) -> TimedOut | None:
        """The failure of a task that would miss its deadline."""
        if lease.due_at is None:
            return None
        left_s = lease.due_at - now
        if self._questions and self._longest_s <= left_s:
            return None
        curve = self._curves[bucket]
        takes_s = curve.predict_s(self._items + items)
        if takes_s is None or takes_s <= left_s or not (left_s <= 0 or curve.refuse(takes_s, now)):
            return None
        return TimedOut(
            f"it had {max(0.0, left_s) * 1e3:.1f} ms left when its turn came, and its batch would "
            f"take about {takes_s * 1e3:.1f} ms; it was not begun"
        )

    def _place(self, question: Any, bucket: Hashable, items: int) -> Place:
        if not self._questions:
            self._bucket, self._curve = bucket, self._curves[bucket]
            self._longest_s = self._curve.predict_s(max(items, self._curve.items)) or 0.0
        self._questions.append(question)
        self._items += items
        return Place(len(self._questions) - 1)


def _runs(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Where runs of at most ``most`` items begin and end; a question with more is alone."""
    start = items = 0
    for at, size in enumerate(sizes):
        if at > start and items + size > most:
            yield start, at
            start, items = at, 0
        items += size
    yield start, len(sizes)


def prepare(model: Model, convert: Callable[[Any], Any], payload: Any) -> Any:
    """A payload as a model reads it: a question, its outcome, or the exception that it raised."""
    try:
        return model.prepare(payload if type(payload) is bytes else convert(payload))
    except BaseException as error:
        return error
