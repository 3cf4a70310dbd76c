"""Large results lie where they were made, and what was done after them waits its turn."""

import pytest

from cluster.protocol.stored_results import FinishedTasks, StoredResults
from cluster.vocabulary.task import Failure

NO = Failure(7, "ValueError", "no")


def test_outcomes_are_split_with_their_failures_and_their_time() -> None:
    before, after = FinishedTasks([b"a", b"", b"c", b"d"], [NO], 2.0, 6.0).split(3, 6)
    assert before == FinishedTasks([b"a", b"", b"c"], [NO], 2.0, 5.0)
    assert after == FinishedTasks([b"d"], [], 5.0, 6.0)


@pytest.fixture
def stored() -> StoredResults:
    """Positions 3 to 7 of a lease are done; the results of 4 and 5 are large."""
    results = StoredResults()
    results.put(4, b"large")
    results.put(5, bytearray(b"larger"))
    results.behind.append(FinishedTasks([b"3", b"", b"", b"6", b""], [NO], 0.0, 5.0))
    return results


def test_what_stands_before_a_large_result_is_ready_and_the_rest_is_when_that_is_dropped(
    stored: StoredResults,
) -> None:
    assert stored.announced(3) is None
    assert stored.take(3) == FinishedTasks([b"3"], [], 0.0, 1.0)
    assert (stored.take(4), stored.announced(4), stored.times()) == (None, 5, (1.0, 2.0))
    stored.drop({4})
    assert stored.take(4) == FinishedTasks([b""], [], 1.0, 2.0)
    assert (stored.take(5), stored.announced(5)) == (None, 6)
    stored.drop({4, 5})
    assert stored.take(5) == FinishedTasks([b"", b"6", b""], [NO], 2.0, 5.0)
    assert (stored.take(8), stored.size_bytes) == (None, 0)


def test_nothing_is_announced_before_it_is_its_turn(stored: StoredResults) -> None:
    stored.behind.clear()
    assert stored.announced(4) is None
    stored.drop(())
    assert stored.size_bytes == 11


def test_chunks_are_parts_of_what_was_kept_and_not_copies() -> None:
    stored, result = StoredResults(), bytearray(b"0123456789")
    stored.put(0, memoryview(result).cast("H"))
    chunk = stored.chunk(0, 4, 3)
    result[4] = ord("x")
    assert bytes(chunk) == b"x56"


@pytest.mark.parametrize("place", [(1, 0, 1), (0, 10, 1), (0, 8, 3), (0, 3, 0)])
def test_there_is_no_chunk_of_what_is_not_there(place: tuple[int, int, int]) -> None:
    stored = StoredResults()
    stored.put(0, b"0123456789")
    assert stored.chunk(*place) is None


def test_a_result_with_gaps_is_put_together() -> None:
    stored = StoredResults()
    stored.put(0, memoryview(b"0123456789")[::2])
    assert bytes(stored.chunk(0, 0, 5)) == b"02468"
