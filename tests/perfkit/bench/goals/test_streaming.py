"""One copy of a large result at either end and none between; and the measurement can fail."""

import msgspec
import pytest

from cluster.spec import BASELINE, ClusterSpec
from cluster.work.workloads import pattern
from perfkit.bench.goals import streaming
from perfkit.bench.goals.streaming import check_pattern, stream_growth_bytes
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.optimized.specs import OPTIMIZED

MIB = 1 << 20
SPECS = pytest.mark.parametrize("spec", [BASELINE, OPTIMIZED], ids=lambda spec: spec.name)


def growth_bytes(spec: ClusterSpec, result_bytes: int) -> dict[str, int]:
    found = stream_growth_bytes(spec, result_bytes)
    assert [*found] == ["coordinator", "worker", "client"]
    if None in found.values():
        pytest.skip("this kernel does not tell, or not reset, a process's peak RSS")
    return {role: growth for role, growth in found.items() if growth is not None}


@SPECS
def test_a_streamed_result_is_held_at_its_ends_alone(spec: ClusterSpec) -> None:
    limits = msgspec.structs.replace(spec.limits, stream_bytes=MIB, chunk_bytes=MIB // 4)
    size = 48 * MIB
    growth = growth_bytes(msgspec.structs.replace(spec, limits=limits), size)
    assert growth["coordinator"] < size / 2
    assert size / 2 < growth["worker"] < 1.5 * size
    assert size / 2 < growth["client"] < 1.5 * size


@pytest.mark.slow
@SPECS
def test_a_quarter_of_a_gigabyte_goes_past_the_coordinator(spec: ClusterSpec) -> None:
    size = 256 * MIB
    growth = growth_bytes(spec, size)
    assert growth["coordinator"] < 64 * MIB
    assert growth["worker"] < 1.25 * size
    assert growth["client"] < 1.25 * size


def test_a_result_that_is_not_streamed_is_seen_to_be_held_by_the_coordinator() -> None:
    size = 24 * MIB
    limits = msgspec.structs.replace(OPTIMIZED.limits, stream_bytes=64 * MIB)
    growth = growth_bytes(msgspec.structs.replace(OPTIMIZED, limits=limits), size)
    assert growth["coordinator"] > size / 2


@pytest.mark.parametrize(
    ("result", "complaint"),
    [(b"", "of 0 bytes instead of 2000000"), (bytes(2_000_000), "wrong bytes after byte 0")],
)
def test_a_wrong_result_is_not_measured(result: bytes, complaint: str) -> None:
    check_pattern(bytes(pattern(b"2000000")), 2_000_000)
    with pytest.raises(WrongResult, match=complaint):
        check_pattern(result, 2_000_000)


def test_chunks_in_the_wrong_order_are_noticed() -> None:
    right = bytes(pattern(b"%d" % (3 * MIB)))
    mixed = right[:MIB] + right[2 * MIB :] + right[MIB : 2 * MIB]
    with pytest.raises(WrongResult, match="wrong bytes after byte 1028096"):
        check_pattern(mixed, 3 * MIB)


def test_a_memory_that_the_kernel_does_not_tell_is_unknown() -> None:
    assert streaming._reset_peak("none") is None
    assert streaming._growth_bytes("none", 5) is None


def test_a_client_that_fails_says_why() -> None:
    with pytest.raises(ExperimentError, match=r"the client process failed: .*'nowhere'"):
        streaming._fetch_afresh("nowhere", BASELINE, 1)
