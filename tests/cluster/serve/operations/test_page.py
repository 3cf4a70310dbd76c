"""The live page in a real browser, over a real cluster under load."""

import contextlib
import os
import re
import signal
import threading
from pathlib import Path

import pytest

import cluster.serve.operations
from cluster import Client, ClusterCoordinator, LocalCluster, Worker
from cluster.serve.backends.cluster import ClusterBackend
from cluster.serve.http.tokens import Role, Tokens, make_token
from cluster.serve.state import State
from cluster.work.workloads import HANDLERS
from perfkit.optimized.specs import OPTIMIZED
from tests.cluster.serve.operations.served import DEADLINE_S, served
from tests.perfkit.report.page.browser import DESKTOP, PHONE, browser

PAGE = Path(cluster.serve.operations.__file__).parent / "page"
SIZES = {"1400": DESKTOP, "400": PHONE}
GAP = "–"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def loaded(site):
    """The site while tasks run and requests are answered, without end."""
    client, over = site.state.client, threading.Event()

    def work():
        while not over.wait(0.02):
            for future in client.submit_batch("echo", [b"x"] * 50):
                future.result(DEADLINE_S)
            site.infer()

    thread = threading.Thread(target=work)
    thread.start()
    yield site
    over.set()
    thread.join(DEADLINE_S)


@contextlib.contextmanager
def signalled(pid, number):
    os.kill(pid, number)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state_of(tab):
    return tab.ask("document.getElementById('state').textContent")


def tile(tab, title):
    """What the tile of that title shows."""
    return tab.ask(
        "[...document.querySelectorAll('.tile')].find(tile => "
        f"tile.querySelector('h3').textContent === '{title}')?.querySelector('p').textContent"
    )


def row(tab, worker):
    """The text of a worker's row, and "" if there is none."""
    return tab.ask(
        "[...document.querySelectorAll('#workers tbody tr')].find(row => "
        f"row.dataset.key === '{worker}')?.innerText ?? ''"
    )


def test_the_page_refers_to_no_other_host_and_has_no_inline_script_or_style():
    html = (PAGE / "index.html").read_text()
    for name in ("index.html", "live.css", "live.js"):
        text = (PAGE / name).read_text()
        addresses = set(re.findall(r"https?://[^'\"\s)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, f"{name}: {addresses}"
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)


def test_files_beside_the_page_are_served_and_no_others(site):
    for name in ("live.css", "live.js"):
        answer = site.ask(f"/page/{name}")
        assert answer.text == (PAGE / name).read_text()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for name in ("index.htm", "..%2f__init__.py", "%2e%2e/admin.py", "live.js%00"):
        assert site.ask(f"/page/{name}").status == 404


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_all_colours_of_text_have_the_contrast_that_wcag_asks_for():
    css = (PAGE / "live.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): #([0-9a-f]{3,6})", part)) for part in css.split("@media")[:2]
    )
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for ground in ("ground", "card"):
            for ink in ("ink", "soft", "accent", "second", "good", "warn", "bad"):
                one, other = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (other + 0.05) / (one + 0.05) >= 4.5, f"{ink} on {ground}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_shows_the_cluster_at_every_size_without_a_complaint(
    tab, loaded, until, size, dark, tmp_path
):
    tab.open(f"{loaded.url}/", SIZES[size], dark=dark)
    until(lambda: state_of(tab) == "live")
    assert tile(tab, "Workers") == "2"
    assert tile(tab, "Cards") == "4"
    assert "42 %" in row(tab, "worker-0")
    assert "61 °C, 83 W" in row(tab, "worker-1")
    until(lambda: tile(tab, "Latency p99") not in (GAP, None))
    width = tab.ask("document.documentElement.clientWidth")
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask("Math.min(...[...document.querySelectorAll('td')].map(c => c.offsetWidth))") > 60
    assert tab.complaints == []
    assert all(address.startswith((loaded.url, "data:")) for address in tab.requests)
    picture = tmp_path / f"live-{size}.png"
    picture.write_bytes(tab.picture())
    assert picture.stat().st_size > 10_000


def test_numbers_change_while_places_stay(tab, loaded, until):
    tab.open(f"{loaded.url}/", DESKTOP)
    until(lambda: tile(tab, "Requests per second") not in (GAP, "0", None))
    until(lambda: tile(tab, "Tasks per second") not in (GAP, "0", None))
    places = (
        "JSON.stringify([...document.querySelectorAll('h2, .tile, .chart, #workers tr')]"
        ".map(one => [one.offsetTop, one.offsetHeight, one.offsetWidth]))"
    )
    before, seen = tab.ask(places), row(tab, "worker-0")
    until(lambda: row(tab, "worker-0") != seen)
    for _ in range(2):
        seen = row(tab, "worker-0")
        until(lambda now=seen: row(tab, "worker-0") != now)
        assert tab.ask(places) == before
    assert "digits" in tab.ask("document.getElementById('models').innerText")


def test_everything_that_is_not_text_has_a_name_for_screen_readers(tab, loaded, until):
    tab.open(f"{loaded.url}/", DESKTOP)
    until(lambda: tile(tab, "Requests per second") not in (GAP, "0", None))
    charts = tab.ask("[...document.querySelectorAll('svg')].map(one => one.ariaLabel)")
    assert len(charts) >= 3
    assert all(re.search(r"\d", chart) for chart in charts)
    unnamed = "[...document.querySelectorAll('input')].filter(one => !one.labels.length).length"
    assert tab.ask(unnamed) == 0
    assert tab.ask("document.documentElement.lang") == "en"
    assert tab.ask("document.getElementById('state').role") == "status"


