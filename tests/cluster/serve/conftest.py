"""API servers for tests: real processes beside a real cluster that serves digits."""

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import LocalCluster
from cluster.supervision.children import Process
from perfkit.optimized.specs import OPTIMIZED
from tests.cluster.serve.wire import raw_exchange
from tests.tracing import children_measured

READY_S = 30.0


@contextmanager
def api_process(*options):
    """An API process with these options, on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1:0", *map(str, options)]
        with children_measured():
            process = Process("api", "cluster.serve", options, Path(folder), guarded=True)
        try:
            url = process.announcement(time.monotonic() + READY_S)["url"]
            address = url.partition("//")[2]
            host, _, port = address.rpartition(":")
            yield SimpleNamespace(
                url=url, address=address, host=host, port=int(port), process=process
            )
        finally:
            process.stop(time.monotonic() + 10)


@pytest.fixture(scope="session")
def start_api():
    return api_process


@pytest.fixture(scope="session")
def served():
    """A cluster of one worker that serves digits; the tests of a session share it."""
    with LocalCluster(1, OPTIMIZED, models=["digits"]) as local:
        yield local


@pytest.fixture(scope="session")
def api(served):
    """An API for that cluster, without tokens; the tests of a session share it."""
    with api_process("--endpoint", served.endpoint) as running:
        yield running


@pytest.fixture
def exchange(api):
    """Send raw bytes to the API, and read its answer: see `raw_exchange`."""
    return lambda data, **how: raw_exchange(api, data, **how)
