"""Administration over HTTP, on a real cluster: what it answers, does and refuses."""

import base64
import json
import socket
import threading

import pytest

from cluster import LocalCluster
from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.backends.local import LocalBackend
from cluster.serve.http.bodies import FREE_BYTES
from cluster.serve.http.tokens import Role, Tokens, make_token
from cluster.serve.state import Settings, State
from cluster.shells.client import Client
from cluster.vocabulary.task import State as TaskState
from cluster.work.handlers import Handlers
from perfkit.optimized.specs import OPTIMIZED
from tests.cluster.serve.operations.served import DEADLINE_S, Site, served


@pytest.fixture(scope="module")
def crew():
    """A cluster that tests restart workers of."""
    with LocalCluster(3, OPTIMIZED) as running:
        client = running.client()
        backend = ClusterBackend(client)
        with served(State(backend, client)) as one:
            one.fleet = running
            yield one
        backend.close()


def submit(site, **task):
    return site.ask("/cluster/tasks", {"kind": "echo", **task})


def test_health_tells_that_workers_take_tasks(site):
    answer = site.ask("/cluster/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "workers": 2})


def test_status_and_workers_are_those_of_the_coordinator(site):
    status = site.ask("/cluster/status").json
    assert status["policy"] == site.state.client.status().policy
    workers = site.ask("/cluster/workers").json["workers"]
    assert {worker["worker"] for worker in workers} == {"worker-0", "worker-1"}
    assert workers[0]["gpus"][0] == {"family": "polaris", "memory_bytes": 8 << 30}
    assert workers[0]["load"]["gpus"][0]["busy_pct"] == 42.0


def test_config_shows_the_spec_and_the_settings_and_no_secret(fleet, tmp_path):
    client = fleet.client()
    backend = ClusterBackend(client)
    secret = make_token(tmp_path / "tokens", "root", Role.ADMIN)
    state = State(backend, client, Settings(timeout_s=7.0), Tokens(tmp_path / "tokens"))
    with served(state) as site:
        answer = site.ask("/cluster/config", token=secret)
        assert answer.json["spec"]["name"] == "optimized"
        assert answer.json["api"]["timeout_s"] == 7.0
        assert answer.json["api"]["tokens"] is True
        assert secret not in answer.text
        assert str(tmp_path) not in answer.text
    backend.close()


def test_a_task_is_submitted_as_text_and_as_base64_and_waited_for(site):
    answer = submit(site, text="grüße")
    assert answer.status == 200
    encoded = base64.b64encode("grüße".encode()).decode()
    assert answer.json["result"] == {"base64": encoded, "text": "grüße"}
    answer = submit(site, base64="/wA=")
    assert answer.json["result"] == {"base64": "/wA="}, "it is no text"
    assert submit(site).json["result"] == {"base64": "", "text": ""}


def test_a_task_that_nobody_waits_for_is_202_and_its_place_tells_its_story_and_result(site, until):
    answer = submit(site, text="later", wait=False, priority="low")
    assert answer.status == 202
    place = answer.headers["location"]
    assert place == f"/cluster/tasks/{answer.json['task']}"
    found = until(lambda: (a := site.ask(place).json)["state"] == "done" and "result" in a and a)
    assert found["result"]["text"] == "later"
    causes = [entry["cause"] for entry in found["story"]]
    assert causes[0] == "accepted"
    assert [entry["state"] for entry in found["story"]][-1] == "done"


def test_a_failed_task_says_why_and_is_listed(site):
    answer = site.ask("/cluster/tasks", {"kind": "fail", "text": "on purpose"})
    assert answer.status == 500
    assert "on purpose" in answer.json["error"]
    listed = site.ask("/cluster/tasks?state=failed&limit=5").json["tasks"]
    assert listed[0]["task"] == answer.json["task"]
    assert {task["state"] for task in listed} == {"failed"}
    story = site.ask(f"/cluster/tasks/{answer.json['task']}").json
    assert story["state"] == "failed"


def test_a_task_over_its_timeout_is_504_and_one_that_no_worker_takes_is_not_lost(site):
    slow = site.ask("/cluster/tasks", {"kind": "sleep", "text": "20", "timeout_s": 0.2})
    assert slow.status == 504
    nowhere = site.ask("/cluster/tasks", {"kind": "nonsuch", "timeout_s": 0.2})
    assert nowhere.status in (503, 504)
    assert nowhere.json["error"]


def test_a_listing_is_bounded_and_the_newest_come_first(site):
    ids = [submit(site, text=str(number)).json["task"] for number in range(5)]
    listed = site.ask("/cluster/tasks?limit=3").json["tasks"]
    assert [task["task"] for task in listed] == ids[:1:-1]


def test_a_queued_task_is_cancelled_once(crew):
    blockers = crew.state.client.submit_batch("sleep", [b"0.5"] * 60)
    answer = crew.ask("/cluster/tasks", {"kind": "sleep", "text": "0.5", "wait": False})
    place = answer.headers["location"]
    cancelled = crew.ask(place, method="DELETE")
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    assert crew.ask(place).json["state"] == "cancelled"
    for future in blockers:
        future.cancel()


def test_a_task_that_has_ended_is_not_cancelled(site):
    task = submit(site).json["task"]
    answer = site.ask(f"/cluster/tasks/{task}", method="DELETE")
    assert answer.status == 409
    assert "ended" in answer.json["error"]


def test_the_policy_is_changed_and_an_unknown_one_is_refused_with_those_there_are(site):
    before = site.ask("/cluster/status").json["policy"]
    answer = site.ask("/cluster/policy", {"policy": "round-robin"}, "PUT")
    assert (answer.status, answer.json) == (200, {"policy": "round-robin"})
    assert site.state.client.status().policy == "round-robin"
    refused = site.ask("/cluster/policy", {"policy": "fastest"}, "PUT")
    assert refused.status == 400
    assert "least-loaded" in refused.json["error"]
    assert site.ask("/cluster/policy", {"policy": before}, "PUT").status == 200


def test_a_rolling_restart_replaces_every_worker_one_after_another_and_loses_no_task(crew, until):
    client = crew.state.client
    before = {worker.worker: worker.pid for worker in client.status().workers}
    results, over = [], threading.Event()

    def work():
        while not over.is_set():
            futures = client.submit_batch("echo", [b"x"] * 20)
            results.extend(future.result(DEADLINE_S) for future in futures)

    thread = threading.Thread(target=work)
    thread.start()
    answer = crew.ask("/cluster/restart", {})
    assert answer.status == 202
    assert answer.headers["location"] == "/cluster/restart"
    assert answer.json["state"] == "running"
    assert crew.ask("/cluster/restart", {}).status == 409
    seen = []

    def finished():
        progress = crew.ask("/cluster/restart").json
        seen.append([step["state"] for step in progress["steps"]])
        return progress["state"] != "running" and progress

    progress = until(finished, timeout_s=DEADLINE_S)
    over.set()
    thread.join(DEADLINE_S)
    assert progress["state"] == "done", progress
    assert progress["ended_at"] >= progress["started_at"]
    assert all(states.count("restarting") <= 1 for states in seen)
    after = {worker.worker: worker.pid for worker in client.status().workers}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert results
    assert set(results) == {b"x"}


def test_one_worker_is_restarted_and_another_is_drained(crew, until):
    pids = {worker.worker: worker.pid for worker in crew.state.client.status().workers}
    answer = crew.ask("/cluster/workers/worker-0/restart", {})
    assert answer.status == 202
    until(lambda: crew.ask("/cluster/restart").json["state"] == "done")
    after = {worker.worker: worker.pid for worker in crew.state.client.status().workers}
    assert {name for name in pids if after[name] != pids[name]} == {"worker-0"}
    assert crew.ask("/cluster/workers/worker-2/drain", {}).status == 202
    until(lambda: len(crew.ask("/cluster/workers").json["workers"]) == 2)
    refused = crew.ask("/cluster/workers/worker-2/drain", {})
    assert refused.status == 404
    assert "worker-2" in refused.json["error"]


def test_a_rolling_restart_stops_after_the_worker_whose_turn_it_is(crew, until):
    assert crew.ask("/cluster/restart", {}).status == 202
    assert crew.ask("/cluster/restart", method="DELETE").status == 202
    until(lambda: crew.ask("/cluster/restart").json["state"] != "running")
    progress = crew.ask("/cluster/restart").json
    assert progress["state"] == "stopped"
    first, *others = (step["state"] for step in progress["steps"])
    assert (first, {*others}) == ("done", {"waiting"})
    assert crew.ask("/cluster/restart", method="DELETE").status == 409


BAD = [
    ("POST", "/cluster/tasks", b"{", "truncated"),
    ("POST", "/cluster/tasks", b"\xff", "JSON"),
    ("POST", "/cluster/tasks", b"[" * 100_000, "JSON"),
    ("POST", "/cluster/tasks", b'{"kind": "echo", "text": "\\ud800"}', "JSON"),
    ("POST", "/cluster/tasks", {}, "kind"),
    ("POST", "/cluster/tasks", {"kind": ""}, "kind"),
    ("POST", "/cluster/tasks", {"kind": 7}, "kind"),
    ("POST", "/cluster/tasks", {"kind": "echo", "payload": "x"}, "payload"),
    ("POST", "/cluster/tasks", {"kind": "echo", "text": "a", "base64": "YQ=="}, "not both"),
    ("POST", "/cluster/tasks", {"kind": "echo", "base64": "a"}, "base64"),
    ("POST", "/cluster/tasks", {"kind": "echo", "base64": "YQ==\n!"}, "base64"),
    ("POST", "/cluster/tasks", {"kind": "echo", "priority": "hihg"}, "did you mean 'high'"),
    ("POST", "/cluster/tasks", {"kind": "echo", "timeout_s": 0}, "timeout_s"),
    ("POST", "/cluster/tasks", {"kind": "echo", "timeout_s": 1e99}, "timeout_s"),
    ("GET", "/cluster/tasks?state=dead", None, "dead-lettered"),
    ("GET", "/cluster/tasks?limit=0", None, "limit"),
    ("GET", "/cluster/tasks?limit=1001", None, "limit"),
    ("GET", "/cluster/tasks?limit=ten", None, "limit"),
    ("GET", "/cluster/tasks?limt=10", None, "did you mean 'limit'"),
    ("GET", "/cluster/tasks/7", None, "RUN.POSITION"),
    ("GET", f"/cluster/tasks/{'9' * 40}.0", None, "RUN.POSITION"),
    ("PUT", "/cluster/policy", {"policy": ""}, "policy"),
    ("PUT", "/cluster/policy", {}, "policy"),
    ("POST", "/cluster/restart", {"worker": "worker-0"}, "workers"),
]


@pytest.mark.parametrize(("method", "path", "body", "word"), BAD)
def test_bad_input_is_400_and_says_what_is_wrong(site, method, path, body, word):
    answer = site.ask(path, body, method)
    assert answer.status == 400, answer.text
    assert answer.json.keys() == {"error"}
    assert word in answer.json["error"]
    assert "Traceback" not in answer.text


MISSING = [
    ("GET", "/cluster/tasks/999999.0"),
    ("DELETE", "/cluster/tasks/999999.0"),
    ("POST", "/cluster/workers/worker-9/drain"),
    ("POST", "/cluster/workers/worker-9/restart"),
    ("GET", "/cluster/restart"),
    ("GET", "/cluster/nonsuch"),
]


@pytest.mark.parametrize(("method", "path"), MISSING)
def test_what_is_not_there_is_404(site, method, path):
    answer = site.ask(path, method=method)
    assert answer.status == 404, answer.text
    assert answer.json["error"]


def test_a_restart_of_an_unknown_worker_is_404_and_restarts_none(site):
    answer = site.ask("/cluster/restart", {"workers": ["worker-0", "worker-9"]})
    assert answer.status == 404
    assert "worker-9" in answer.json["error"]
    assert site.ask("/cluster/restart").status == 404


def test_another_method_is_405(site):
    for method, path in (("DELETE", "/cluster/status"), ("POST", "/cluster/policy")):
        answer = site.ask(path, method=method)
        assert answer.status == 405
        assert answer.json["error"]


def test_a_body_over_the_bound_is_413(fleet):
    client = fleet.client()
    backend = ClusterBackend(client)
    with served(State(backend, client, Settings(body_bytes=1_000))) as site:
        answer = site.ask("/cluster/tasks", {"kind": "echo", "text": "x" * 2_000})
        assert answer.status == 413
        assert site.ask("/cluster/tasks", {"kind": "echo", "text": "x"}).status == 200
    backend.close()


def test_a_submission_is_bounded_by_the_rate_and_by_the_bytes_that_are_held(fleet):
    client = fleet.client()
    backend = ClusterBackend(client)
    settings = Settings(rate_per_s=0.01, burst=1, held_bytes=1_000)
    with served(State(backend, client, settings)) as site:
        assert submit(site, text="x" * (FREE_BYTES + 2_000)).status == 503
        refused = submit(site, text="x")
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) > 1
        assert site.state.budget.held_bytes == 0
    backend.close()


