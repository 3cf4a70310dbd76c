"""The dashboard and the alert rules, held against what a real server's /metrics exposes."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import cluster.serve.operations
from cluster.serve.__main__ import parse
from tests.cluster.serve.operations import promql

yaml = pytest.importorskip("yaml", reason="PyYAML comes with JupyterLab")

FOLDER = Path(cluster.serve.operations.__file__).parent / "grafana"
#: what Prometheus adds to every series of a target, and its own metric for targets
TARGET_LABELS, TARGET_METRICS = {"job", "instance"}, {"up"}
#: exposed and shown nowhere: it is there for those who want it
UNUSED = {
    "perfkit_request_items_bucket",
    "perfkit_request_duration_seconds_count",
    "perfkit_request_duration_seconds_sum",
}
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*", "$worker": ".*"}


@pytest.fixture(scope="module")
def exposed(busy):
    """By sample name, the labels that a server under load exposes."""
    labels = {}
    for family in text_string_to_metric_families(busy.ask("/metrics").text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def dashboard():
    return json.loads((FOLDER / "perfkit.json").read_text())


def targets():
    """Each panel's title, expression and legend."""
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def rules():
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def read(expression):
    for name, text in VARIABLES.items():
        expression = expression.replace(name, text)
    assert "$" not in expression, "a variable that the dashboard does not have"
    return promql.read(expression)


EXPRESSIONS = [
    *((f"panel {title!r}", expression) for title, expression, _ in targets()),
    *((f"rule {rule['alert']}", rule["expr"]) for rule in rules()),
]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_each_expression_uses_names_and_labels_that_are_exposed(exposed, where, expression):
    query = read(expression)
    for name, labels in query.metrics.items():
        assert name in exposed.keys() | TARGET_METRICS, f"{where}: {name} is not exposed"
        if name in exposed:
            assert labels <= exposed[name] | TARGET_LABELS, f"{where}: labels of {name}"
    there = TARGET_LABELS.union(*(exposed.get(name, set()) for name in query.metrics))
    assert query.grouped <= there, f"{where}: groups by labels that are not there"


def test_every_metric_of_the_project_is_used_or_listed(exposed):
    used = set().union(*(read(expression).metrics for _, expression in EXPRESSIONS))
    own = {name for name in exposed if name.startswith("perfkit_")}
    assert own - used == UNUSED


def test_legends_use_labels_that_are_left_after_grouping(exposed):
    for title, expression, legend in targets():
        query = read(expression)
        left = query.grouped or set().union(*(exposed[name] for name in query.metrics))
        used = set(re.findall(r"{{\s*(\w+)\s*}}", legend))
        assert used <= left | TARGET_LABELS, f"{title}: {legend}"


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    taken = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_show_gaps_and_say_what_they_show():
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"] == "–"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


def test_the_dashboards_variables_are_those_that_expressions_use(exposed):
    variables = {v["name"]: v for v in dashboard()["templating"]["list"]}
    assert variables.keys() == {"datasource", *(n.strip("$") for n in VARIABLES if "__" not in n)}
    for variable in variables.values():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            (metric,) = read(asked[1]).metrics
            assert asked[2] in exposed[metric] | TARGET_LABELS


def test_each_alert_rule_has_a_grade_a_summary_and_a_way_out():
    alerts = rules()
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        name = rule["alert"]
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, name
        assert re.fullmatch(r"Perfkit([A-Z][a-z]+)+", name)
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s")), name
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["description"], name
        assert re.search(r"[<>=]", rule["expr"]), f"{name} compares with nothing"


def test_annotations_use_labels_that_the_expression_leaves(exposed):
    for rule in rules():
        query = read(rule["expr"])
        left = query.grouped or set().union(*(exposed.get(n, set()) for n in query.metrics))
        text = " ".join(rule["annotations"].values())
        used = set(re.findall(r"\$labels\.(\w+)", text))
        assert used <= left | TARGET_LABELS, rule["alert"]


def test_the_bad_cases_that_operators_fear_have_a_rule():
    names = " ".join(rule["alert"] for rule in rules())
    for fear in (
        "ApiDown CoordinatorUnreachable NoWorker LatencyHigh RequestsFail RequestsTurnedAway "
        "TasksStuck WorkersDie WorkerSilent CardTrouble CardHot MemoryGrows SupervisorTrouble"
    ).split():
        assert fear in names


def test_the_files_for_provisioning_name_each_other():
    scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    (job,) = scrape["scrape_configs"]
    jobs = re.findall(r'job=\\?"(\w+)\\?"', (FOLDER / "perfkit.json").read_text())
    assert {*jobs} == {job["job_name"]}, "the dashboard looks for another job"
    (target,) = job["static_configs"][0]["targets"]
    default = parse(["--endpoint", "tcp://127.0.0.1:1"]).bind
    assert target.rpartition(":")[2] == default.rpartition(":")[2], "the port that the API has"
    (provider,) = yaml.safe_load((FOLDER / "dashboards.yml").read_text())["providers"]
    assert provider["type"] == "file"
    (source,) = yaml.safe_load((FOLDER / "datasources.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"


@pytest.mark.parametrize("broken", ["sum(up", "rate(up)", "up{", "sum by x (up)", "up @@ 3", ")"])
def test_the_reader_of_expressions_refuses_what_prometheus_would(broken):
    with pytest.raises(ValueError, match=r"brackets|range|missing|@@"):
        promql.read(broken)


def test_the_reader_of_expressions_takes_an_unknown_function_for_a_name():
    assert "frobnicate" in promql.read("frobnicate(up[5m])").metrics
