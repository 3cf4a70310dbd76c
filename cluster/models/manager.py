"""The models of a worker: loaded and unloaded while it runs, by name and version, within a bound.

Each model that is served has a kind of task ``NAME``, its newest served version, and one
``NAME/<version>`` for each version served. A model that was not used for longest is dropped from
memory when the bound is reached, and loaded again when it is asked for; its kinds stay. Nothing is
dropped or unloaded while a thread uses it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.models.inference import ModelRepository
from cluster.models.loaded import Model, ModelInfo
from cluster.models.repository.folders import model_name
from cluster.models.repository.manifest import ModelError
from cluster.vocabulary.errors import did_you_mean

#: The bytes of models' files in memory at once.
MODELS_BYTES_MAX = 8 << 30
#: How long a load waits for models in use, so that one of them can be dropped.
ROOM_WAIT_S = 30.0


@dataclass(slots=True)
class _Slot:
    """A version of a model: in memory while ``model`` is one; ``users`` threads hold it. Its files
    had the ``stamp`` when it was loaded by name.
    """

    name: str
    version: str
    model: Model | None = None
    info: ModelInfo | None = None
    stamp: Hashable = None
    users: int = 0
    is_loading: bool = False

    @property
    def size_bytes(self) -> int:
        return self.model.describe().file_size_bytes if self.model else 0


class ModelManager:
    """Loads models of a repository and hands them to threads.

    ``names`` are loaded at once; each is a name or the path of a file or folder. ``bytes_max``
    bounds the files of the models in memory. All methods may be called from any thread.

    Raises:
        ModelError: from the first of ``names`` that cannot be loaded.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        repository: ModelRepository | None = None,
        *,
        bytes_max: int = MODELS_BYTES_MAX,
    ) -> None:
        self._repository = repository or ModelRepository()
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        #: what each name was loaded from, and its versions, oldest first
        self._references: dict[str, str] = {}
        self._versions: dict[str, list[str]] = {}
        #: by kind NAME/<version>, the least recently used first
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        for name in names:
            self.load(name)

    def load(self, name: str, version: str | int | None = None) -> ModelInfo:
        """Serve a model: one version, or those that its configuration asks for; the newest's info.

        What is served already is loaded anew if a file of it has changed. Questions that were read
        before get the answers of the old file, those read afterwards of the new one.

        Raises:
            ModelError: it cannot be loaded; what was served before still is.
        """
        kind = model_name(name)
        with self._changed:
            reference = self._references.get(name, name)
        found = self._repository.find(reference)
        served = [str(it) for it in found.served()] if version is None else [str(version)]
        stamp = (reference, found.stamp())
        with self._changed:
            known = [self._slots.get(f"{kind}/{it}") for it in served]
            infos = [slot.info for slot in known if slot and slot.info and slot.stamp == stamp]
            if len(infos) < len(served):
                infos = []
        models = [] if infos else [self._repository.load(reference, it) for it in served]
        for model in models:
            self._check_size(model)
        with self._changed:
            before = self._versions.get(kind, [])
            if version is not None:
                served = sorted({*before, *served}, key=int)
            self._references[kind], self._versions[kind] = reference, served
            for model in models:
                slot = self._slot(kind, model.version)
                slot.info, slot.stamp = model.describe(), stamp
                # Without room it is loaded again when it is asked for.
                slot.model = model if self._make_room(model, slot) else None
            for old in set(before).difference(served):
                self._drop(f"{kind}/{old}")
            self._changed.notify_all()
        return models[-1].describe() if models else infos[-1]

    def unload(self, name: str) -> None:
        """Serve a model no longer; returns when no thread uses it any more. Not to be called
        within `using`.

        Raises:
            ModelError: it is not served.
        """
        kind = model_name(name)
        with self._changed:
            self._check_served(kind)
            del self._references[kind]
            for version in self._versions.pop(kind):
                self._drop(f"{kind}/{version}")

    def names(self) -> list[str]:
        """The names of the models served, sorted."""
        with self._changed:
            return sorted(self._versions)

    def kinds(self) -> list[str]:
        """The kinds of task of the models served, sorted: see the top of this file."""
        with self._changed:
            versions = {f"{name}/{it}" for name, all_of in self._versions.items() for it in all_of}
            return sorted(versions.union(self._versions))

    def infos(self) -> list[ModelInfo]:
        """What is known of each version that has been loaded and is served."""
        with self._changed:
            return [slot.info for slot in self._slots.values() if slot.info]

    @contextmanager
    def using(self, kind: str) -> Iterator[Model]:
        """The model of a kind, in memory for the length of a with block.

        Raises:
            ModelError: it is not served, or can't be loaded again.
        """
        slot, model = self._take(kind)
        try:
            yield model
        finally:
            with self._changed:
                slot.users -= 1
                self._changed.notify_all()

    def _take(self, kind: str) -> tuple[_Slot, Model]:
        """The slot of a kind with one user more, and its model, in memory."""
        with self._changed:
            slot = self._wanted(kind)
            while slot.is_loading:
                self._changed.wait()
                slot = self._wanted(kind)
            slot.users += 1
            if slot.model is not None:
                return slot, slot.model
            slot.is_loading = True
            reference = self._references[slot.name]
        try:
            model = self._repository.load(reference, slot.version)
            self._check_size(model)
            with self._changed:
                if not self._make_room(model, slot):
                    raise ModelError(f"model {slot.name!r} finds no room: {self._full()}")
                slot.model = model
        except BaseException:
            with self._changed:
                slot.users -= 1
            raise
        finally:
            with self._changed:
                slot.is_loading = False
                self._changed.notify_all()
        return slot, model

    def _wanted(self, kind: str) -> _Slot:
        """The slot of a kind, now the most recently used; ModelError if it is not served."""
        name, _, version = kind.partition("/")
        self._check_served(name)
        versions = self._versions[name]
        if version and version not in versions:
            raise ModelError(
                f"model {name!r}: version {version} is not served; served: {', '.join(versions)}"
            )
        return self._slot(name, version or versions[-1])

    def _slot(self, name: str, version: str) -> _Slot:
        key = f"{name}/{version}"
        slot = self._slots.setdefault(key, _Slot(name, version))
        self._slots.move_to_end(key)
        return slot

    def _check_served(self, name: str) -> None:
        if name not in self._versions:
            hint = did_you_mean(name, self._versions)
            served = ", ".join(sorted(self._versions)) or "none"
            raise ModelError(f"model {name!r} is not served; served: {served}{hint}")

    def _drop(self, key: str) -> None:
        """Forget a slot once it is idle; the lock is held, and given up while waiting."""
        if slot := self._slots.pop(key, None):
            self._await_idle(slot)
            slot.model = None

    def _await_idle(self, slot: _Slot) -> None:
        while slot.users or slot.is_loading:
            self._changed.wait()

    def _check_size(self, model: Model) -> None:
        size_bytes = model.describe().file_size_bytes
        if size_bytes > self._bytes_max:
            raise ModelError(
                f"model {model.name!r} has {size_bytes:,} bytes; at most {self._bytes_max:,} fit"
            )

    def _make_room(self, model: Model, keep: _Slot) -> bool:
        """Drop the least recently used idle models until a model fits, waiting for some to become
        idle; the lock is held. False if none does in `ROOM_WAIT_S`.
        """
        while True:
            others = [slot for slot in self._slots.values() if slot is not keep and slot.model]
            excess = sum(slot.size_bytes for slot in others) - self._bytes_max
            excess += model.describe().file_size_bytes
            for slot in others:
                if excess > 0 and not slot.users:
                    excess -= slot.size_bytes
                    slot.model = None
            if excess <= 0:
                return True
            if not self._changed.wait(ROOM_WAIT_S):
                return False

    def _full(self) -> str:
        busy = sorted({slot.name for slot in self._slots.values() if slot.model and slot.users})
        return f"{', '.join(busy)} in use, and at most {self._bytes_max:,} bytes fit"
