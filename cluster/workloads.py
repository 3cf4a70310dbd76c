"""Handlers for tests, demonstrations and benchmarks: small, and each there for one property."""

from __future__ import annotations

import time

from cluster.handlers import Handlers

HANDLERS = Handlers()


@HANDLERS.register("noop")
def noop(payload: bytes) -> bytes:
    """Nothing at all: what is left is the cluster's own cost."""
    return b""


@HANDLERS.register("echo")
def echo(payload: bytes) -> bytes:
    """The payload itself, so that a mixed-up result can't go unseen."""
    return payload


@HANDLERS.register("sleep")
def sleep(payload: bytes) -> bytes:
    """Wait without computing; the payload is the seconds as text, 0.01 when empty."""
    time.sleep(float(payload or b"0.01"))
    return payload


@HANDLERS.register("spin")
def spin(payload: bytes) -> bytes:
    """Compute without a pause; the payload is the seconds of CPU time as text, 0.001 when empty."""
    end_s = time.thread_time() + float(payload or b"0.001")
    while time.thread_time() < end_s:
        pass
    return payload


@HANDLERS.register("fail")
def fail(payload: bytes) -> bytes:
    """Raise, with the payload as the message."""
    raise RuntimeError(payload.decode(errors="replace") or "told to fail")
