"""``/metrics`` for Prometheus: the API's requests, the cluster's last status, and this process.

prometheus_client is imported at the first scrape: it takes 3 MB and 0.1 s. A scrape waits for
nobody, as it reads the status that the backend has. What is unknown is absent and never 0.

Names follow https://prometheus.io/docs/practices/naming/; the format is Prometheus's text, or
OpenMetrics where the scraper asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.http.tokens import Role
from cluster.serve.operations.measures import ITEMS, LATENCY_S, Histogram, Measures, Series
from cluster.serve.state import State, authorise
from cluster.serve.statistics import sum_sizes
from cluster.vocabulary.status import HostStatus, KindStatus, Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad, KindBatches
from cluster.vocabulary.task import State as TaskState

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

#: label values and a value, which is absent if it is None
Sample: TypeAlias = tuple[tuple[str, ...], float | None]

ENDS = TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD_LETTERED
KINDS_MAX = 200
#: upper bounds of the histogram of batches
BATCH_ITEMS = tuple(1 << place for place in range(11))
#: counters of the coordinator that the tables below name; the others are incidents
NAMED = {
    *(end.value for end in ENDS), "accepted", "refused", "retried", "redelivered", "worker_deaths",
    "messages_in", "messages_out", "bytes_in", "bytes_out",
}  # fmt: skip


class Family(NamedTuple):
    """A metric that comes from a status; its name's end says whether it counts up."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Status], Iterable[Sample]]


def _one(value: Callable[[Status], float | None]) -> Callable[[Status], list[Sample]]:
    return lambda status: [((), value(status))]


def _counter(name: str) -> Callable[[Status], list[Sample]]:
    return _one(lambda status: status.counters[name])


def _directions(what: str) -> Callable[[Status], list[Sample]]:
    return lambda status: [((way,), status.counters[f"{what}_{way}"]) for way in ("in", "out")]


CLUSTER: tuple[Family, ...] = (
    Family("workers", "Workers that have joined.", (), _one(lambda s: len(s.workers))),
    Family("workers_draining", "Workers that get no more tasks.", (),
           _one(lambda s: sum(worker.draining for worker in s.workers))),
    Family("clients", "Clients that the coordinator knows.", (), _one(lambda s: s.clients)),
    Family("policy_info", "The assignment policy in use.", ("policy",),
           lambda s: [((s.policy,), 1)]),
    Family("tasks_queued", "Tasks that wait for a worker, by priority.", ("priority",),
           lambda s: [((priority,), n) for priority, n in s.queued.items()]),
    Family("tasks_assigned", "Tasks that workers hold.", (), _one(lambda s: s.assigned)),
    Family("tasks_delayed", "Tasks that wait for their next attempt.", (),
           _one(lambda s: s.delayed)),
    Family("tasks_payload_bytes", "Payloads of tasks that are queued or assigned.", (),
           _one(lambda s: s.payload_bytes)),
    Family("results_unread_bytes", "Results that clients have not read.", (),
           _one(lambda s: s.retained_bytes)),
    Family("tasks_accepted_total", "Tasks that the coordinator accepted.", (),
           _counter("accepted")),
    Family("tasks_refused_total", "Tasks that the coordinator refused at a bound.", (),
           _counter("refused")),
    Family("tasks_ended_total", "Tasks that ended, by how.", ("outcome",),
           lambda s: [((end.value,), s.counters[end.value]) for end in ENDS]),
    Family("tasks_retried_total", "Attempts after one that failed.", (), _counter("retried")),
    Family("tasks_redelivered_total", "Tasks that went to another worker, as theirs was lost.", (),
           _counter("redelivered")),
    Family("kind_tasks", "Open tasks, the 200 kinds with most; queued counts those that wait for "
           "their next attempt.", ("kind", "state"),
           lambda s: [
               sample for k in _kinds(s) for sample in (
                   ((k.kind, "queued"), k.queued), ((k.kind, "assigned"), k.assigned),
               )
           ]),
    Family("kind_workers", "Workers that offer a kind of task.", ("kind",),
           lambda s: [((k.kind,), k.workers) for k in _kinds(s)]),
    Family("worker_deaths_total", "Workers that were lost while they held tasks.", (),
           _counter("worker_deaths")),
    Family("coordinator_messages_total", "Messages of the coordinator.", ("direction",),
           _directions("messages")),
    Family("coordinator_bytes_total", "Bytes of the coordinator's messages.", ("direction",),
           _directions("bytes")),
    Family("coordinator_incidents_total", "What else the coordinator counts, once it happened.",
           ("incident",),
           lambda s: [((name,), n) for name, n in sorted(s.counters.items()) if name not in NAMED]),
)  # fmt: skip