def test_a_stopped_worker_shows_as_gone_and_comes_back(tab, fleet, loaded, until):
    tab.open(f"{loaded.url}/", DESKTOP)
    until(lambda: state_of(tab) == "live")
    (worker,) = (w for w in fleet.workers if w.role == "worker-1")
    with signalled(worker.pid, signal.SIGSTOP):
        until(lambda: "gone" in row(tab, "worker-1") or "silent" in row(tab, "worker-1"))
        assert "here" in row(tab, "worker-0")
    until(lambda: "here" in row(tab, "worker-1"))


def test_a_killed_worker_shows_with_its_successor(tab, fleet, loaded, until):
    tab.open(f"{loaded.url}/", DESKTOP)
    until(lambda: state_of(tab) == "live")
    (worker,) = (w for w in fleet.workers if w.role == "worker-1")
    assert f"pid {worker.pid}" in row(tab, "worker-1")
    os.kill(worker.pid, signal.SIGKILL)
    restarts = "document.querySelector('#hosts tbody').rows[0].cells[2].textContent"
    until(lambda: tab.ask(restarts) == "1")
    until(
        lambda: "here" in row(tab, "worker-1") and f"pid {worker.pid}" not in row(tab, "worker-1")
    )


def test_with_tokens_the_page_asks_for_one_and_keeps_it_in_the_session_alone(
    tab, fleet, until, tmp_path
):
    good = make_token(tmp_path / "tokens", "watcher", Role.READ)
    client = fleet.client()
    backend = ClusterBackend(client)
    with served(State(backend, client, tokens=Tokens(tmp_path / "tokens"))) as site:
        tab.open(f"{site.url}/", PHONE)
        until(lambda: state_of(tab) == "token needed")
        assert tile(tab, "Workers") == GAP

        def enter(token):
            tab.ask(f"document.getElementById('token').value = '{token}'")
            tab.ask("document.querySelector('#login button').click()")

        enter("guess")
        until(lambda: "token" in tab.ask("document.getElementById('refused').textContent"))
        enter(good)
        until(lambda: tile(tab, "Workers") == "2")
        assert tab.ask("document.getElementById('login').hidden")
        tab.open(f"{site.url}/", PHONE)
        until(lambda: tile(tab, "Workers") == "2")
        assert tab.ask("sessionStorage.getItem('token')") == good
        assert tab.ask("localStorage.length + document.cookie.length") == 0
        assert not any(good in address for address in tab.requests)
        tab.ask("document.getElementById('forget').click()")
        until(lambda: state_of(tab) == "token needed")
    backend.close()


def test_a_lost_coordinator_and_a_lost_api_leave_gaps(tab, until, impatient):
    with LocalCluster(1, OPTIMIZED) as fleet:
        client = fleet.client()
        backend = ClusterBackend(client)
        with served(State(backend, client)) as site:
            tab.open(f"{site.url}/", DESKTOP)
            until(lambda: tile(tab, "Workers") == "1")
            with signalled(fleet.coordinator_pid, signal.SIGSTOP):
                until(lambda: state_of(tab) == "coordinator lost")
                assert tile(tab, "Workers") == tile(tab, "Queued tasks") == GAP
                assert "Unknown" in tab.ask("document.getElementById('workers').innerText")
            until(lambda: tile(tab, "Workers") == "1")
        until(lambda: state_of(tab) == "no answer")
        assert tile(tab, "Workers") == tile(tab, "Latency p50") == GAP
        backend.close()


def test_an_engine_without_a_coordinator_shows_its_requests_alone(tab, fleet, until):
    client = fleet.client()
    with served(State(client)) as site:
        tab.open(f"{site.url}/", DESKTOP)
        until(lambda: state_of(tab) == "serving")
        assert tab.ask("document.getElementById('workers').offsetHeight") == 0
        assert tile(tab, "Workers") == GAP
        until(lambda: tile(tab, "Requests per second") == "0")
    client.close()


def test_many_workers_are_bands_and_a_few_rows(tab, until, tmp_path):
    with contextlib.ExitStack() as stack:
        coordinator = stack.enter_context(ClusterCoordinator(OPTIMIZED))
        for number in range(25):
            worker = Worker(coordinator.endpoint, HANDLERS, name=f"w{number}", spec=OPTIMIZED)
            thread = threading.Thread(target=worker.run)
            thread.start()
            stack.callback(thread.join, DEADLINE_S)
            stack.callback(worker.stop)
        client = stack.enter_context(Client(coordinator.endpoint, spec=OPTIMIZED))
        backend = ClusterBackend(client)
        stack.callback(backend.close)
        site = stack.enter_context(served(State(backend, client)))
        tab.open(f"{site.url}/", DESKTOP)
        until(lambda: tile(tab, "Workers") == "25")
        assert tab.ask("document.querySelectorAll('#workers tbody tr').length") == 10
        bands = tab.ask("document.getElementById('bands').innerText")
        assert "Tasks held" in bands
        assert "median" in bands
        tab.ask("document.getElementById('filter').value = 'w17'")
        until(lambda: tab.ask("document.querySelectorAll('#workers tbody tr').length") == 1)
        assert "here" in row(tab, "w17")
        (tmp_path / "bands.png").write_bytes(tab.picture())
