"""Loads models on each provider that is there, to see whether they give their golden outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from cluster.models.inference import ModelRepository
from cluster.models.providers.webgpu import WEBGPU
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.choice import Wish
from cluster.models.runtime.session import PREFERENCE, load_runtime
from cluster.vocabulary.cards import CARD


class Check(msgspec.Struct, frozen=True):
    """How a version of a model loads on a provider: ``error`` is None if all is well, and
    ``golden`` says that there were golden outputs to compare. Both are None where unknown.
    """

    name: str
    version: str | None
    provider: str | None
    golden: bool | None = None
    load_ms: float | None = None
    error: str | None = None


def providers() -> list[str]:
    """The providers that are here, from the most to the least wanted; ModelError without any."""
    available = load_runtime("to be checked").get_available_providers()
    card = [WEBGPU] if CARD in os.environ else []
    return [*card, *(provider for provider in PREFERENCE if provider in available)]


def check_models(repository: ModelRepository, names: Iterable[str]) -> Iterator[Check]:
    """A check of each version of each model on each provider that is here.

    Raises:
        ModelError: onnxruntime is not installed.
    """
    places = providers()
    for name in names:
        try:
            versions = sorted(repository.find(name).files)
        except ModelError as error:
            yield Check(name, None, None, error=str(error))
            continue
        for version in map(str, versions):
            for provider in places:
                yield _check(repository, name, version, provider)


def _check(repository: ModelRepository, name: str, version: str, provider: str) -> Check:
    try:
        if provider == WEBGPU:
            info = repository.load(name, version, wish=Wish("webgpu")).describe()
        else:
            info = repository.load(name, version, preference=(provider,)).describe()
    except ModelError as error:
        return Check(name, version, provider, error=str(error))
    return Check(name, version, provider, info.golden, info.load_ms)
