"""What a peer asks a coordinator on a connection of its own: its spec, its status, its tasks.

Such a question waits behind no data. It is answered within a turn of the coordinator, which reads
from its connections in rotation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import zmq

from cluster.spec import BASELINE, ClusterSpec, load_codec
from cluster.transport import interrupts
from cluster.transport.channel import WRITABLE
from cluster.transport.hello import check_heard, heard
from cluster.transport.wakeable import WakeableChannel
from cluster.vocabulary import actions as do
from cluster.vocabulary.errors import ClusterError, ProtocolError, Unreachable
from cluster.vocabulary.status import Answer

T = TypeVar("T")

LOOK_S = 0.05
AGAIN_S = 1.0
#: an announced codec is imported, and only from here
OWN_PACKAGES = ("cluster.", "perfkit.")


def ask(
    endpoint: str,
    spec: ClusterSpec,
    event: Any,
    timeout_s: float | None,
    is_closing: Callable[[], bool],
) -> Answer:
    """The answer to a question; raises Unreachable after ``timeout_s``, ClusterError if the
    coordinator refuses it or the asker closes, ProtocolError if it has another spec.
    """
    codec = load_codec(spec)
    (question,) = codec.encode([event])
    refusal: ClusterError | None = None
    send_at = 0.0

    def look(channel: WakeableChannel) -> None:
        nonlocal send_at
        if is_closing():
            raise ClusterError("the client was closed before this was done")
        # Again from time to time: a connection may have ended with the question unread.
        if time.monotonic() >= send_at and channel.ready(WRITABLE):
            channel.send(question)
            send_at = time.monotonic() + AGAIN_S

    def hear(frames: list[bytes]) -> Answer | None:
        nonlocal refusal
        try:
            actions = codec.actions(frames)
        except ProtocolError:
            try:
                check_heard(frames, spec, endpoint)
            except ProtocolError:
                raise
            except ClusterError as error:  # a full coordinator may answer yet
                refusal = error
            return None
        for action in actions:
            if isinstance(action, do.Report):
                if action.answer is None:
                    raise ClusterError(action.error)
                return action.answer
        return None

    try:
        return cast("Answer", _converse(endpoint, spec, timeout_s, look, hear))
    except Unreachable as error:
        raise refusal or error from None


def learn_spec(endpoint: str, timeout_s: float | None = 5.0) -> ClusterSpec:
    """The spec that the coordinator at ``endpoint`` announces; raises Unreachable after
    ``timeout_s``, ClusterError if it refuses this peer or its codec is not one of this project's.
    """

    def hear(frames: list[bytes]) -> ClusterSpec | None:
        announced = heard(frames)
        if announced is None:
            return None
        if announced.is_final:
            raise ClusterError(f"the coordinator at {endpoint} {announced.complaint}")
        if not announced.spec.codec.startswith(OWN_PACKAGES):
            raise ClusterError(
                f"the coordinator at {endpoint} uses the codec {announced.spec.codec!r}, which is "
                "not loaded unasked; give its spec here too"
            )
        return announced.spec

    return _converse(endpoint, BASELINE, timeout_s, lambda channel: None, hear)


def _converse(
    endpoint: str,
    spec: ClusterSpec,
    timeout_s: float | None,
    look: Callable[[WakeableChannel], None],
    hear: Callable[[list[bytes]], T | None],
) -> T:
    """What ``hear`` makes of a message, once it makes something; ``look`` is called meanwhile.

    A signal ends the connection, so that Ctrl-C leaves none open; unless its handler raises,
    another connection is made.
    """
    end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        interrupts.hold()
        try:
            channel = WakeableChannel(zmq.DEALER, spec, shared=True)
            try:
                found = _talk(channel, endpoint, end_s, look, hear)
            finally:
                channel.close()
        finally:
            interrupts.let_go()
        if found is not None:
            return found
    raise Unreachable(f"no coordinator answers at {endpoint} within {timeout_s} s; is it running?")


def _talk(
    channel: WakeableChannel,
    endpoint: str,
    end_s: float,
    look: Callable[[WakeableChannel], None],
    hear: Callable[[list[bytes]], T | None],
) -> T | None:
    channel.connect(endpoint)
    interrupts.hold(channel.waker.wake)
    try:
        while not interrupts.is_due() and (now := time.monotonic()) < end_s:
            look(channel)
            channel.listener.wait(math.ceil(min(LOOK_S, end_s - now) * 1000))
            for frames in channel.receive(1):
                found = hear(frames)
                if found is not None:
                    return found
            channel.tend(now)
    finally:
        interrupts.let_go()
    return None
