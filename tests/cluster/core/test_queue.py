"""The order of the queue against the plainest model of it: a list, sorted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.queue import Key, RunQueue
from cluster.core.run import Range, Run
from cluster.vocabulary.task import NO_REQUIREMENTS, Priority
from perfkit.optimized.queue import SortedQueue
from tests.cluster.core.scheduling import run

KINDS = ["a", "b", "c"]
NOTHING: set[Key] = set()
NEVER = 1 << 30


@pytest.mark.parametrize("kind", [RunQueue, SortedQueue])
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from([Priority.HIGH, Priority.LOW]),
            st.sampled_from(KINDS),
            st.sampled_from("cd"),
            st.sets(st.sampled_from("cd"), max_size=1),
            st.integers(0, 9),
            st.integers(0, 1),
            st.sets(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=1),
        ),
        min_size=10,
        max_size=40,
    )
)
def test_the_head_is_the_oldest_run_of_the_first_client_that_may_be_served(
    kind: type[RunQueue],
    moves: list[tuple[Priority, str, str, set[str], int, int, set[tuple[str, bool]]]],
) -> None:
    queue, runs = kind(NEVER), list[Run]()
    came: dict[tuple[Priority, str], int] = {}
    for id, (priority, needs, client, late, changed, deaths, lines) in enumerate(moves):
        runs.append(run(id, 2, priority=priority, kind=needs))
        runs[-1].client = client
        came.setdefault((priority, client), id)
        queue.push(runs[-1])
        if changed <= id:  # lease a task, or return a leased one, perhaps as a suspect
            other = runs[changed]
            if not other.withdraw(0, 1):
                other.put_back(Range(0, 1, deaths=deaths))
            queue.push(other)
        for name in [name for name in queue.held_back if name not in late]:
            queue.resume(name)
        blocked = {((needs, NO_REQUIREMENTS), suspect) for needs, suspect in lines}
        while (head := queue.head(blocked)) is not None and head[0].client in late:
            queue.hold_back(head[0].client)
        waiting = [(r, suspect) for r in runs for suspect in (True, False) if r.waiting[suspect]]
        free = [(r, s) for r, s in waiting if r.client not in late and (r.needs, s) not in blocked]
        places = [(r.priority, came[r.priority, r.client], r.id, not s) for r, s in free]
        assert head == (free[places.index(min(places))] if free else None)
        if head is not None and changed % 4:
            head[0].take(2, head[1])
            waiting.remove(head)
        assert sorted(r.id for r in queue.runs()) == sorted({r.id for r, _ in waiting})


def served(queue: RunQueue, times: int) -> str:
    """The priorities that are served, one lease each, as their first letters."""
    letters = ""
    for _ in range(times):
        head = queue.head(NOTHING)
        assert head is not None
        queue.granted(head[0])
        letters += head[0].priority.name[0]
    return letters


def test_a_level_that_was_passed_over_often_enough_goes_first_once() -> None:
    queue = RunQueue(3)
    for id, priority in enumerate([Priority.URGENT, Priority.LOW]):
        queue.push(run(id, 100, priority=priority))
    assert served(queue, 9) == "UUULUUULU"


def test_the_level_that_starves_longest_goes_first() -> None:
    queue = RunQueue(3)
    for id, priority in enumerate(Priority):
        queue.push(run(id, 100, priority=priority))
    assert served(queue, 13) == "UUUHNLUUUHNLU"


def test_a_level_where_nothing_waits_does_not_starve() -> None:
    queue, low = RunQueue(3), run(2, priority=Priority.LOW)
    queue.push(run(1, 100, priority=Priority.URGENT))
    assert served(queue, 10) == "U" * 10
    queue.push(low)
    assert served(queue, 4) == "UUUL"


def test_finished_runs_leave_a_fifo_whose_head_is_stuck() -> None:
    queue, head = RunQueue(NEVER), run(0)
    queue.push(head)
    for id in range(1, 10_000):
        over = run(id)
        queue.push(over)
        over.withdraw(0, 1)
    entries = sum(len(fifo.heap) for fifo in queue.fifos())
    assert entries <= 2 * 64 + 2
    assert queue.runs() == [head]
    over.put_back(Range(0, 1))
    queue.push(over)
    assert queue.runs() == [head, over]


def test_a_level_that_was_empty_has_forgotten_how_long_it_starved() -> None:
    queue, low = RunQueue(3), run(2, priority=Priority.LOW)
    for each in (run(1, 100, priority=Priority.URGENT), low):
        queue.push(each)
    assert served(queue, 3) == "UUU"
    piece = low.take(1, False)
    assert served(queue, 3) == "UUU"
    low.put_back(piece)
    queue.push(low)
    assert served(queue, 4) == "UUUL"


def shared(kind: type[RunQueue], times: int, *runs: Run) -> str:
    """The clients whose tasks are leased, one at a time."""
    queue, names = kind(NEVER), ""
    for each in runs:
        queue.push(each)
    for _ in range(times):
        head = queue.head(NOTHING)
        assert head is not None
        head[0].take(1, head[1])
        queue.granted(head[0])
        names += head[0].client
    return names


def of(client: str, id: int, count: int, **attributes: object) -> Run:
    found = run(id, count, **attributes)
    found.client = client
    return found


@pytest.mark.parametrize("kind", [RunQueue, SortedQueue])
def test_clients_take_turns_whatever_they_need_and_however_much_they_queue(
    kind: type[RunQueue],
) -> None:
    crowd = [of("a", id, 100) for id in range(3)]
    assert shared(kind, 9, *crowd, of("b", 3, 2), of("c", 4, 9)) == "abcabcaca"
    assert shared(kind, 6, *[of("a", id, 100, kind=KINDS[id]) for id in range(3)]) == "aaaaaa"
    assert shared(kind, 6, of("a", 5, 9, kind="a"), of("a", 6, 9), of("b", 7, 9)) == "ababab"


def test_a_client_that_is_gone_is_skipped_at_once() -> None:
    queue = RunQueue(NEVER)
    for id in range(1_000):
        queue.push(of("a", id, 1, kind=KINDS[id % 3]))
    queue.push(last := of("b", 1_000, 1))
    queue.hold_back("a")
    queue.forget("a")
    queue.forget("nobody")
    assert queue.head(NOTHING) == (last, False)
    assert queue.runs() == [last]
    assert len(queue.fifos()) == 1


def test_an_empty_lane_that_is_used_again_knows_no_client_that_is_gone() -> None:
    queue, first = RunQueue(NEVER), of("a", 0, 1)
    queue.push(first)
    first.take(1, False)
    assert queue.head(NOTHING) is None
    queue.forget("a")
    queue.push(of("b", 1, 1))
    queue.push(of("c", 2, 1))
    assert [run.client for run in queue.runs()] == ["b", "c"]


def test_a_client_that_is_held_back_often_does_not_grow_the_queue() -> None:
    queue = RunQueue(NEVER)
    queue.push(of("a", 0, 1))
    queue.push(of("b", 1, 1))
    for id in range(2, 1_000):
        queue.hold_back("a")
        queue.push(of("a", id, 1))
        queue.resume("a")
    assert max(len(lane.order or ()) for lanes in queue._lanes for lane in lanes.values()) < 200
    assert len(queue.runs()) == 1_000
