"""Claims beside measurements: what the sentences say must follow from the numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfkit.bench.experiments.roles import RoleTable, RoleUse
from perfkit.evidence.verdicts import Verdict
from perfkit.profile.latency import waterfall
from perfkit.report.engine import headlines
from perfkit.report.stories import baseline
from perfkit.report.stories.baseline import Finding
from perfkit.report.stories.bottlenecks import Bottlenecks, HotFunction
from tests.perfkit.report.stories.made_up import interval, result

FACTS = {"payload_bytes": 200, "model": "digits", "provider": "CPU", "policy": "p"}
MESSAGES = {"messages_in_per_task": 2.0, "messages_out_per_task": 3.0}
THROUGHPUT = result("throughput", 2_000, 1_500, 2_500, parameters=FACTS, counters=MESSAGES)
LATENCY = result("latency", 20, 18, 22, "ms", parameters=FACTS, counters={"latency_ms_p99": 60.0})
SELECTION = result("selection", 500, 400, 1_100, "µs", parameters=FACTS, workers=100)
ROLES = RoleTable(
    (
        RoleUse("coordinator", 1, interval(200.0, 100.0, 400.0), interval(30e6, 29e6, 31e6)),
        RoleUse("worker", 2, interval(300.0, 290.0, 310.0), interval(600e6, 590e6, 610e6)),
        RoleUse("API", 0, note="not started"),
    ),
    "echo",
    100,
    THROUGHPUT,
)
SERVED = RoleTable(
    (RoleUse("worker with digits", 2, rss_bytes=interval(80e6, 79e6, 81e6)),),
    "digits",
    10,
    THROUGHPUT,
)
TABLE = (
    baseline.about_throughput(THROUGHPUT)
    + baseline.about_latency(LATENCY)
    + baseline.about_selection(SELECTION)
    + baseline.about_memory(ROLES, SERVED)
)
TRACE = waterfall([(n, n + 0.001, n + 0.001, n + 0.004, n + 0.005, n + 0.006, n + 0.007)
                   for n in range(1, 10)])  # fmt: skip
SEND = HotFunction(
    "send", "zmq/sugar/socket.py", 638, 6.0, interval(50.0, 40.0, 60.0), interval(0.25, 0.2, 0.3)
)
HOT = Bottlenecks((SEND,), interval(200.0), interval(30.0), runs=3, tasks=100)


def test_full_measures_more_of_everything_and_the_smallest_run_has_enough() -> None:
    quick, full, least = (
        baseline.task_counts(profile, tasks)
        for profile, tasks in (("quick", 4_000), ("full", 4_000), ("quick", 20))
    )
    assert quick["throughput"] == 4_000
    assert full == {name: 5 * count for name, count in quick.items()}
    assert (least["latency"], least["single_items"], least["choices"]) == (20, 10, 100)


def test_each_claim_is_judged_by_the_whole_interval() -> None:
    assert {row.what: row.verdict for row in TABLE.rows} == {
        "Message throughput": Verdict.MET,
        "Task throughput": Verdict.MET,
        "Task overhead": Verdict.MISSED,
        "Worker selection": Verdict.INCONCLUSIVE,
        "Coordinator memory": Verdict.MET,
        "Worker memory": Verdict.MISSED,
        "Worker memory with a model": Verdict.MEASURED,
        "API memory": Verdict.INCONCLUSIVE,
    }


def test_messages_are_tasks_times_what_each_of_them_costs() -> None:
    figure = TABLE.rows[0].figure
    assert (figure.value, figure.low, figure.high) == (10_000.0, 7_500.0, 12_500.0)
    uncounted = baseline.about_throughput(result("throughput"))
    assert uncounted.rows[0].figure.value is None


@pytest.mark.parametrize(
    "sentence",
    [
        "Task throughput: claimed 100 tasks/s, measured 2,000 tasks/s (1,500 to 2,500): "
        "20 × the claim, so it is met.",
        "Task overhead: claimed ~15 ms, measured 20 ms (18 to 22): 1.333 × the claim, so it is "
        "missed.",
        "Worker selection: claimed < 1 ms, measured 0.5 ms (0.4 to 1.1); the interval does not "
        "decide whether that holds.",
        "Worker memory with a model: claimed ~500 MB + model, measured 80 MB (79 to 81).",
        "API memory: claimed ~200 MB; not measured here, the API is not started.",
    ],
)
def test_a_sentence_says_what_the_numbers_say(sentence: str) -> None:
    assert sentence in TABLE.words.sentences


def test_a_figure_without_an_interval_decides_nothing() -> None:
    finding = Finding("X", "1 ms", 1.0, "ms", "lower", interval(0.1), "")
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_the_verdict_counts_the_claims_and_names_those_not_met() -> None:
    words = baseline.verdict(TABLE, LATENCY, ROLES, TRACE, HOT, THROUGHPUT)
    first, *others = words.sentences
    assert first == (
        "Of 7 claims that are plain numbers this machine meets 3 and misses 2; 1 cannot be "
        "decided, 1 cannot be measured yet."
    )
    told = "\n".join(others)
    for words in (
        *("Task overhead", "Worker memory: ", "Worker selection"),
        "longest stage of a task alone in the cluster is the assign hop, with 42.86 %",
        "The 99th percentile is 3 × the median.",
        "uses 200 µs (100 to 400) of processor time per task, 40 % of the total of all roles. ",
        "own gives 5,000 tasks/s (2,500 to 10,000), however fast the workers are.",
        "zmq.sugar.socket: send, with 25 % (20 to 30) of its busy time under the profiler.",
        "The model digits is served at 2,000 tasks/s (1,500 to 2,500) on CPU",
    ):
        assert words in told
    assert "Task throughput" not in told


def test_a_verdict_without_figures_says_nothing_about_them() -> None:
    nothing: Any = SimpleNamespace(stages=())
    idle = RoleTable((RoleUse("coordinator", 1),), "echo", 1, THROUGHPUT)
    words = baseline.verdict(TABLE, LATENCY, idle, nothing, HOT, THROUGHPUT)
    told = "\n".join(words.sentences)
    assert "stage" not in told
    assert "processor time" not in told


def test_bars_are_multiples_of_the_claim_and_unknown_stays_unknown() -> None:
    bars = {bar.label: bar for bar in TABLE.bars()}
    assert bars["Task throughput"].value == 20
    assert (bars["Task overhead"].low, bars["Task overhead"].high) == (18 / 15, 22 / 15)
    assert bars["API memory"].value is None
    assert {bar.claim for bar in bars.values()} == {1.0}
    assert "Worker memory with a model" not in bars


def test_findings_become_headlines_beside_their_claims(tmp_path: Path) -> None:
    TABLE.record(tmp_path)
    found = {headline.title: headline for headline in headlines.load(tmp_path)}
    assert found["Task throughput"].claim == 100
    assert found["Task overhead"].verdict is Verdict.MISSED
    assert found["Worker memory"].verdict is Verdict.MISSED
    assert found["Worker memory with a model"].claim == "~500 MB + model"
    assert found["API memory"].value is None
    assert not any(headline.gate for headline in found.values())
