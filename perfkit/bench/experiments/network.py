"""The network: what a task adds to its payload, and what the connections do over time.

Messages and bytes are the coordinator's own counts, on the way in (from clients and workers) and
out. A payload of an echo crosses the coordinator twice in each direction. Times stand beside those
of a bare forwarder, which sends the same payload through three processes and knows no tasks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from statistics import median

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.vocabulary.printable import count_of
from perfkit.bench.bare import Forwarder
from perfkit.bench.experiments.setting import (
    Experiment,
    Measurement,
    Profile,
    Setting,
    percentiles,
    thinned,
)
from perfkit.bench.workloads.load import (
    TRAFFIC,
    Work,
    counting_cluster,
    echo_work,
    map_s,
    one_by_one_ms,
    traffic_of,
)
from perfkit.bench.workloads.rounds import Say
from perfkit.bench.workloads.watching import watch_status
from perfkit.evidence.samples import Interval, percentile_interval
from perfkit.evidence.stats import compare_blocks
from perfkit.evidence.text import duration, quantity, size
from perfkit.profile.network import capture_packets, watch_socket

SIZES_BYTES = (0, 200, 1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20)
#: The size of the experiment's own figure.
HEADLINE_BYTES = 200
#: A round has fewer large payloads, but this many.
ROUND_BYTES, ROUND_TASKS_MIN = 8 << 20, 8
#: How often an echo's payload crosses the coordinator's socket.
CROSSINGS = 4
BLOCKS = 8
STREAM_S: Mapping[Profile, float] = {"quick": 2.0, "full": 30.0}
#: Tasks of one captured round, and of the check of the new cluster.
CAPTURED_TASKS = AFTERWARDS_TASKS = 100


def overhead(setting: Setting) -> Measurement:
    """Bytes of a task of 200 B that are not its payload; and all counts by size of the payload."""
    columns: dict[str, list[float | None]] = {}
    with (
        counting_cluster(setting.spec, setting.workers) as client,
        Forwarder(1, messages_held=1) as bare,
    ):
        for payload_bytes in SIZES_BYTES:
            row = _costs(client, bare, _payloads(setting, payload_bytes), payload_bytes)
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            added = quantity(row["overhead_bytes_per_task"], "B")
            setting.say(f"payloads of {size(payload_bytes)}: {added} more per task")
    added_bytes = columns["overhead_bytes_per_task"][SIZES_BYTES.index(HEADLINE_BYTES)]
    exact = Interval(added_bytes, added_bytes, added_bytes, 0.95, "exact: the least of 3 counts")
    at_headline = {
        name: values[SIZES_BYTES.index(HEADLINE_BYTES)]
        for name, values in columns.items()
        if name.endswith("_per_task")
    }
    return Measurement(
        [] if added_bytes is None else [added_bytes],
        exact,
        counters=at_headline,
        series=columns,
        parameters={
            "payload_bytes": HEADLINE_BYTES,
            "crossings_of_a_payload": CROSSINGS,
            "bare": "a forwarder between three processes",
        },
    )


def _payloads(setting: Setting, payload_bytes: int) -> Work:
    tasks = min(setting.tasks, max(ROUND_TASKS_MIN, ROUND_BYTES // max(1, payload_bytes)))
    if payload_bytes:
        return echo_work(tasks, setting.seed, payload_bytes)
    return Work("noop", [b""] * tasks, [b""] * tasks)


def _costs(
    client: Client, bare: Forwarder, work: Work, payload_bytes: int
) -> dict[str, float | None]:
    """One size: counts per task one at a time and in a map, and the median time beside bare."""
    one_by_one_ms(client, work)
    alone = traffic_of(client, work, one_by_one_ms)
    mapped = traffic_of(client, work, map_s)
    row: dict[str, float | None] = {"payload_bytes": payload_bytes}
    for prefix, counts in (("", alone), ("mapped_", mapped)):
        row |= {f"{prefix}{name}_per_task": counts[name] for name in TRAFFIC}
        whole = counts["bytes_in"] + counts["bytes_out"]
        added = whole - CROSSINGS * payload_bytes
        row |= {f"{prefix}overhead_bytes_per_task": added, f"{prefix}overhead_share": added / whole}
    row |= percentiles("task_ms", one_by_one_ms(client, work), 50)
    row |= percentiles("bare_ms", bare.one_by_one_ms(work), 50)
    return row


def network(setting: Setting) -> Measurement:
    """The round trip of one task in ms beside a bare one; traffic, queues and events over time.

    One task at a time, then a stream; then the coordinator is killed and a new cluster takes its
    place. Every result is checked, those of the new cluster too.
    """
    work = echo_work(setting.tasks, setting.seed)
    with (
        LocalCluster(setting.workers, setting.spec) as local,
        Client(local.endpoint, spec=setting.spec) as client,
        Client(local.endpoint, spec=setting.spec) as asking,
        Forwarder(1, messages_held=1) as bare,
        watch_socket(client.socket) as events,
        watch_status(asking) as status,
    ):
        map_s(client, work.warm_up)
        rtt_ms, bare_ms = _round_trips(client, bare, work, setting.say)
        streamed = _stream(client, work, STREAM_S[setting.profile], setting.say)
        packets, capture = _capture(local, client, setting)
        replaced_s = _replace(local, client, setting)
    ratio = compare_blocks(bare_ms, rtt_ms, direction="lower", seed=setting.seed)
    took_ms, bare_took_ms = list(chain(*rtt_ms)), list(chain(*bare_ms))
    return Measurement(
        took_ms,
        percentile_interval(took_ms, 50),
        counters={
            **percentiles("rtt_ms", took_ms, 95, 99),
            **percentiles("bare_rtt_ms", bare_took_ms, 50, 95, 99),
            "rtt_over_bare": ratio.ratio,
            "rtt_over_bare_low": ratio.low,
            "rtt_over_bare_high": ratio.high,
            "streamed_tasks": streamed,
            "answered_after_replacement_s": replaced_s,
            **packets,
            **{f"zmq_{name}": count for name, count in sorted(events.counts.items())},
        },
        series={
            "at_s": status.at_s,
            **{f"{name}_per_s": status.rates_per_s(name) for name in TRAFFIC},
            **status.depths(),
            **{f"zmq_{name}": times for name, times in events.series().items()},
            "rtt_ms": thinned(took_ms),
            "bare_rtt_ms": thinned(bare_took_ms),
        },
        parameters={
            **work.facts,
            "profile": setting.profile,
            "bare": "a forwarder between three processes",
            "monitored": "the client's socket",
            "pcap": capture,
        },
    )


def _round_trips(
    client: Client, bare: Forwarder, work: Work, say: Say
) -> tuple[list[list[float]], list[list[float]]]:
    """Round trips in ms through the cluster and the bare forwarder, blocks of each in turns."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for number, block in enumerate(work.part(0, len(work) // 2 or 1).blocks(BLOCKS), 1):
        ours.append(one_by_one_ms(client, block))
        theirs.append(bare.one_by_one_ms(block))
        both = (quantity(median(blocks[-1]), "ms") for blocks in (ours, theirs))
        say(f"block {number}, {', bare '.join(both)}")
    return ours, theirs