ROLES = [
    ("GET", "/cluster/health", None),
    ("GET", "/", None),
    ("GET", "/page/live.js", None),
    ("GET", "/metrics", Role.READ),
    ("GET", "/cluster/live", Role.READ),
    ("GET", "/cluster/status", Role.READ),
    ("GET", "/cluster/workers", Role.READ),
    ("GET", "/cluster/config", Role.READ),
    ("GET", "/cluster/tasks", Role.READ),
    ("GET", "/cluster/tasks/999999.0", Role.READ),
    ("GET", "/cluster/restart", Role.READ),
    ("POST", "/cluster/tasks", Role.SUBMIT),
    ("DELETE", "/cluster/tasks/999999.0", Role.ADMIN),
    ("PUT", "/cluster/policy", Role.ADMIN),
    ("POST", "/cluster/workers/worker-9/drain", Role.ADMIN),
    ("POST", "/cluster/workers/worker-9/restart", Role.ADMIN),
    ("POST", "/cluster/restart", Role.ADMIN),
    ("DELETE", "/cluster/restart", Role.ADMIN),
]


def test_each_path_wants_its_role_before_it_looks_at_anything_else(fleet, tmp_path):
    tokens = {role: make_token(tmp_path / "tokens", role.name, role) for role in Role}
    client = fleet.client()
    backend = ClusterBackend(client)
    with served(State(backend, client, tokens=Tokens(tmp_path / "tokens"))) as site:
        for method, path, wanted in ROLES:
            body = b"{" if method in ("POST", "PUT") else None
            expected = 401 if wanted else 200
            assert site.ask(path, body, method).status == expected, (method, path)
            assert site.ask(path, body, method, "guess").status == expected, (method, path)
            for role, token in tokens.items():
                status = site.ask(path, body, method, token).status
                assert (status == 403) == (wanted is not None and role < wanted), (path, role)
                assert status not in (401, 500)
    backend.close()


