"""What Prometheus is told: real values of a real cluster, conventional names, gaps for unknown."""

import os
import re
import signal
import threading

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.cluster.serve.operations.served import DEADLINE_S, Site


def scrape(site):
    """By family, each sample's labels and value."""
    answer = site.ask("/metrics")
    assert answer.status == 200
    return {family.name: family for family in read_text(answer.text)}


def value(families, name, **labels):
    """The one sample of that name with these labels; None if there is none."""
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


def test_counts_of_tasks_are_those_of_the_coordinator(busy):
    families = scrape(busy)
    counters = busy.state.client.status().counters
    assert value(families, "perfkit_tasks_accepted_total") == counters["accepted"] >= 500
    assert value(families, "perfkit_tasks_ended_total", outcome="done") == counters["done"]
    assert value(families, "perfkit_tasks_ended_total", outcome="failed") == counters["failed"]
    assert value(families, "perfkit_tasks_ended_total", outcome="cancelled") == 0


def test_workers_tell_what_they_hold_and_finished(busy):
    families = scrape(busy)
    assert value(families, "perfkit_workers") == 2
    finished = families["perfkit_worker_finished_tasks"].samples
    assert {sample.labels["worker"] for sample in finished} == {"worker-0", "worker-1"}
    assert sum(sample.value for sample in finished) >= 500 + 9
    assert value(families, "perfkit_worker_resident_memory_bytes", worker="worker-0") == 30 << 20
    assert 0 <= value(families, "perfkit_worker_heartbeat_age_seconds", worker="worker-0") < 60


def test_cards_are_in_base_units_and_what_is_unknown_of_one_is_absent(busy):
    families = scrape(busy)
    first = {"worker": "worker-0", "gpu": "0"}
    assert value(families, "perfkit_gpu_busy_ratio", **first) == 0.42
    assert value(families, "perfkit_gpu_temperature_celsius", **first) == 61
    assert value(families, "perfkit_gpu_power_watts", **first) == 83.4
    assert value(families, "perfkit_gpu_memory_bytes", **first) == 8 << 30
    assert value(families, "perfkit_gpu_worker_engine_seconds_total", **first) > 0
    second = {"worker": "worker-0", "gpu": "1"}
    assert value(families, "perfkit_gpu_trouble", **second) == 0
    for name in ("busy_ratio", "temperature_celsius", "power_watts", "memory_bytes"):
        assert value(families, f"perfkit_gpu_{name}", **second) is None, name


def test_the_items_of_all_batches_are_those_of_the_requests(busy):
    families = scrape(busy)
    assert value(families, "perfkit_batch_items_sum", model="digits") == 18
    runs = value(families, "perfkit_batch_items_count", model="digits")
    assert runs == value(families, "perfkit_batch_items_bucket", model="digits", le="2.0") == 9
    assert value(families, "perfkit_batch_compute_seconds_total", model="digits") > 0


def test_requests_are_counted_by_model_protocol_and_code(busy):
    families = scrape(busy)
    digits = {"model": "digits", "protocol": "v2"}
    assert value(families, "perfkit_requests_total", code="200", **digits) == 9
    assert value(families, "perfkit_requests_total", code="400", **digits) == 1
    assert value(families, "perfkit_requests_total", code="404", model="other") == 1
    for name in ("perfkit_request_duration_seconds", "perfkit_request_queue_duration_seconds"):
        assert value(families, f"{name}_bucket", le="+Inf", **digits) == 9, "refusals have none"
        assert value(families, f"{name}_bucket", le="30.0", **digits) == 9
    assert value(families, "perfkit_request_items_sum", **digits) == 18
    latency_s = value(families, "perfkit_request_duration_seconds_sum", **digits)
    queue_s = value(families, "perfkit_request_queue_duration_seconds_sum", **digits)
    assert 0 <= queue_s < latency_s
    assert value(families, "perfkit_requests_in_flight") == 0
    assert value(families, "perfkit_requests_queued") == 0


def test_openmetrics_is_answered_to_those_who_ask_for_it_and_is_valid(busy):
    from urllib.request import Request, urlopen

    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urlopen(Request(f"{busy.url}/metrics", headers=accept), timeout=DEADLINE_S) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        families = list(read_openmetrics(answer.read().decode()))
    assert {"perfkit_requests", "perfkit_workers"} <= {family.name for family in families}


def test_names_follow_the_conventions_and_all_have_a_text(busy):
    for name, family in scrape(busy).items():
        assert len(family.documentation.split()) >= 2, name
        assert re.fullmatch("(perfkit|process|python)_[a-z_]+", name), name
        assert not re.search("_(ms|ns|pct|percent|kb|mb|count|sum|bucket)$", name), name
        labels = {label for sample in family.samples for label in sample.labels}
        assert not labels & {"task", "client", "pid", "epoch", "path", "error"}, name
        for sample in family.samples:
            if name.startswith("perfkit"):
                is_counter = sample.name.endswith("_total")
                assert is_counter == (family.type == "counter"), sample


def test_the_process_itself_is_measured(busy):
    families = scrape(busy)
    assert value(families, "process_resident_memory_bytes") > 1 << 20
    assert value(families, "process_open_fds") > 3


def test_the_api_as_a_process_has_all_of_it(api):
    site = Site(api.url)
    assert site.ask("/").headers["content-type"].startswith("text/html")
    assert value(scrape(site), "perfkit_workers") == 1
    assert site.ask("/cluster/health").json == {"status": "ok", "workers": 1}
    assert site.ask("/cluster/live").json["status"]["workers"][0]["models"] == ["digits"]


def test_a_silent_coordinator_does_not_block_a_scrape_and_its_values_go_missing(
    fleet, busy, until, impatient
):
    scraped = scrape(busy)
    assert value(scraped, "perfkit_coordinator_up") == 1
    of_cluster = {
        name for name in scraped if name.startswith(("perfkit_worker", "perfkit_task", "perfkit_g"))
    }
    os.kill(fleet.coordinator_pid, signal.SIGSTOP)
    try:
        ages = [value(scrape(busy), "perfkit_status_age_seconds") for _ in range(3)]
        assert ages == sorted(ages)
        until(lambda: value(scrape(busy), "perfkit_coordinator_up") == 0)
        stale = scrape(busy)
    finally:
        os.kill(fleet.coordinator_pid, signal.SIGCONT)
    assert not of_cluster & stale.keys(), "unknown is absent"
    assert value(stale, "perfkit_status_age_seconds") > ages[-1]
    assert "perfkit_requests" in stale, "the API's own figures stay"
    until(lambda: value(scrape(busy), "perfkit_workers") == 2)


def test_scrapes_from_many_threads_at_once_are_all_whole(busy):
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(scrape(busy)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == 8
    assert len(set(found)) == 1