def _stream(client: Client, work: Work, seconds: float, say: Say) -> int:
    """Map the work again and again for some seconds; returns the number of tasks."""
    say(f"a stream for {duration(seconds)}")
    until_s, tasks = time.perf_counter() + seconds, 0
    while time.perf_counter() < until_s:
        map_s(client, work)
        tasks += len(work)
    return tasks


def _capture(
    local: LocalCluster, client: Client, setting: Setting
) -> tuple[dict[str, float | int | None], str]:
    """Packets and bytes on the wire for each of some lone tasks, and where they are or why not."""
    if not local.endpoint.startswith("tcp://"):
        return {}, "not captured: the transport is not TCP"
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "perfkit")
    work = echo_work(CAPTURED_TASKS, setting.seed)
    port = int(local.endpoint.rpartition(":")[2])
    with capture_packets(port, state / f"network-{setting.spec.name}.pcap") as capture:
        one_by_one_ms(client, work)
    if capture.reason:
        setting.say(capture.reason)
        return {}, capture.reason
    setting.say(f"{count_of(capture.packets, 'packet')} in {capture.path}")
    per_task: dict[str, float | int | None] = {
        "packets_per_task": capture.packets / len(work),
        "wire_bytes_per_task": capture.wire_bytes / len(work),
    }
    return per_task, "network-SPEC.pcap in perfkit's folder of XDG_STATE_HOME"


def _replace(local: LocalCluster, client: Client, setting: Setting) -> float | None:
    """Kill the coordinator, stop its workers, and start another cluster at the same endpoint.

    Returns the seconds from then until the client's next tasks were done; None for a socket file,
    which goes with its cluster.
    """
    if not local.endpoint.startswith("tcp://"):
        return None
    work = echo_work(AFTERWARDS_TASKS, setting.seed)
    local.coordinator.kill()
    local.stop()
    setting.say("the coordinator was killed; another cluster takes its place")
    with LocalCluster(setting.workers, local.spec, bind=local.endpoint):
        return map_s(client, work)


EXPERIMENTS = (
    Experiment(
        "overhead", "bytes and messages of a task by payload size, TASKS of each", "bytes",
        {"quick": 50, "full": 300}, 10_000, "lower", overhead, cluster_only=True,
    ),
    Experiment(
        "network", "round trip beside a bare one; traffic, queues, socket events over time", "ms",
        {"quick": 2_000, "full": 20_000}, 200_000, "lower", network, cluster_only=True,
    ),
)  # fmt: skip
