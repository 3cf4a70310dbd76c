"""A map's reader keeps order, a bounded window, and no chunk longer than it must."""

import gc
from concurrent.futures import CancelledError
from queue import SimpleQueue

import pytest

from cluster.protocol.client_session import Settled
from cluster.shells.mapping import (
    MAX_RUN_BYTES,
    UNCOPIED_BYTES,
    WINDOW_TASKS,
    MapReader,
    as_payload,
    run_bytes,
)
from cluster.vocabulary.errors import ClusterError, TaskFailed
from cluster.vocabulary.task import Failure, State

MESSAGE_BYTES = 1 << 26


class Cluster:
    """Stands in for what is behind a reader: holds the chunks until told to settle them."""

    def __init__(self, payloads, burst, message_bytes=MESSAGE_BYTES, timeout=None):
        self.columns, self.chunks, self.cancelled = [], [], []
        self.reader = MapReader(
            payloads,
            burst,
            message_bytes,
            self.submit,
            self.cancelled.extend,
            timeout=timeout,
        )

    def submit(self, payloads, chunk):
        self.columns.append(payloads)
        self.chunks.append(chunk)

    def settle(self, number, *failures):
        self.chunks[number].settle(Settled(None, 0, self.columns[number], list(failures), []))


def test_results_come_in_order_even_if_they_arrive_in_another():
    cluster = Cluster([b"%d" % n for n in range(7)], burst=3)
    cluster.reader.fill()
    assert list(map(len, cluster.columns)) == [3, 3, 1]
    for number in (2, 0, 1):
        cluster.settle(number)
    assert list(cluster.reader.read()) == [b"%d" % n for n in range(7)]
    assert cluster.cancelled == []


def test_results_of_a_chunk_may_come_in_parts():
    cluster = Cluster([b"a", b"b", b"c"], burst=3)
    cluster.reader.fill()
    chunk = cluster.chunks[0]
    chunk.settle(Settled(None, 2, [b"C"], [], []))
    chunk.settle(Settled(None, 0, [b"A", b"B"], [], []))
    assert list(cluster.reader.read()) == [b"A", b"B", b"C"]


def test_a_result_is_read_before_its_chunk_is_whole_and_the_one_that_is_missing_is_waited_for():
    cluster = Cluster([b"a", b"b", b"c", b"d"], burst=4)
    cluster.reader.fill()
    (chunk,) = cluster.chunks
    results = cluster.reader.read()
    chunk.settle(Settled(None, 2, [b"C"], [], []))
    chunk.settle(Settled(None, 0, [b"A"], [], []))
    assert next(results) == b"A"
    chunk.settle(Settled(None, 1, [b"B"], [], []))
    assert [next(results), next(results)] == [b"B", b"C"]
    chunk.settle(Settled(None, 3, [b"D"], [], []))
    assert list(results) == [b"D"]
    assert cluster.cancelled == []


def test_an_error_and_the_end_of_the_time_come_in_the_place_of_their_result_in_a_chunk():
    cluster = Cluster([b"a", b"b", b"c"], burst=3, timeout=0.01)
    cluster.reader.fill()
    cluster.chunks[0].settle(Settled(None, 0, [b"A"], [], []))
    results = cluster.reader.read()
    assert next(results) == b"A"
    with pytest.raises(TimeoutError, match=r"no result within 0\.01 s of the call"):
        next(results)
    failing = Cluster([b"a", b"b", b"c"], burst=3)
    failing.reader.fill()
    failure = Failure(1, "ValueError", "no")
    failing.chunks[0].settle(Settled(None, 0, [b"A", b""], [failure], []))
    results = failing.reader.read()
    assert next(results) == b"A"
    with pytest.raises(TaskFailed, match="no"):
        next(results)
    assert failing.cancelled == failing.chunks


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(1, "ValueError", "no"), TaskFailed),
        (Failure(1, "Cancelled", "no", State.CANCELLED), CancelledError),
    ],
)
def test_a_failure_raises_in_its_place_and_cancels_the_rest(failure, error):
    cluster = Cluster([b"a", b"b", b"c", b"d"], burst=2)
    cluster.reader.fill()
    cluster.settle(0, failure)
    results = cluster.reader.read()
    assert next(results) == b"a"
    with pytest.raises(error, match="no"):
        next(results)
    assert cluster.cancelled == cluster.chunks[1:]


