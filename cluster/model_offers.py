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
from cluster.vocabulary.status import names_model
from cluster.vocabulary.task import Load
from cluster.work.handlers import Handlers

if TYPE_CHECKING:
    from cluster.models.kinds.adapter import Question
    from cluster.models.manager import ModelManager

TROUBLE_LENGTH_MAX = 1_000
PLACES_MAX = 16

#: What can't be loaded may wait for memory, or for a card that starts anew.
RETRY_S, RETRY_MAX_S = 1.0, 60.0

#: called when other kinds or models are served from now on, or there is other trouble
Offer: TypeAlias = Callable[[], None]


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
    does not even load the modules that would serve them. With ``again`` a model that can't be
    loaded is ``trouble``, and the others are served. ``options`` are those of
    `cluster.models.inference.ModelRepository`.

    Raises:
        ModelError: from the first of ``names`` that can't be loaded, unless ``again``.
    """

    def __init__(
        self, handlers: Handlers, names: Sequence[str], *, again: bool = False, **options: Any
    ) -> None:
        self._handlers = handlers
        self._options = options
        self._loaded: ModelManager | None = None
        #: one change at a time, and only the newest order counts
        self._changing = threading.Lock()
        self._newer = threading.Event()
        #: what is to be served, from where if not by name, and why it is not
        self.wanted: Sequence[str] = []
        self._references: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        if names:
            self._references = {self._name(reference): reference for reference in names}
            self.wanted = [*self._references]
            if again:
                self._load(self.wanted)
            else:
                for name in names:
                    self._manager.load(name)
                for kind in self._manager.kinds():
                    self._register(kind)

    @property
    def names(self) -> list[str]:
        """The models served."""
        names = self._loaded.names() if self._loaded else []
        return [name for name in names if name in self.wanted]

    @property
    def kinds(self) -> list[str]:
        """All kinds of the handlers, but those of a model that is about to go."""
        going = set(self._loaded.names() if self._loaded else ()).difference(self.names)
        return [kind for kind in self._handlers.kinds() if kind.partition("/")[0] not in going]

    @property
    def trouble(self) -> str:
        """The models that could not be loaded, and why."""
        return "; ".join(self._troubles.values())[:TROUBLE_LENGTH_MAX]

    def beside(self, probe: Callable[[], Load]) -> Callable[[], Load]:
        """A probe that tells what the models compute on, too."""
        return lambda: msgspec.structs.replace(probe(), runs_on=self._runs_on())

    def _runs_on(self) -> tuple[str, ...]:
        infos = self._loaded.infos() if self._loaded else ()
        places = {short_place(info.provider, info.device) for info in infos}
        return tuple(sorted(places)[:PLACES_MAX])

    @staticmethod
    def _name(reference: str) -> str:
        from cluster.models.inference import model_name

        return model_name(reference)

    @property
    def _manager(self) -> ModelManager:
        if self._loaded is None:
            from cluster.models.inference import ModelRepository
            from cluster.models.manager import ModelManager

            self._loaded = ModelManager((), ModelRepository(**self._options))
        return self._loaded

    def change(self, wanted: Sequence[str], offer: Offer) -> None:
        """Serve these models instead, in a thread of its own. ``offer`` is called before a model
        goes and after one has come. What can't be loaded is tried again until the next change.
        """
        self._newer.set()
        self._newer = newer = threading.Event()
        self.wanted = wanted
        change = threading.Thread(
            target=self._change, args=(offer, newer), name="models", daemon=True
        )
        change.start()

    def _change(self, offer: Offer, newer: threading.Event) -> None:
        with self._changing:
            self._troubles = {}
            going = [name for name in self._manager.names() if name not in self.wanted]
            if going:
                offer()
                for name in going:
                    self._manager.unload(name)
            self._load(self.wanted)
            offer()
        pause_s = RETRY_S
        while (left := self._missing()) and not newer.wait(pause_s):
            pause_s = min(2 * pause_s, RETRY_MAX_S)
            with self._changing:
                self._load(left)
                if self._missing() != left and not newer.is_set():
                    offer()

    def _missing(self) -> list[str]:
        return [name for name in self.wanted if name not in self.names]

    def _load(self, names: Sequence[str]) -> None:
        """Load models, and make the handlers those of the manager's kinds."""
        for name in names:
            try:
                self._manager.load(self._references.get(name, name))
                self._troubles.pop(name, None)
            except Exception as error:
                self._note(name, error)
        kinds = self._manager.kinds()
        for kind in set(self._handlers.models).difference(kinds):
            self._handlers.withdraw(kind)
        for kind in kinds:
            try:
                self._register(kind)
            except Exception as error:
                self._note(kind.partition("/")[0], error)

    def _note(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, ClusterError) else repr(error)
        named = names_model(reason, name)  # it is what an operator's order is told apart by
        self._troubles[name] = reason if named else f"model {name!r}: {reason}"

    def _register(self, kind: str) -> None:
        self._handlers.register_model(kind, ServedModel(self._manager, kind))
