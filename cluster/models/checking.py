"""Loads models on each provider that is there, to see whether they give their golden outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

from cluster.models.inference import ModelRepository
from cluster.models.providers.vulkan import AMD, vulkan_devices
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


class Place(NamedTuple):
    """A provider that is here, and how to ask for it."""

    provider: str
    wish: Wish
    preference: tuple[str, ...] = ()


def places() -> list[Place]:
    """The providers that are here, the card last; ModelError if onnxruntime is not installed."""
    available = load_runtime("to be checked").get_available_providers()
    known = [it for it in PREFERENCE if it in available and it != WEBGPU]
    found = [Place(provider, Wish("cpu"), (provider,)) for provider in known]
    return [*found, Place(WEBGPU, Wish("webgpu"))] if _has_card() else found


def check_models(repository: ModelRepository, names: Iterable[str]) -> Iterator[Check]:
    """A check of each version of each model, its file as it is, on each provider that is here.

    Raises:
        ModelError: onnxruntime is not installed.
    """
    here = places()
    for name in names:
        try:
            versions = sorted(repository.find(name).files)
        except ModelError as error:
            yield Check(name, None, None, error=str(error))
            continue
        for version in map(str, versions):
            for place in here:
                yield _check(repository, name, version, place)


def _check(repository: ModelRepository, name: str, version: str, place: Place) -> Check:
    provider, wish, preference = place
    try:
        model = repository.load(name, version, wish=wish, preference=preference)
    except ModelError as error:
        return Check(name, version, provider, error=str(error))
    info = model.describe()
    return Check(name, version, provider, info.golden, info.load_ms)


def _has_card() -> bool:
    """Whether this process is bound to a card, or Vulkan shows one of AMD's."""
    if CARD in os.environ:
        return True
    with suppress(ModelError):
        return any(it.vendor_id == AMD and not it.is_software for it in vulkan_devices())
    return False