def test_every_path_under_cluster_is_in_the_table_of_roles(site):
    from cluster.serve.operations import admin

    tested = {(method, path.split("?")[0]) for method, path, _ in ROLES}
    for route in admin.routes(site.state):
        for method in route.methods - {"HEAD"}:
            path = route.path.replace("{name:path}", "worker-9").replace("{id}", "999999.0")
            assert (method, path) in tested


def test_another_engine_has_nothing_to_administer_but_is_healthy():
    backend = LocalBackend(Handlers())
    with served(State(backend)) as site:
        assert site.ask("/cluster/health").status == 200
        answer = site.ask("/cluster/status")
        assert answer.status == 501
        assert "engine" in answer.json["error"]
        assert "perfkit_workers" not in site.ask("/metrics").text
        live = site.ask("/cluster/live").json
        assert (live["status"], live["engine"]) == (None, "engine local")


def test_without_a_worker_or_a_coordinator_health_is_503_and_orders_say_why(until, impatient):
    with LocalCluster(0, OPTIMIZED) as fleet:
        client = Client(fleet.endpoint, spec=OPTIMIZED)
        backend = ClusterBackend(client)
        with served(State(backend, client)) as site:
            answer = site.ask("/cluster/health")
            assert (answer.status, answer.json["status"]) == (503, "no worker")
            assert site.ask("/cluster/restart", {}).status == 409
            fleet.stop()
            answer = site.ask("/cluster/policy", {"policy": "adaptive"}, "PUT")
            assert answer.status == 503
            assert answer.headers["retry-after"]
            assert "no coordinator answers" in answer.json["error"]
            until(lambda: site.ask("/cluster/health").json["status"] == "unreachable")
            assert site.ask("/cluster/health").status == 503
            site.state.stopping = True
            assert site.ask("/cluster/health").json["status"] == "stopping"
        backend.close()


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(site, caplog, until):
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as peer:
        head = "POST /cluster/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n{"
        peer.sendall(head.encode() + bytes(FREE_BYTES))
        until(lambda: site.state.budget.held_bytes == 1)
    until(lambda: site.state.budget.held_bytes == 0)
    assert site.ask("/cluster/health").status == 200
    assert not caplog.records


