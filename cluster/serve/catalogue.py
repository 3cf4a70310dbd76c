"""What the models of the backend are: their inputs, outputs and versions, as they tell themselves.

A model answers the payload ``DESCRIBE`` with its description as JSON, so the API process needs
neither the repository nor a runtime. Answers are kept until a worker comes, goes, or offers
something else.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec

from cluster.models.frames.metadata import TensorMetadata
from cluster.models.frames.tensors import DESCRIBE
from cluster.serve.backends.protocol import Backend
from cluster.serve.dispatch import Dispatcher
from cluster.serve.http.problems import Problem
from cluster.vocabulary.errors import did_you_mean
from cluster.vocabulary.task import Priority

DESCRIBE_TIMEOUT_S = 10.0
#: when to ask again for a model that its workers can't load
LOADED_AGAIN_S = 5.0
#: of a name that is not served, in an error
NAME_SHOWN = 128
#: who asks, in the queue's eyes
OWN_CLIENT = "description"


class Description(msgspec.Struct, frozen=True, eq=False):
    """The parts of a model's `cluster.models.inference.ModelInfo` that the API needs. Two are equal
    only if they are the same, so that what follows from one can be remembered.
    """

    name: str
    version: str = "1"
    versions: list[str] = []
    kind: str = ""
    description: str = ""
    platform: str = "onnxruntime_onnx"
    inputs: list[TensorMetadata] = []
    outputs: list[TensorMetadata] = []
    batches: bool = False
    batch_items_max: int = 0
    labels: int | list[Any] = 0

    def label(self, number: int) -> str | None:
        """The name of a class; None if it has none."""
        if isinstance(self.labels, list) and number < len(self.labels):
            return str(self.labels[number])
        return None


_DECODER = msgspec.json.Decoder(Description)


class Catalogue:
    """The descriptions of a backend's models."""

    def __init__(self, backend: Backend, dispatcher: Dispatcher) -> None:
        self._backend = backend
        self._dispatcher = dispatcher
        self._known: dict[str, Description] = {}
        self._kinds: dict[tuple[str, str | None], str] = {}
        self._asked: dict[str, asyncio.Task[Description]] = {}
        self._generation = -1

    def names(self) -> list[str]:
        """The models that are served now."""
        return sorted(self._backend.models())

    def known(self, kind: str) -> Description | None:
        """The description of a kind, ``name`` or ``name/version``, if it is at hand."""
        self._forget_old()
        return self._known.get(kind)

    def _forget_old(self) -> None:
        """Forget all once the workers are others, or offer something else."""
        generation = self._backend.generation()
        if generation != self._generation:
            self._generation = generation
            self._known.clear()
            self._kinds.clear()
            self._asked.clear()

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, the oldest first."""
        prefix = f"{name}/"
        found = [k.removeprefix(prefix) for k in self._backend.kinds() if k.startswith(prefix)]
        return sorted(found, key=lambda version: (len(version), version))

    async def describe(
        self, name: str, version: str | None = None, timeout_s: float = DESCRIBE_TIMEOUT_S
    ) -> Description:
        """A model's description; by default of the version that the workers serve by default.

        Raises:
            Problem: 404 for a model or version that is not served, 503 or 504 if no worker
                answers in time.
        """
        kind = self.kind(name, version)
        if (found := self.known(kind)) is not None:
            return found
        task = self._asked.get(kind)
        if task is None:
            task = self._asked[kind] = asyncio.create_task(self._ask(kind))
            task.add_done_callback(partial(self._answered, kind))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(task)
        except TimeoutError:
            text = f"model {kind!r} did not describe itself within {timeout_s:g} s"
            raise Problem(504, f"{text}: its workers are busy, or gone") from None

    def kind(self, name: str, version: str | None = None) -> str:
        """The kind of task for a model; Problem 404 unless a worker serves it, 503 if one should
        but can't.
        """
        self._forget_old()
        found = self._kinds.get((name, version))
        if found is None:
            found = self._kinds[name, version] = self._find_kind(name, version)
        return found

    def _find_kind(self, name: str, version: str | None) -> str:
        models, kinds = self._backend.models(), self._backend.kinds()
        if name not in models:
            shown = name[:NAME_SHOWN]
            there = ", ".join(sorted(models)) or "none"
            if self._backend.lacks(name):
                raise Problem(
                    503,
                    f"model {shown!r} can't be loaded at present; GET /cluster/workers says why",
                    retry_after_s=LOADED_AGAIN_S,
                )
            hint = did_you_mean(shown, models) or f"; there are {there}"
            raise Problem(404, f"there is no model {shown!r}{hint}", code="model_not_found")
        kind = name if version is None else f"{name}/{version}"
        if kind in kinds:
            return kind
        if version == "1" and not self.versions(name):
            return name  # served by an engine that knows no versions
        there = ", ".join(self.versions(name)) or "1"
        raise Problem(404, f"model {name!r} has no version {version!r:.64}; there are {there}")

    def _answered(self, kind: str, task: asyncio.Task[Description]) -> None:
        if self._asked.get(kind) is task:
            del self._asked[kind]
        if not task.cancelled():
            task.exception()  # those who waited may be gone, and asyncio would complain

    async def _ask(self, kind: str) -> Description:
        generation = self._generation
        ticket = self._dispatcher.submit(
            kind,
            DESCRIBE,
            client=OWN_CLIENT,
            priority=Priority.URGENT,
            timeout_s=DESCRIBE_TIMEOUT_S,
        )
        try:
            found = _DECODER.decode(await ticket.waiter)
        except msgspec.DecodeError as error:
            raise Problem(500, f"model {kind!r} does not describe itself: {error}") from None
        if generation == self._generation:
            self._known[kind] = found
        return found