def test_a_reader_that_leaves_early_cancels_the_rest():
    cluster = Cluster([b"a", b"b", b"c"], burst=1)
    cluster.reader.fill()
    cluster.settle(0)
    results = cluster.reader.read()
    assert next(results) == b"a"
    results.close()
    assert cluster.cancelled == cluster.chunks[1:]


def test_an_endless_source_is_read_a_window_ahead():
    taken = []
    cluster = Cluster((taken.append(n) or b"x" for n in iter(int, 1)), burst=1000)
    cluster.reader.fill()
    window = len(taken)
    assert WINDOW_TASKS <= window < WINDOW_TASKS + 1000
    results = cluster.reader.read()
    cluster.settle(0)
    assert next(results) == b"x"
    assert len(taken) == window + 1000


def test_large_payloads_travel_few_at_a_time():
    cluster = Cluster([b"x" * (MAX_RUN_BYTES // 2)] * 5, burst=1000)
    cluster.reader.fill()
    assert list(map(len, cluster.columns)) == [2, 2, 1]
    tight = Cluster([b"x" * 1000] * 4, burst=1000, message_bytes=8000)
    tight.reader.fill()
    assert list(map(len, tight.columns)) == [2, 2]
    assert run_bytes(8000) == 2000


def test_a_slow_reader_keeps_no_chunk_alive_that_it_has_read():
    cluster = Cluster([b"x"] * 10, burst=1)
    cluster.reader.fill()
    for number in range(10):
        cluster.settle(number)
    results = cluster.reader.read()
    for _ in range(5):
        next(results)
    first = cluster.chunks.pop(0)
    del cluster
    assert not [holder for holder in gc.get_referrers(first) if type(holder) is SimpleQueue]
    results.close()


def numpy_uint16(data):
    return pytest.importorskip("numpy").frombuffer(bytearray(data), "uint16")


@pytest.mark.parametrize("like", [bytes, bytearray, memoryview, numpy_uint16])
def test_a_buffer_is_a_payload_and_a_large_one_is_not_copied(like):
    assert as_payload(like(b"ab"), 100) == b"ab"
    large = like(b"ab" * UNCOPIED_BYTES)
    payload = as_payload(large, 8 * UNCOPIED_BYTES)
    assert payload == b"ab" * UNCOPIED_BYTES
    assert type(payload) is (bytes if like is bytes else memoryview)
    if like in (bytearray, numpy_uint16):
        assert payload.readonly
        large[0] = 0
        assert payload != b"ab" * UNCOPIED_BYTES


def test_a_large_buffer_with_gaps_is_refused_and_a_small_one_put_together():
    with pytest.raises(ClusterError, match="ascontiguousarray makes a copy that can"):
        as_payload(memoryview(b"ab" * UNCOPIED_BYTES)[::2], 8 * UNCOPIED_BYTES)
    assert as_payload(memoryview(b"abcd")[::2], 100) == b"ac"
    assert as_payload(memoryview(b"").cast("H"), 100) == b""


@pytest.mark.parametrize("wrong", ["text", None, 7, ["a"]])
def test_what_is_not_bytes_is_refused_before_it_travels(wrong):
    cluster = Cluster([b"a", wrong], burst=2)
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
        cluster.reader.fill()
    assert cluster.columns == []


def test_a_payload_that_no_message_can_carry_is_refused():
    assert as_payload(b"x" * 50, 100) == b"x" * 50
    cluster = Cluster([b"x" * 51], burst=2, message_bytes=100)
    with pytest.raises(ClusterError, match="51 bytes"):
        cluster.reader.fill()
