"""Looks at a cluster: their history, what is unknown in it, and how seldom they come."""

import re

import pytest

from cluster.local import LocalCluster
from cluster.spec import BASELINE
from cluster.vocabulary.errors import ClientClosed, ClusterError, Unreachable
from cluster.vocabulary.status import Status
from perfkit.profile.activity.looks import (
    PAUSE_MAX_S,
    REST,
    Activity,
    Moment,
    ask_client,
    ask_coordinator,
)
from tests.perfkit.statuses import status


class Script:
    """Answers in order, each `takes_s` after the question; an error is raised."""

    def __init__(self, *answers: Status | ClusterError, takes_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._answers = iter(answers)
        self._takes_s = takes_s

    def clock(self) -> float:
        return self.now_s

    def __call__(self, timeout_s: float) -> Status:
        self.now_s += self._takes_s
        answer = next(self._answers)
        if isinstance(answer, ClusterError):
            raise answer
        return answer


def seen(script: Script, looks: int, **settings: float) -> Activity:
    """The activity after a look each second."""
    activity = Activity(script, clock=script.clock, **settings)
    for _ in range(looks):
        activity.look()
        script.now_s += 1.0
    return activity


def done(count: int, waiting: int = 0) -> Status:
    return status(counters={"done": count}, queued={"high": 1, "normal": waiting}, assigned=2)


def test_a_look_without_an_answer_is_a_gap_and_so_is_the_rate_after_it() -> None:
    gone = Unreachable("no coordinator answers")
    activity = seen(Script(done(5), done(25), gone, done(99), done(101, 7)), 3)
    assert (activity.error, activity.silent_s, activity.is_over) == (gone, 2.0, False)
    for _ in range(2):
        activity.look()
    assert activity.error is None
    assert [moment.done_per_s for moment in activity.moments] == [None, 20.0, None, None, None]
    assert activity.moments[2] == Moment(2.0)
    assert activity.series("queued")[-1] == (3.0, 8)


def test_another_coordinator_that_counts_anew_has_no_rate_yet() -> None:
    activity = seen(Script(done(50), done(3), done(4)), 3)
    assert [moment.done_per_s for moment in activity.moments] == [None, None, 1.0]


def test_the_history_is_bounded_by_the_span() -> None:
    activity = seen(Script(*(done(n) for n in range(50))), 50, span_s=10.0)
    assert [moment.at_s for moment in activity.moments] == list(range(39, 50))


def test_an_answer_that_takes_long_is_asked_for_less_often() -> None:
    assert seen(Script(done(0)), 1).pause_s == 1.0
    assert seen(Script(done(0), takes_s=0.1), 1).pause_s == pytest.approx(0.1 * REST)
    assert seen(Script(done(0), takes_s=3.0), 1).pause_s == PAUSE_MAX_S


@pytest.mark.parametrize(("interval_s", "span_s"), [(0.1, 60.0), (1.0, 1.0), (0.5, 1e9)])
def test_an_interval_or_a_span_that_costs_too_much_is_refused(
    interval_s: float, span_s: float
) -> None:
    with pytest.raises(ValueError, match=re.escape("use at least 0.5 s")):
        Activity(Script(), interval_s=interval_s, span_s=span_s)


def test_a_cluster_is_asked_without_becoming_a_client_of_it_until_it_ends() -> None:
    with LocalCluster(1) as cluster, cluster.client() as client:
        client.submit("echo", b"x").result()
        mine, unasked = Activity(ask_client(client)), Activity(ask_coordinator(cluster.endpoint))
        for activity in (mine, unasked):
            activity.look()
            assert activity.status is not None
            assert activity.status.clients == 1
            assert activity.moments[-1].done == 1
    for activity in (mine, unasked):
        activity.look(0.1)
    assert (mine.is_over, unasked.is_over) == (True, False)
    assert isinstance(unasked.error, Unreachable)


def test_asking_ends_at_once_when_the_asker_does() -> None:
    looked = []

    def is_over() -> bool:
        looked.append(1)
        return len(looked) > 3

    nowhere = ask_coordinator("tcp://127.0.0.1:1", BASELINE, is_over)
    with pytest.raises(ClientClosed, match="has ended"):
        nowhere(60.0)