def test_the_task_of_a_client_that_leaves_is_cancelled(crew, until):
    host, port = crew.url.removeprefix("http://").split(":")
    task = json.dumps({"kind": "sleep", "text": "1"})
    with socket.create_connection((host, int(port)), DEADLINE_S) as peer:
        head = f"POST /cluster/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(task)}\r\n\r\n"
        peer.sendall((head + task).encode())
        (running,) = until(lambda: crew.state.client.tasks(TaskState.ASSIGNED))
    until(lambda: [x.run for x in crew.state.client.tasks(TaskState.CANCELLED, 1)] == [running.run])
    until(lambda: not crew.state.client.status().assigned)


def test_a_request_that_waits_when_the_api_ends_is_told_so(crew, start_api, until):
    with start_api("--endpoint", crew.fleet.endpoint, "--drain", 0.2) as ending:
        answers = []
        task = {"kind": "sleep", "text": "4"}
        waiting = threading.Thread(
            target=lambda: answers.append(Site(ending.url).ask("/cluster/tasks", task))
        )
        waiting.start()
        until(lambda: crew.state.client.status().assigned)
        ending.process.terminate()
        waiting.join(DEADLINE_S)
    assert answers[0].status == 503
    assert "ended" in answers[0].json["error"]
    until(lambda: not crew.state.client.status().assigned)


