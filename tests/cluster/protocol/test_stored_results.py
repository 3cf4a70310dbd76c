"""Large results lie where they were made, and what was done after them waits its turn."""

import pytest

from cluster.protocol.stored_results import Gathered, StoredResults
from cluster.vocabulary.task import Failure

NO = Failure(7, "ValueError", "no")


def test_outcomes_are_split_with_their_failures_and_their_time() -> None:
    before, after = Gathered([b"a", b"", b"c", b"d"], [NO], 2.0, 6.0).split(3, 6)
    assert before == Gathered([b"a", b"", b"c"], [NO], 2.0, 5.0)
    assert after == Gathered([b"d"], [], 5.0, 6.0)


@pytest.fixture
def kept() -> StoredResults:
    """Positions 3 to 7 of a lease are done; the results of 4 and 5 are large."""
    results = StoredResults()
    results.put(4, b"large")
    results.put(5, bytearray(b"larger"))
    results.behind.append(Gathered([b"3", b"", b"", b"6", b""], [NO], 0.0, 5.0))
    return results


def test_what_stands_before_a_large_result_is_ready_and_the_rest_is_when_that_is_dropped(
    kept: StoredResults,
) -> None:
    assert kept.announced(3) is None
    assert kept.take(3) == Gathered([b"3"], [], 0.0, 1.0)
    assert (kept.take(4), kept.announced(4), kept.times()) == (None, 5, (1.0, 2.0))
    kept.drop({4})
    assert kept.take(4) == Gathered([b""], [], 1.0, 2.0)
    assert (kept.take(5), kept.announced(5)) == (None, 6)
    kept.drop({4, 5})
    assert kept.take(5) == Gathered([b"", b"6", b""], [NO], 2.0, 5.0)
    assert (kept.take(8), kept.size_bytes) == (None, 0)


def test_nothing_is_announced_before_it_is_its_turn(kept: StoredResults) -> None:
    kept.behind.clear()
    assert kept.announced(4) is None
    kept.drop(())
    assert kept.size_bytes == 11


def test_chunks_are_parts_of_what_was_kept_and_not_copies() -> None:
    kept, result = StoredResults(), bytearray(b"0123456789")
    kept.put(0, memoryview(result).cast("H"))
    chunk = kept.chunk(0, 4, 3)
    result[4] = ord("x")
    assert bytes(chunk) == b"x56"


@pytest.mark.parametrize("place", [(1, 0, 1), (0, 10, 1), (0, 8, 3), (0, 3, 0)])
def test_there_is_no_chunk_of_what_is_not_there(place: tuple[int, int, int]) -> None:
    kept = StoredResults()
    kept.put(0, b"0123456789")
    assert kept.chunk(*place) is None


def test_a_result_with_gaps_is_put_together() -> None:
    kept = StoredResults()
    kept.put(0, memoryview(b"0123456789")[::2])
    assert bytes(kept.chunk(0, 0, 5)) == b"02468"
