"""House style as tests, so that a review can speak of ideas instead of habits.

Each rule is a function from text to a list of complaints, and a complaint names the place and the
way out. First come the rules, then the project that keeps them, then an offender for each of them.
What ruff can see (unfinished-work markers, commented-out code, missing docstrings, pickle) is left
to ruff; here we only make sure that its configuration still asks for it.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

#: From the top down. A module imports from rows below its own, or from its own row as long as no
#: circle forms; a circle inside a row may close through ``if TYPE_CHECKING`` only.
LAYERS = [
    ("perfkit", "__init__ __main__ magics cli"),
    ("perfkit", "report bench profile gpu"),
    ("perfkit", "engines"),
    ("perfkit", "coordinator specs"),
    ("perfkit", "codec policy queue index sizer pool"),
    ("cluster", "__init__ __main__"),
    ("cluster", "local process simulator simulated api"),
    ("cluster", "async_client coordinator worker client client_loop heap host mapping futures"),
    ("cluster", "workloads inference models handlers shift"),
    ("cluster", "spec transport"),
    ("cluster", "scheduler streams inspection codec"),
    ("cluster", "policy worker_session client_session assembly witness"),
    ("cluster", "clients kept ledger queue retry roster run stretches timers unread"),
    ("cluster", "actions events lifecycle status"),
    ("cluster", "errors limits task tensor"),
]
ROWS = {
    f"{package}.{name}".removesuffix(".__init__"): row
    for row, (package, names) in enumerate(LAYERS)
    for name in names.split()
}

#: What the core, the scheduler's row and all below it, is handed instead of importing.
OUTSIDE_WORLD = set(
    "asyncio concurrent datetime multiprocessing os random secrets select selectors signal socket "
    "subprocess threading time uuid zmq".split()
)

#: What starts without HEAVY, which a machine may lack or should not wait for.
LIGHT = (
    "cluster cluster.scheduler cluster.coordinator cluster.worker cluster.client cluster.local "
    "cluster.workloads cluster.inference "
    "perfkit perfkit.coordinator perfkit.specs perfkit.cli".split()
)
HEAVY = set(
    "IPython matplotlib nbconvert numpy onnx onnxruntime pandas papermill safetensors sklearn "
    "tokenizers".split()
)

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
NOTEBOOK_FUNCTION_LINES_MAX = 5
DOCSTRING_WORDS_MIN = 6


@dataclass(frozen=True)
class File:
    """A file of the project as text; nothing is imported to judge it."""

    path: str
    text: str

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def imports(self) -> set[str]:
        """All it imports, inside functions too; ``from a import b`` gives ``a.b``."""
        return set(self.imported_by(ast.walk(self.tree)))

    @cached_property
    def type_imports(self) -> set[str]:
        """What it imports for its annotations alone."""
        branches = (node for node in ast.walk(self.tree) if isinstance(node, ast.If))
        guards = [node for node in branches if "TYPE_CHECKING" in ast.unparse(node.test)]
        return {name for guard in guards for name in self.imported_by(ast.walk(guard))}

    def imported_by(self, nodes: Iterator[ast.AST]) -> Iterator[str]:
        package = ".".join(self.path.split("/")[:-1])
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{source}.{alias.name}" for alias in node.names)


def files(*patterns: str) -> list[File]:
    paths = sorted(chain.from_iterable(map(ROOT.glob, patterns)))
    return [File(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


def arrows(project: list[File], *, types: bool) -> dict[str, set[str]]:
    """For each module, the modules of the project it imports, with or without type-only ones."""
    graph: dict[str, set[str]] = {module.module: set() for module in project}
    for module in project:
        for target in module.imports if types else module.imports - module.type_imports:
            while target and target not in graph:
                target = target.rpartition(".")[0]
            if target and target != module.module:
                graph[module.module].add(target)
    return graph


def length(module: File) -> list[str]:
    lines = len(module.text.splitlines())
    return [f"{module.path}: {lines} lines; split it"] if lines > MODULE_LINES_MAX else []


def function_length(module: File) -> list[str]:
    return [
        f"{module.path}, {name}: {lines} lines; split it"
        for name, lines in function_lengths(module.tree)
        if lines > FUNCTION_LINES_MAX
    ]


def function_lengths(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def opening_prose(module: File) -> list[str]:
    if len((ast.get_docstring(module.tree) or "").split()) >= DOCSTRING_WORDS_MIN:
        return []
    return [f"{module.path}: open with a docstring that says why the file exists"]


def sleeps(module: File) -> list[str]:
    calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    if "time.sleep" in calls or ("sleep" in calls and "time.sleep" in module.imports):
        return [f"{module.path} sleeps and hopes: wait for what it hopes for"]
    return []


# Rules for the imports of all files


def layering(project: list[File]) -> list[str]:
    graph = arrows(project, types=True)
    rows = {name: layer(name) for name in graph}
    found = [f"{name}: give it a row in LAYERS" for name, row in rows.items() if row is None]
    for name, targets in graph.items():
        for target in sorted(targets):
            here, there = rows[name], rows[target]
            if here is not None and there is not None and there < here:
                found.append(f"{name} imports {target}, which stands above it")
    try:
        TopologicalSorter(arrows(project, types=False)).prepare()
    except CycleError as error:
        found.append("a circle: " + " ← ".join(error.args[1]))
    return found


def layer(name: str) -> int | None:
    """The row that names the module or, one level down, the package it is in."""
    return ROWS.get(name, ROWS.get(".".join(name.split(".")[:2])))


def sans_io(project: list[File]) -> list[str]:
    return [
        f"{module.path} imports {name}: the core is handed what it needs from outside"
        for module in project
        for name in sorted(module.imports)
        if (layer(module.module) or 0) >= ROWS["cluster.scheduler"]
        and name.split(".")[0] in OUTSIDE_WORLD
    ]


# Rules for what is not Python


def narrative(notebook: File) -> list[str]:
    return [
        f"{notebook.path}, cell {number}: {complaint}"
        for number, cell in enumerate(json.loads(notebook.text)["cells"], 1)
        if cell["cell_type"] == "code"
        for complaint in cell_style(cell)
    ]


def cell_style(cell: dict[str, Any]) -> Iterator[str]:
    if cell["outputs"] or cell["execution_count"] is not None:
        yield "has outputs; run nbstripout"
    tree = ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", "".join(cell["source"])))
    kinds = {type(node) for node in ast.walk(tree)}
    if ast.ClassDef in kinds:
        yield "defines a class; it belongs in the library"
    if kinds & {ast.Try, ast.TryStar}:
        yield "has a try; the library deals with errors"
    for function, lines in function_lengths(tree):
        if lines > NOTEBOOK_FUNCTION_LINES_MAX:
            yield f"{function} has {lines} lines; it belongs in the library"


def pins_and_hashes(lock: File) -> list[str]:
    """A lock holds nothing else, least of all where to fetch things from."""
    pin = r"[a-z0-9][a-z0-9._-]*==[\w.!+]+( ; [^/@]+)? \\"
    line_of_a_lock = re.compile(rf"{pin}|    --hash=sha256:[0-9a-f]{{64}}( \\)?|# [\w ]*:?|")
    return [
        f"{lock.path}:{number}: neither a pin nor a hash: {line}"
        for number, line in enumerate(lock.text.splitlines(), 1)
        if not line_of_a_lock.fullmatch(line)
    ]


def up_to_date(lock: File, project: dict[str, Any]) -> list[str]:
    """Everything that pyproject asks for, peers and serve aside, and nothing that brings torch."""
    pins = dict(re.findall(r"(?m)^([a-z0-9._-]+)==([^\s;]+)", lock.text))
    extras = (project["optional-dependencies"][e] for e in "infer lab profile dev".split())
    wanted = chain(project["dependencies"], *extras)
    found = [
        f"{lock.path}: {requirement} is pinned to {pin}; run make lock"
        for requirement in map(Requirement, wanted)
        if not (pin := pins.get(canonicalize_name(requirement.name)))
        or not requirement.specifier.contains(pin)
    ]
    return [*found, f"{lock.path}: something depends on torch"] if "torch" in pins else found


def offline(template: File) -> list[str]:
    return [
        f"{template.path} refers to {reference}: a report opens offline"
        for reference in re.findall(r"https?://[^\s\"'<>)]+|(?<=[\"'(])//\w[^\"')]*", template.text)
        if not reference.startswith("http://www.w3.org/")  # the name of a vocabulary, never fetched
    ]


# The project keeps them

PACKAGES = files("cluster/**/*.py", "perfkit/**/*.py")
TESTS = files("tests/**/*.py")
NOTEBOOKS = files("notebooks/*.ipynb")
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


@pytest.mark.parametrize("rule", [layering, sans_io])
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
        (function_length, LONG_FUNCTION, "cluster/policy.py, f: 71 lines"),
        (function_length, "async " + LONG_FUNCTION, "cluster/policy.py, f: 71 lines"),
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
    (found,) = rule(File("cluster/policy.py", text))
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
    assert rule(File("cluster/policy.py", text)) == []


TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import "
ROSTER_OVER_RUN = {"cluster/roster.py": "import cluster.run"}


@pytest.mark.parametrize(
    ("rule", "texts", "complaint"),
    [
        (layering, {"cluster/policy.py": "import cluster.scheduler"}, "above it"),
        (layering, {"cluster/policy.py": "from .scheduler import Scheduler"}, "above it"),
        (layering, {"cluster/policy.py": "def f():\n from . import scheduler"}, "above it"),
        (layering, {"cluster/policy.py": TYPES_ONLY + "cluster.scheduler"}, "above it"),
        (layering, {"cluster/run.py": "import perfkit.pool", "perfkit/pool.py": ""}, "above it"),
        (layering, {"cluster/novelty.py": ""}, "cluster.novelty: give it a row"),
        (layering, {**ROSTER_OVER_RUN, "cluster/run.py": "import cluster.roster"}, "a circle"),
        (sans_io, {"cluster/scheduler.py": "import zmq.asyncio"}, "scheduler.py imports zmq"),
        (sans_io, {"cluster/policy.py": "from random import Random"}, "imports random.Random"),
        (sans_io, {"cluster/task.py": "def f():\n import os"}, "task.py imports os"),
    ],
)
def test_a_rule_on_imports_catches(
    rule: Callable[[list[File]], list[str]], texts: dict[str, str], complaint: str
) -> None:
    (found,) = rule([File(*item) for item in {"cluster/scheduler.py": "", **texts}.items()])
    assert complaint in found


def test_a_circle_through_types_alone_is_none() -> None:
    texts = {**ROSTER_OVER_RUN, "cluster/run.py": TYPES_ONLY + "cluster.roster"}
    assert layering([File(*item) for item in texts.items()]) == []


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