HISTOGRAMS: tuple[tuple[str, str, Sequence[float], Callable[[Series], Histogram]], ...] = (
    ("request_duration_seconds", "Time from a request to its answer, but for refusals.",
     LATENCY_S, lambda s: s.latency),
    ("request_queue_duration_seconds", "Time that a request waited before it was handed in.",
     LATENCY_S, lambda s: s.queue_time),
    ("request_items", "Items (rows, texts) of a request.", ITEMS, lambda s: s.items),
)  # fmt: skip

WORKERS: tuple[tuple[str, str, Callable[[WorkerStatus], float | None]], ...] = (
    ("worker_capacity_tasks", "Tasks that a worker runs at once.", lambda w: w.capacity),
    ("worker_credit_tasks", "Tasks that a worker may hold.", lambda w: w.credit),
    ("worker_held_tasks", "Tasks that a worker holds.", lambda w: w.held),
    ("worker_finished_tasks_total", "Tasks that a worker finished.", lambda w: w.finished),
    ("worker_heartbeat_age_seconds", "Time since a worker's last message.", lambda w: w.silent_s),
    ("worker_draining", "Whether a worker gets no more tasks.", lambda w: w.draining),
    ("worker_trouble", "Whether a worker can't load a model; /cluster/workers says which.",
     lambda w: bool(w.trouble)),
    ("worker_resident_memory_bytes", "Resident memory of a worker's process.",
     lambda w: w.load.rss_bytes),
    ("worker_host_memory_free_bytes", "Free memory of a worker's host.",
     lambda w: w.load.memory_free_bytes),
)  # fmt: skip

#: the quantiles of a worker's newest tasks
QUANTILES: tuple[tuple[str, Callable[[WorkerStatus], float | None]], ...] = (
    ("0.5", lambda w: w.service_s_p50), ("0.99", lambda w: w.service_s_p99),
)  # fmt: skip

GPUS: tuple[tuple[str, str, Callable[[Gpu, GpuLoad], float | None]], ...] = (
    ("gpu_memory_bytes", "Memory of a card that programs can use.",
     lambda gpu, _: gpu.memory_bytes),
    ("gpu_memory_free_bytes", "Free memory of a card.", lambda _, load: load.free_bytes),
    ("gpu_busy_ratio", "How busy a card is, from 0 to 1.", lambda _, load: _share(load.busy_pct)),
    ("gpu_temperature_celsius", "Temperature of a card.", lambda _, load: load.temperature_c),
    ("gpu_power_watts", "Power that a card draws.", lambda _, load: load.power_w),
    ("gpu_asleep", "Whether a card sleeps, as nothing uses it.", lambda _, load: load.asleep),
    ("gpu_trouble", "Whether a card can't work; /cluster/workers says why.",
     lambda _, load: load.trouble is not None),
    ("gpu_worker_memory_bytes", "Memory of a card that its worker's process uses.",
     lambda _, load: load.own_memory_bytes),
    ("gpu_worker_engine_seconds_total", "Time of a card's engines that its worker has used.",
     lambda _, load: None if load.own_engine_ns is None else load.own_engine_ns / 1e9),
)  # fmt: skip

SUPERVISORS: tuple[tuple[str, str, Callable[[HostStatus], float | None]], ...] = (
    ("supervisor_workers", "Workers that a supervisor looks after.", lambda h: h.workers),
    ("supervisor_restarts_total", "Workers that a supervisor started again.",
     lambda h: h.restarts),
    ("supervisor_heartbeat_age_seconds", "Time since a supervisor's last message.",
     lambda h: h.silent_s),
    ("supervisor_trouble", "Whether a supervisor gave something up; /cluster/status says what.",
     lambda h: bool(h.trouble)),
)  # fmt: skip


def _kinds(status: Status) -> list[KindStatus]:
    """The kinds with the most open tasks: every name is a series of its own."""
    return nlargest(KINDS_MAX, status.kinds, key=lambda kind: kind.queued + kind.assigned)


def _share(pct: float | None) -> float | None:
    return None if pct is None else pct / 100


def _by_worker(value: Callable[[WorkerStatus], float | None]) -> Callable[[Status], list[Sample]]:
    return lambda status: [((w.worker, w.host), value(w)) for w in status.workers]


def _quantiles(status: Status) -> list[Sample]:
    return [
        ((w.worker, w.host, share), value(w)) for w in status.workers for share, value in QUANTILES
    ]


def _by_card(value: Callable[[Gpu, GpuLoad], float | None]) -> Callable[[Status], list[Sample]]:
    """A card whose worker has not told its state has only what was announced."""

    def samples(status: Status) -> list[Sample]:
        return [
            ((w.worker, w.host, str(number)), value(gpu, load))
            for w in status.workers
            for number, (gpu, load) in enumerate(zip(w.gpus, w.load.gpus, strict=False))
        ]

    return samples


