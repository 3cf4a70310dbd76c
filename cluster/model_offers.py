"""The models of a worker as its handlers, changed while it works as operators want.

Each kind of a model manager is a `cluster.work.handlers.Model` that loads its model when it is
asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

import msgspec

from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.task import Load
from cluster.work.handlers import Handlers

if TYPE_CHECKING:
    from cluster.models.kinds.adapter import Question
    from cluster.models.manager import ModelManager

TROUBLE_LENGTH_MAX = 1_000
PLACES_MAX = 16

#: told of the kinds and the models that are served from now on, and of trouble
Offer: TypeAlias = Callable[[list[str], list[str], str], None]


def short_place(provider: str, device: str | None) -> str:
    """A provider and its card in short: of ``AMD Radeon RX 580 (discrete GPU) at …`` the name."""
    short = provider.removesuffix("ExecutionProvider").replace("WebGpu", "WebGPU")
    card = "" if short == "CPU" else (device or "").partition(" (")[0]
    return f"{short} · {card}"[:100] if card else short


class ServedModel:
    """A kind of a manager's."""

    def __init__(self, manager: ModelManager, kind: str) -> None:
        self._manager = manager
        self._kind = kind
        with manager.using(kind) as model:
            self.batch_items_max = model.describe().batch_items_max
            #: reading a payload takes no session, so it is no use that the manager must know of
            self._reader = ref(model)

    def prepare(self, payload: Any) -> Question | bytes | Exception:
        """`Model.prepare`; raises ModelError if the model can't be loaded again."""
        reader = self._reader()
        if reader is not None:
            return reader.prepare(payload)
        with self._manager.using(self._kind) as model:
            self._reader = ref(model)
            return model.prepare(payload)

    def run(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """`Model.run`; raises ModelError as `prepare` does."""
        with self._manager.using(self._kind) as model:
            return model.run(questions)

    def handle_batch(self, payloads: Sequence[Any]) -> list[bytes | Exception]:
        """`Model.handle_batch`; raises ModelError as `prepare` does."""
        with self._manager.using(self._kind) as model:
            return model.handle_batch(payloads)


class ModelOffers:
    """Keeps the models among ``handlers``; ``names`` are loaded at once. A worker without models
    does not even load the modules that would serve them. ``options`` are those of
    `cluster.models.inference.ModelRepository`.

    Raises:
        ModelError: from the first of ``names`` that can't be loaded.
    """

    def __init__(self, handlers: Handlers, names: Sequence[str], **options: Any) -> None:
        self._handlers = handlers
        self._options = options
        self._loaded: ModelManager | None = None
        #: one change at a time, and only the newest order counts
        self._changing = threading.Lock()
        self._wanted: Sequence[str] = ()
        if names:
            for name in names:
                self._manager.load(name)
            self._register()

    @property
    def names(self) -> list[str]:
        """The models served."""
        return self._loaded.names() if self._loaded else []

    def beside(self, probe: Callable[[], Load]) -> Callable[[], Load]:
        """A probe that tells what the models compute on, too."""
        return lambda: msgspec.structs.replace(probe(), runs_on=self._runs_on())

    def _runs_on(self) -> tuple[str, ...]:
        infos = self._loaded.infos() if self._loaded else ()
        places = {short_place(info.provider, info.device) for info in infos}
        return tuple(sorted(places)[:PLACES_MAX])

    @property
    def _manager(self) -> ModelManager:
        if self._loaded is None:
            from cluster.models.inference import ModelRepository
            from cluster.models.manager import ModelManager

            self._loaded = ModelManager((), ModelRepository(**self._options))
        return self._loaded

    def change(self, wanted: Sequence[str], offer: Offer) -> None:
        """Serve these models instead, in a thread of its own. ``offer`` is called before a model
        goes and after one has come.
        """
        self._wanted = wanted
        threading.Thread(target=self._change, args=(offer,), name="models", daemon=True).start()

    def _change(self, offer: Offer) -> None:
        with self._changing:
            wanted, trouble = self._wanted, []
            gone = [name for name in self.names if name not in wanted]
            if gone:
                left = [
                    kind for kind in self._handlers.kinds() if kind.partition("/")[0] not in gone
                ]
                offer(left, [name for name in self.names if name in wanted], "")
                for name in gone:
                    self._manager.unload(name)
            for name in wanted:
                try:
                    self._manager.load(name)
                except ClusterError as error:
                    named = f"model {name!r}"  # what an operator's order is told apart by
                    trouble.append(f"{named}: {error}" if named not in str(error) else str(error))
            self._register()
            offer(self._handlers.kinds(), self.names, "; ".join(trouble)[:TROUBLE_LENGTH_MAX])

    def _register(self) -> None:
        """Make the handlers those of the manager's kinds."""
        kinds = self._manager.kinds()
        for kind in set(self._handlers.models).difference(kinds):
            self._handlers.withdraw(kind)
        for kind in kinds:
            self._handlers.register_model(kind, ServedModel(self._manager, kind))
