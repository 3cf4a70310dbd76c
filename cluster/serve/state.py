"""What the requests of an API process share: its backend, settings, tokens and counters.

Handlers get the one `State` of their application, so that a test can run two side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cluster.serve.admission import Admission
from cluster.serve.backends.protocol import Backend
from cluster.serve.catalogue import Catalogue
from cluster.serve.dispatch import Dispatcher
from cluster.serve.http.bodies import Budget
from cluster.serve.http.problems import Problem
from cluster.serve.http.rates import Buckets
from cluster.serve.http.tokens import ANYBODY, Identity, Role, Tokens
from cluster.serve.statistics import Statistics
from cluster.shells.client import Client

Scope: TypeAlias = MutableMapping[str, Any]
#: model, protocol ("v2" or "openai"), HTTP status, latency_s, queue_s, items
Observe: TypeAlias = Callable[[str, str, int, float, float, int], None]


@dataclass(frozen=True)
class Settings:
    """The bounds of an API process: seconds, bytes and counts."""

    body_bytes: int = 64 << 20
    #: bodies and results that are held at once, of all requests
    held_bytes: int = 256 << 20
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    connections: int = 1_024
    #: what a request gets that names no timeout
    timeout_s: float = 60.0
    #: requests a second of a client, and how many may come at once; 0 sets no bound
    rate_per_s: float = 0.0
    burst: int = 0
    queued_per_client: int = 4_096
    queued_per_model: int = 16_384


def _observe_nothing(*_: object) -> None:
    return


@dataclass
class State:
    """One application's state. ``client`` is None where another engine runs the tasks."""

    backend: Backend
    client: Client | None = None
    settings: Settings = Settings()
    tokens: Tokens | None = None
    observe: Observe = _observe_nothing
    started_at: float = field(default_factory=time.time)
    #: set once the process is to end: what is open is finished, what comes is refused
    stopping: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.budget = Budget(settings.held_bytes)
        self.buckets = Buckets(settings.rate_per_s, settings.burst)
        self.statistics = Statistics()
        self.dispatcher = Dispatcher(
            self.backend,
            Admission(settings.queued_per_client, settings.queued_per_model),
            self.client.spec.limits.message_bytes // 2 if self.client else None,
        )
        self.catalogue = Catalogue(self.backend, self.dispatcher)


def authorise(state: State, scope: Scope, role: Role) -> Identity:
    """Whose request it is. ``scope`` is a request's ASGI scope (``request.scope``).

    Raises:
        Problem: 401 without a token that is known, 403 for one whose role is too low.
    """
    if state.tokens is None:
        return ANYBODY
    identity, secret = None, ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, text = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and (secret := text.strip()):
                identity = state.tokens.find(secret)
            break
    if identity is None:
        raise Problem(
            401,
            "this server knows no such token, or not any more"
            if secret
            else "this server wants a token: send the header 'Authorization: Bearer TOKEN'",
            code="invalid_api_key",
            closes=True,
            headers=(("www-authenticate", "Bearer"),),
        )
    if identity.role < role:
        raise Problem(
            403,
            f"the token {identity.name!r} has role {identity.role.name.lower()}, "
            f"this takes {role.name.lower()}",
            code="insufficient_permissions",
            closes=True,
        )
    return identity
