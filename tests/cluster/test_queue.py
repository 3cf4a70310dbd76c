"""The order of the queue against the plainest model of it: a list, sorted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.queue import RunQueue
from cluster.run import Needs, Range, Run
from cluster.task import NO_REQUIREMENTS, Priority
from tests.cluster.scheduling import run

KINDS = ["a", "b", "c"]
NO_NEEDS: set[Needs] = set()
NEVER = 1 << 30


@settings(max_examples=50)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(Priority),
            st.sampled_from(KINDS),
            st.integers(0, 20),
            st.sets(st.sampled_from(KINDS)),
        ),
        max_size=25,
    )
)
def test_the_head_is_the_oldest_of_the_most_urgent_that_are_not_blocked(
    moves: list[tuple[Priority, str, int, set[str]]],
) -> None:
    queue, runs = RunQueue(NEVER), list[Run]()
    for id, (priority, kind, changed, kinds) in enumerate(moves):
        runs.append(run(id, priority=priority, kind=kind))
        queue.push(runs[-1])
        if changed <= id:  # what waits is leased, what is leased waits again
            other = runs[changed]
            if not other.withdraw(0, 1):
                other.put_back(Range(0, 1))
            queue.push(other)
        blocked = {(kind, NO_REQUIREMENTS) for kind in kinds}
        waiting = [r for r in runs if r.queued]
        free = [r for r in waiting if r.needs not in blocked]
        assert queue.head(blocked) is min(free, key=lambda r: (r.priority, r.id), default=None)
        assert sorted(r.id for r in queue.runs()) == [r.id for r in waiting]


def test_a_run_is_entered_once_and_only_if_something_of_it_waits() -> None:
    queue, one, empty = RunQueue(NEVER), run(1), run(2)
    empty.take(1)
    for each in (one, one, empty):
        queue.push(each)
    assert queue.runs() == [one]


def test_a_run_that_waits_again_has_its_old_place() -> None:
    queue, old, new = RunQueue(NEVER), run(1), run(2)
    for each in (old, new):
        queue.push(each)
    piece = old.take(1)
    assert queue.head(NO_NEEDS) is new
    old.put_back(piece)
    queue.push(old)
    assert queue.head(NO_NEEDS) is old


def served(queue: RunQueue, times: int) -> str:
    """The priorities that are served, one lease each, as their first letters."""
    letters = ""
    for _ in range(times):
        head = queue.head(NO_NEEDS)
        assert head is not None
        queue.granted(head)
        letters += head.priority.name[0]
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


def test_runs_that_are_over_leave_a_line_whose_head_nobody_can_serve() -> None:
    queue, head = RunQueue(NEVER), run(0)
    queue.push(head)
    for id in range(1, 10_000):
        over = run(id)
        queue.push(over)
        over.withdraw(0, 1)
    entries = sum(len(line) for lines in queue._lines for line in lines.values())
    assert entries <= 2 * 64 + 2
    assert queue.runs() == [head]
    over.put_back(Range(0, 1))
    queue.push(over)
    assert queue.runs() == [head, over]