def _by_supervisor(value: Callable[[HostStatus], float | None]) -> Callable[[Status], list[Sample]]:
    return lambda status: [((h.host,), value(h)) for h in status.hosts]


FAMILIES: tuple[Family, ...] = (
    *CLUSTER,
    *(Family(name, text, ("worker", "host"), _by_worker(f)) for name, text, f in WORKERS),
    Family(
        "worker_task_seconds",
        "Time of a worker's newest tasks, by quantile.",
        ("worker", "host", "quantile"),
        _quantiles,
    ),
    *(Family(name, text, ("worker", "host", "gpu"), _by_card(f)) for name, text, f in GPUS),
    *(Family(name, text, ("supervisor",), _by_supervisor(f)) for name, text, f in SUPERVISORS),
)


class ApiCollector:
    """Gives prometheus_client the metrics of one application."""

    def __init__(self, state: State, measures: Measures) -> None:
        self._state = state
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        yield from self._requests()
        backend = self._state.backend
        yield from _batches(backend.batches() or ())
        if isinstance(backend, ClusterBackend):
            yield from _cluster(backend)

    def _requests(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        admission = self._state.dispatcher.admission
        yield GaugeMetricFamily(
            "perfkit_requests_queued", "Tasks of requests that wait in this API for their turn.",
            value=admission.queued,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "perfkit_requests_in_flight", "Tasks of requests that this API has handed in.",
            value=admission.in_flight,
        )  # fmt: skip
        series = self._measures.series.copy()
        requests = CounterMetricFamily(
            "perfkit_requests",
            "Requests for a model that were answered, by HTTP status: 429 is over a client's "
            "bound, 503 over what the cluster can do in time; an unknown model is 'other'.",
            labels=("model", "protocol", "code"),
        )
        for pair, one in series.items():
            for code, n in one.codes.copy().items():
                requests.add_metric((*pair, str(code)), n)
        yield requests
        for name, text, bounds, histogram in HISTOGRAMS:
            family = HistogramMetricFamily(f"perfkit_{name}", text, labels=("model", "protocol"))
            for pair, one in series.items():
                found = histogram(one)
                family.add_metric(pair, found.cumulative(bounds), found.total)
            yield family


def _batches(told: Sequence[KindBatches]) -> Iterator[Metric]:
    """How the batches of each model formed, of all its versions together."""
    from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

    items = HistogramMetricFamily(
        "perfkit_batch_items", "Items (rows, texts) that workers ran together.", labels=("model",)
    )
    seconds = CounterMetricFamily(
        "perfkit_batch_compute_seconds", "Time of workers in runs of a model.", labels=("model",)
    )
    models: dict[str, list[KindBatches]] = {}
    for one in told:
        models.setdefault(one.kind.partition("/")[0], []).append(one)
    for name, kinds in models.items():
        found, busy_s = Histogram(BATCH_ITEMS), 0.0
        for place, size in enumerate(sum_sizes(kinds)):
            found.counts[min(place, len(BATCH_ITEMS))] += size.runs
            found.total += size.items
            busy_s += size.busy_s
        items.add_metric((name,), found.cumulative(BATCH_ITEMS), found.total)
        seconds.add_metric((name,), busy_s)
    yield from (items, seconds) if models else ()


def _cluster(backend: ClusterBackend) -> Iterator[Metric]:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
    )

    status, answered_at_s = backend.status, backend.answered_at_s
    yield GaugeMetricFamily(
        "perfkit_coordinator_up", "Whether the coordinator answered the last question.",
        value=status is not None,
    )  # fmt: skip
    if answered_at_s is not None:
        yield GaugeMetricFamily(
            "perfkit_status_age_seconds", "Time since the coordinator's last answer.",
            value=time.monotonic() - answered_at_s,
        )  # fmt: skip
    if status is None:
        return
    for name, text, labels, samples in FAMILIES:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(f"perfkit_{name}", text, labels=labels)
        for values, value in samples(status):
            if value is not None:
                family.add_metric(values, value)
        if family.samples:
            yield family


def routes(state: State, measures: Measures) -> list[BaseRoute]:
    """``/metrics``, for those who may read. It runs in a thread: thousands of workers take time."""
    registry: CollectorRegistry | None = None

    def metrics(request: Request) -> Response:
        nonlocal registry
        authorise(state, request.scope, Role.READ)
        from prometheus_client.exposition import choose_encoder

        registry = registry or _registry(state, measures)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=None, headers={"content-type": content_type})

    return [Route("/metrics", metrics)]


def _registry(state: State, measures: Measures) -> CollectorRegistry:
    """What one application exposes; a registry of its own, so that two don't mix."""
    from prometheus_client import (
        CollectorRegistry,
        GCCollector,
        PlatformCollector,
        ProcessCollector,
    )

    registry = CollectorRegistry()
    registry.register(ApiCollector(state, measures))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