def test_another_sites_page_can_not_have_a_browser_change_the_cluster(site):
    for origin, status in (("http://evil.example", 403), ("null", 403), (site.url, 200)):
        for path in ("/cluster/tasks", "/v2/repository/models/nobody/unload"):
            body = {"kind": "echo"} if path == "/cluster/tasks" else {}
            assert site.ask(path, body, origin=origin).status == status, (path, origin)


def test_a_worker_alone_fails_a_restart_and_a_load_with_the_reason(serve, until, monkeypatch):
    monkeypatch.setattr("cluster.shells.client.FIRST_REPORT_S", 0.1)
    alone = serve()
    backend = ClusterBackend(alone.client)
    with served(State(backend, alone.client)) as site:
        assert site.ask("/cluster/restart", {}).status == 202
        until(lambda: site.ask("/cluster/restart").json["state"] == "failed")
        (step,) = site.ask("/cluster/restart").json["steps"]
        assert step["state"] == "failed"
        assert "supervisor" in step["error"]
        load = site.ask("/v2/repository/models/digits/load", {})
        assert load.status == 400
        assert "it can't load or unload models while it runs: digits" in load.json["error"]
        assert submit(site, text="still here").status == 200
    backend.close()


def test_every_state_can_be_asked_for(site):
    for state in TaskState:
        assert site.ask(f"/cluster/tasks?state={state.value}").status == 200


def test_large_payloads_travel_whole(site):
    text = "x" * 3_000_000
    answer = submit(site, text=text)
    assert answer.json["result"]["text"] == text
    assert json.loads(answer.text)["task"]
