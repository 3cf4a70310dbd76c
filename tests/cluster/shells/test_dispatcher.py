"""A turn needs neither a socket nor a clock: messages in, answers out."""

from types import SimpleNamespace

import pytest

from cluster.shells.dispatcher import Dispatcher
from cluster.spec import load_codec
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on


def test_a_turn_handles_messages_at_the_time_given_and_answers_each_peer(spec):
    codec, sent = load_codec(spec), []
    outlet = SimpleNamespace(bytes_in=0, bytes_out=0, messages_in=3, messages_out=0)
    outlet.send = lambda frames: sent.extend((frames[0], a) for a in codec.actions(frames[1:]))
    dispatcher = Dispatcher(spec, outlet)

    def turn(now, **said):
        messages = [
            [route.encode(), *frames]
            for route, event in said.items()
            for frames in codec.encode([event])
        ]
        dispatcher.turn(messages, now)
        answers, sent[:] = [*sent], []
        assert messages == []
        return answers

    asked = on.StatusRequested("c", 1)
    ((route, welcome), (other, report)) = turn(
        0.0, a=on.WorkerJoined("w", 1, 1, 2, ["echo"]), b=asked
    )
    assert (route, type(welcome), other, report.request) == (b"a", do.Welcome, b"b", 1)
    assert report.answer.counters["messages_in"] == 3
    assert report.answer.workers[0].silent_s == 0.0
    assert dispatcher.deadline() > 0.0
    late_s = 2 * spec.limits.liveness_s
    turn(late_s)  # a pause of the dispatcher is nobody's silence
    ((_, report),) = turn(late_s + 0.1, b=asked)
    assert report.answer.workers[0].silent_s == pytest.approx(0.1)
    now = late_s
    while now < late_s + spec.limits.liveness_s:
        now = dispatcher.deadline()
        turn(now)
    ((_, report),) = turn(now, b=asked)
    assert report.answer.workers == []
