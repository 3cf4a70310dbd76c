"""Overhead and network on a real cluster: exact counts, connections that come and go, packets."""

import struct
from pathlib import Path

import pytest

from cluster import BASELINE
from perfkit.bench.experiments.catalogue import run
from perfkit.bench.experiments.network import CROSSINGS, SIZES_BYTES
from perfkit.evidence.results import Result, decode, encode
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile import network as instrument


@pytest.fixture(scope="module")
def overhead() -> Result:
    return run("overhead", spec=BASELINE, workers=1, tasks=8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        patch.setattr("perfkit.bench.experiments.network.STREAM_S", {"quick": 0.3})
        return run("network", spec=OPTIMIZED, workers=1, tasks=40), state


def test_what_is_not_payload_hardly_depends_on_its_size(overhead: Result) -> None:
    series = overhead.series
    assert series["payload_bytes"] == list(SIZES_BYTES)
    added = series["overhead_bytes_per_task"]
    assert overhead.value == overhead.low == overhead.high == added[1]
    assert 0 < max(added) - min(added) < 64
    shares = series["overhead_share"]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)


def test_bytes_in_both_directions_hold_the_payload_twice_each(overhead: Result) -> None:
    series = overhead.series
    for payload, inward, outward in zip(
        series["payload_bytes"],
        series["bytes_in_per_task"],
        series["bytes_out_per_task"],
        strict=True,
    ):
        assert min(inward, outward) > payload * CROSSINGS / 2
    assert set(series["messages_in_per_task"]) == {2}
    assert set(series["messages_out_per_task"]) == {3}


def test_the_times_of_a_task_stand_beside_bare_ones(overhead: Result) -> None:
    assert all(ms > 0 for ms in (*overhead.series["task_ms_p50"], *overhead.series["bare_ms_p50"]))
    assert decode(encode(overhead)) == overhead


def test_round_trips_stand_beside_bare_ones(network: tuple[Result, Path]) -> None:
    result, _ = network
    assert len(result.samples) == len(result.series["bare_rtt_ms"]) == 20
    assert result.counters["rtt_over_bare"] > 0
    assert result.counters["streamed_tasks"] % 40 == 0 < result.counters["streamed_tasks"]


def test_traffic_and_queues_are_followed_over_time(network: tuple[Result, Path]) -> None:
    series = network[0].series
    names = ["messages_in_per_s", "bytes_out_per_s", "queued_tasks", "assigned_tasks"]
    assert {len(series[name]) for name in names} == {len(series["at_s"])}
    assert series["messages_in_per_s"][0] is None
    assert series["at_s"] == sorted(series["at_s"])


def test_a_cluster_that_is_replaced_is_seen_on_the_clients_socket(
    network: tuple[Result, Path],
) -> None:
    counters, series = network[0].counters, network[0].series
    for name in ("disconnected", "connected", "handshake_succeeded"):
        assert counters[f"zmq_{name}"] == len(series[f"zmq_{name}_at_s"]) >= 1
    assert series["zmq_disconnected_at_s"][0] < series["zmq_handshake_succeeded_at_s"][-1]
    assert counters["answered_after_replacement_s"] > 0


def test_a_capture_is_a_pcap_file_or_has_a_reason(network: tuple[Result, Path]) -> None:
    result, state = network
    said = result.parameters["pcap"]
    if said.startswith("not captured"):
        assert "CAP_NET_RAW" in said
        assert "packets_per_task" not in result.counters
        return
    assert str(state) not in said
    data = (state / "perfkit" / "network-optimized.pcap").read_bytes()
    magic, *_, kept, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, kept, link) == (0xA1B2C3D4, instrument.KEPT_BYTES, 1)
    # A task crosses the loopback interface at least four times.
    assert result.counters["packets_per_task"] >= 4
    assert result.counters["wire_bytes_per_task"] > CROSSINGS * 200
