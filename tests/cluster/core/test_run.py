"""The algebra of ranges: after any moves each task is in exactly one place."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.run import SMALL_BYTES, Range, Run, pack, unpack
from cluster.core.worker import Lease
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.task import State
from tests.cluster.core.scheduling import offer, run

COUNT = 12


def positions(pieces: list[Range]) -> list[int]:
    return [p for piece in pieces for p in range(piece.start, piece.stop)]


@given(st.data())
def test_ranges_partition_a_run_after_any_moves(data: st.DataObject) -> None:
    whole = run(1, COUNT)
    out: list[Range] = []
    for _ in range(data.draw(st.integers(0, 20))):
        move = data.draw(st.sampled_from(["take", "put back", "withdraw"]))
        suspect = data.draw(st.booleans())
        if move == "take" and whole.waiting[suspect]:
            first, most = whole.waiting[suspect][0], data.draw(st.integers(1, COUNT))
            piece = whole.take(most, suspect)
            assert piece.start == first.start
            assert piece.stop - piece.start == min(most, first.stop - first.start)
            assert piece[2:] == first[2:]
            out.append(piece)
        elif move == "put back" and out:
            piece = out.pop(data.draw(st.integers(0, len(out) - 1)))
            changes = [piece, piece._replace(deaths=1), piece._replace(attempts=1)]
            changed = data.draw(st.sampled_from(changes))
            whole.put_back(changed)
        else:
            start, stop = sorted(data.draw(st.tuples(*[st.integers(-1, COUNT + 1)] * 2)))
            taken = whole.withdraw(start, stop)
            assert all(start <= p < stop for p in positions(taken))
            assert taken == sorted(taken)
            assert not any(
                start <= p < stop for p in positions([*whole.waiting[0], *whole.waiting[1]])
            )
            out += taken
        assert sorted(positions([*whole.waiting[0], *whole.waiting[1], *out])) == [*range(COUNT)]
        for suspects, pieces in enumerate(whole.waiting):
            assert [*pieces] == sorted(pieces)
            assert all(piece.start < piece.stop for piece in pieces)
            assert all(piece.deaths == suspects for piece in pieces)
            joints = [((a.stop, *a[2:]), (b.start, *b[2:])) for a, b in pairwise(pieces)]
            assert all(stop != start for stop, start in joints), "neighbours alike are joined"


def note(whole: Run, at_s: float, most: int) -> None:
    whole.note(State.QUEUED, Cause.ASSIGNED, 0, 1, "w", at_s, most)


@given(st.integers(1, 7), st.integers(0, 30))
def test_a_story_over_its_bound_loses_its_middle_and_says_how_much(most: int, count: int) -> None:
    whole = run(1)
    for at_s in range(count):
        note(whole, float(at_s), most)
    first = min(count, most // 2)
    last = min(count, most) - first
    kept = [*range(first), *range(count - last, count)]
    assert [entry.at_s for entry in whole.story] == kept
    assert whole.omitted == count - len(kept)


@given(st.integers(0, 30))
def test_a_packed_run_tells_the_same_story_and_is_too_large_for_an_arena(count: int) -> None:
    whole = run(7, 3)
    for at_s in range(count):
        note(whole, float(at_s), 9)
    packed = pack(whole)
    past = unpack(packed)
    assert len(packed) > SMALL_BYTES
    assert past.story == whole.story
    assert (past.id, past.client, past.count) == (whole.id, whole.client, 3)
    assert past.accepted_at == whole.accepted_at


@given(st.sets(st.integers(0, COUNT)), st.integers(0, COUNT), st.integers(0, COUNT))
def test_the_pieces_of_a_lease_leave_revoked_positions_out(
    revoked: set[int], start: int, stop: int
) -> None:
    lease = Lease(1, run(1, COUNT), offer(), 0.0, 0, COUNT, attempts=1, deaths=2)
    lease.revoked = revoked or None
    pieces = lease.pieces(start, stop)
    assert positions(pieces) == [p for p in range(start, stop) if p not in revoked]
    assert all(a.stop < b.start for a, b in pairwise(pieces))
    assert all(piece[2:] == (1, 2) for piece in pieces)
