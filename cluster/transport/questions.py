"""What a peer asks a coordinator on a connection of its own: its spec, its status.

Such a question waits behind no data. It is answered within a turn of the coordinator, which reads
from its connections in rotation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from cluster.spec import BASELINE, ClusterSpec, load_codec
from cluster.transport.channel import WRITABLE
from cluster.transport.hello import check_heard, heard
from cluster.transport.wakeable import WakeableChannel
from cluster.vocabulary import actions as do
from cluster.vocabulary.errors import ClusterError, ProtocolError, Unreachable
from cluster.vocabulary.status import Status

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
) -> Status:
    """The answer to a question; raises Unreachable after ``timeout_s``, ClusterError if the
    coordinator refuses it or the asker closes, ProtocolError if it has another spec.
    """
    codec = load_codec(spec)
    channel = WakeableChannel(zmq.DEALER, spec)
    channel.connect(endpoint)
    (question,) = codec.encode([event])
    refusal: ClusterError | None = None
    send_at = 0.0
    try:
        for frames in _listen(channel, endpoint, timeout_s, is_closing):
            if not frames:  # a look
                # Again from time to time: a connection may have ended with the question unread.
                if time.monotonic() >= send_at and channel.ready(WRITABLE):
                    channel.send(question)
                    send_at = time.monotonic() + AGAIN_S
                continue
            try:
                actions = codec.actions(frames)
            except ProtocolError:
                try:
                    check_heard(frames, spec, endpoint)
                except ProtocolError:
                    raise
                except ClusterError as error:  # a full coordinator may answer yet
                    refusal = error
                continue
            for action in actions:
                if isinstance(action, do.Report):
                    if action.status is None:
                        raise ClusterError(action.error)
                    return action.status
    except Unreachable as error:
        raise refusal or error from None
    finally:
        channel.close()
    raise AssertionError("listening ends by an error")


def learn_spec(endpoint: str, timeout_s: float | None = 5.0) -> ClusterSpec:
    """The spec that the coordinator at ``endpoint`` announces; raises Unreachable after
    ``timeout_s``, ClusterError if it refuses this peer or its codec is not one of this project's.
    """
    channel = WakeableChannel(zmq.DEALER, BASELINE)
    channel.connect(endpoint)
    try:
        for frames in _listen(channel, endpoint, timeout_s, lambda: False):
            announced = heard(frames)
            if announced is None:
                continue
            if announced.is_final:
                raise ClusterError(f"the coordinator at {endpoint} {announced.complaint}")
            if not announced.spec.codec.startswith(OWN_PACKAGES):
                raise ClusterError(
                    f"the coordinator at {endpoint} uses the codec {announced.spec.codec!r}, which "
                    "is not loaded unasked; give its spec here too"
                )
            return announced.spec
    finally:
        channel.close()
    raise AssertionError("listening ends by an error")


def _listen(
    channel: WakeableChannel,
    endpoint: str,
    timeout_s: float | None,
    is_closing: Callable[[], bool],
) -> Iterator[list[bytes]]:
    """The messages that arrive, and an empty one at each look at the clock."""
    end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while (now := time.monotonic()) < end_s:
        if is_closing():
            raise ClusterError("the client was closed before this was done")
        yield []
        channel.listener.wait(math.ceil(min(LOOK_S, end_s - now) * 1000))
        yield from channel.receive(1)
        channel.tend(now)
    raise Unreachable(f"no coordinator answers at {endpoint} within {timeout_s} s; is it running?")
