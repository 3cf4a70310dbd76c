"""Handlers for tests, demonstrations and benchmarks, each with one property."""

from __future__ import annotations

import time

from cluster.work.handlers import Handlers

HANDLERS = Handlers()
#: its length is a prime
PATTERN = bytes(range(251))


@HANDLERS.register("noop")
def noop(payload: bytes) -> bytes:
    """Return nothing, which costs only the cluster's own work."""
    return b""


@HANDLERS.register("echo")
def echo(payload: bytes) -> bytes:
    """Return the payload, so that a mixed-up result shows."""
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


@HANDLERS.register("pattern")
def pattern(payload: bytes) -> memoryview:
    """Return ``PATTERN`` repeated to the size that the payload says. Two parts exchanged by mistake
    show unless they are a multiple of its length apart.
    """
    size_bytes = int(payload)
    return memoryview(PATTERN * (size_bytes // len(PATTERN) + 1))[:size_bytes]


@HANDLERS.register("length", views=True)
def length(payload: bytes | memoryview) -> bytes:
    """Return the number of bytes in the payload, without a copy of it."""
    return b"%d" % len(payload)
