"""The project keeps the rules of tests/tidy.py, and each rule catches its offender."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import chain

import pytest

from tests.tidy import (
    FUNCTION_LINES_MAX,
    HOUSE,
    MODULE_LINES_MAX,
    NOTEBOOK_FUNCTION_LINES_MAX,
    PACKAGES,
    ROOT,
    File,
    files,
    function_length,
    layering,
    length,
    narrative,
    offline,
    opening_prose,
    pins_and_hashes,
    rooms,
    sans_io,
    sleeps,
    table,
    up_to_date,
)

#: What starts without HEAVY, which a machine may lack or should not wait for.
LIGHT = (
    "cluster cluster.core.scheduler cluster.shells.coordinator cluster.shells.worker "
    "cluster.shells.client cluster.local cluster.work.workloads cluster.models.inference "
    "perfkit perfkit.optimized.coordinator perfkit.optimized.specs perfkit.cli".split()
)
HEAVY = set(
    "IPython matplotlib nbconvert numpy onnx onnxruntime pandas papermill safetensors sklearn "
    "tokenizers".split()
)


# The project keeps them

TESTS = files("tests/**/*.py")
NOTEBOOKS = files("notebooks/0*.ipynb")
LOCKS = files(".ci/locks/*.txt")
TEMPLATES = files(*(f"perfkit/**/*.{suffix}" for suffix in "css html j2 js svg".split()))


@pytest.mark.parametrize(
    ("rule", "among"),
    [
        (length, PACKAGES),  # a test mirrors its module, however much there is to say about it
        (function_length, PACKAGES + TESTS),
        (opening_prose, PACKAGES + TESTS),
        (sleeps, TESTS),
        (narrative, NOTEBOOKS),
        (pins_and_hashes, LOCKS),
        (offline, TEMPLATES),
    ],
)
def test_every_file_keeps(rule: Callable[[File], list[str]], among: list[File]) -> None:
    assert list(chain.from_iterable(map(rule, among))) == []


@pytest.mark.parametrize("rule", [layering, rooms, sans_io])
def test_imports_keep(rule: Callable[[list[File]], list[str]]) -> None:
    assert rule(PACKAGES) == []


def test_every_lock_holds_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ".ci/locks/py311.txt" in [lock.path for lock in LOCKS]
    assert [up_to_date(lock, project) for lock in LOCKS] == [[]] * len(LOCKS)


@pytest.mark.parametrize("name", [file.module for file in PACKAGES if file.module in LIGHT])
def test_starts_without_the_heavy_packages(name: str) -> None:
    python = [sys.executable, "-c", f"import {name}, sys; print(*sys.modules)"]
    loaded = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    assert name in loaded
    assert HEAVY.isdisjoint(loaded)


# And each rule catches its offender

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
LONG_CELL = "def f():\n" + "    x = 1\n" * NOTEBOOK_FUNCTION_LINES_MAX
SLEEPER = "from time import sleep\nsleep(1)"
PIN = f"numpy==2.0 \\\n    --hash=sha256:{'0' * 64}\n"


def cells(source: str, execution_count: int | None = None) -> str:
    cell = {"cell_type": "code", "outputs": [], "source": [source]}
    prose = {"cell_type": "markdown", "source": ["try: nothing"]}
    return json.dumps({"cells": [prose, {**cell, "execution_count": execution_count}]})


@pytest.mark.parametrize(
    ("rule", "text", "complaint"),
    [
        (length, "\n" * (MODULE_LINES_MAX + 1), "401 lines"),
        (function_length, LONG_FUNCTION, "cluster/core/policy.py, f: 71 lines"),
        (function_length, "async " + LONG_FUNCTION, "cluster/core/policy.py, f: 71 lines"),
        (opening_prose, "import json", "says why"),
        (opening_prose, '"""The policy module."""', "says why"),
        (sleeps, SLEEPER, "sleeps"),
        (sleeps, SLEEPER.replace("from time import sleep\n", "import time\ntime."), "sleeps"),
        (narrative, cells("%%time\nclass Plan: pass"), "cell 2: defines a class"),
        (narrative, cells("try:\n    run()\nexcept OSError:\n    pass"), "cell 2: has a try"),
        (narrative, cells(LONG_CELL), "cell 2: f has 6 lines"),
        (narrative, cells("%prun f()", 3), "cell 2: has outputs"),
        (pins_and_hashes, PIN + "--index-url https://example.org/simple", ":3: neither"),
        (pins_and_hashes, PIN + "numpy @ file:numpy.whl", ":3: neither"),
        (pins_and_hashes, PIN + "numpy>=2.0 \\", ":3: neither"),
        (pins_and_hashes, PIN + "# via https://example.org", ":3: neither"),
        (offline, '<script src="https://a.example/x.js">', "a.example/x.js"),
        (offline, "@import url('//a.example/x.css')", "a.example/x.css"),
    ],
)
def test_a_rule_catches(rule: Callable[[File], list[str]], text: str, complaint: str) -> None:
    (found,) = rule(File("cluster/core/policy.py", text))
    assert complaint in found


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (length, "\n" * MODULE_LINES_MAX),
        (function_length, LONG_FUNCTION.removesuffix("    x = 1\n")),
        (narrative, cells("%matplotlib inline\nx = 1")),
        (pins_and_hashes, PIN),
        (offline, '<svg xmlns="http://www.w3.org/2000/svg"> a // b'),
    ],
)
def test_a_rule_lets_pass(rule: Callable[[File], list[str]], text: str) -> None:
    assert rule(File("cluster/core/policy.py", text)) == []


TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import "
CODEC, SCHEDULER = "cluster/protocol/codec.py", "cluster/core/scheduler.py"
ROUND = {"cluster/core/run.py": "import cluster.core.queue"}


@pytest.mark.parametrize(
    ("rule", "texts", "complaint"),
    [
        (layering, {CODEC: "import cluster.core.scheduler"}, "does not allow"),
        (layering, {CODEC: "from ..core.scheduler import Scheduler"}, "does not allow"),
        (layering, {CODEC: "def f():\n from ..core import scheduler"}, "does not allow"),
        (layering, {CODEC: TYPES_ONLY + "cluster.core.scheduler"}, "does not allow"),
        (layering, {"cluster/novelty.py": ""}, "give cluster.novelty a row"),
        (layering, {"perfkit/novelty/a.py": ""}, "give perfkit.novelty a row"),
        (layering, {**ROUND, "cluster/core/queue.py": "import cluster.core.run"}, "a circle"),
        (layering, {**ROUND, "cluster/core/queue.py": TYPES_ONLY + "cluster.core.run"}, "a circle"),
        (rooms, {f"cluster/work/w{n}.py": "" for n in range(17)}, "work: 17 modules"),
        (rooms, {"cluster/core/core.py": ""}, "repeats its folder's name"),
        (sans_io, {SCHEDULER: "import zmq.asyncio"}, "scheduler.py imports zmq"),
        (sans_io, {CODEC: "from random import Random"}, "imports random.Random"),
        (sans_io, {"cluster/vocabulary/task.py": "def f():\n import os"}, "task.py imports os"),
    ],
)
def test_a_rule_on_imports_catches(
    rule: Callable[[list[File]], list[str]], texts: dict[str, str], complaint: str
) -> None:
    (found,) = rule([File(*item) for item in {SCHEDULER: "", **texts}.items()])
    assert complaint in found


def test_a_row_of_the_house_looks_down_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOUSE, "cluster.vocabulary", "cluster.core")
    (found,) = layering([])
    assert "names cluster.core, which is not below it" in found


def test_the_table_of_the_house_shows_every_folder_and_no_circle() -> None:
    lines = table().splitlines()
    assert [line.split()[0] for line in lines if " modules " in line] == list(HOUSE)
    assert lines[-1].endswith("no circle")


def test_a_lock_behind_pyproject_is_caught() -> None:
    extras = {"dev": ["ruff>=1"], "infer": ["numpy"], "lab": [], "profile": ["py_spy>=0.3"]}
    project = {"dependencies": ["rich"], "optional-dependencies": extras}
    lock = File("py311.txt", "ruff==0.9 \\\nrich==13.0 \\\npy-spy==0.4 \\\ntorch==2.9 \\\n")
    numpy, ruff, torch = up_to_date(lock, project)
    assert "numpy is pinned to None" in numpy
    assert "ruff>=1 is pinned to 0.9" in ruff
    assert "torch" in torch


def test_ruff_is_asked_for_what_this_file_leaves_to_it() -> None:
    text = b"# TODO: finish\n# x = compute(y)\nimport pickle\npickle.loads(b'')\ndef f(): pass\n"
    ruff = [sys.executable, "-m", "ruff", "check", "--stdin-filename=cluster/example.py", "-"]
    found = subprocess.run(ruff, input=text, capture_output=True, cwd=ROOT).stdout.decode()
    assert all(code in found for code in ("FIX002", "ERA001", "S301", "D100", "D103"))
