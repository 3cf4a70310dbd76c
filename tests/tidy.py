"""The rules of the house: what may import what, and how a file, a notebook or a lock looks.

Each rule is a function from text to a list of complaints, and a complaint names the place and the
way out; nothing of the project is imported to judge it. ``python -m tests.tidy`` prints the table
of folders and arrows. What ruff can see (unfinished-work markers, commented-out code, missing
docstrings, pickle) is left to ruff.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

#: One row a folder: what it may import, besides itself. Rows come from the top down, so a row names
#: only rows below it. Modules that lie directly in a package have rows of their own.
HOUSE: dict[str, str] = {
    "perfkit.__main__": "perfkit.cli",
    "perfkit.cli": "perfkit.cli.cards perfkit.cli.models perfkit.cli.profiling perfkit.cli.tuning "
    "perfkit.cli.terminal perfkit perfkit.jupyter perfkit.report "
    "perfkit.bench.experiments perfkit.bench.goals perfkit.bench.leaks perfkit.bench.regression "
    "perfkit.profile perfkit.profile.activity perfkit.gpu perfkit.gpu.sources "
    "perfkit.gpu.processes perfkit.gpu.device "
    "perfkit.gpu.rocprof perfkit.optimized perfkit.evidence cluster.serve.http cluster.process "
    "cluster.local cluster.supervision cluster.shells cluster.transport cluster.spec "
    "cluster.models cluster.models.repository cluster.models.runtime cluster.models.frames "
    "cluster.scratch cluster.vocabulary",
    "perfkit.cli.cards": "perfkit.cli.terminal perfkit.profile.activity perfkit.gpu "
    "perfkit.gpu.sources perfkit.gpu.processes perfkit.gpu.device perfkit.gpu.rocprof "
    "perfkit.optimized perfkit.evidence cluster.vocabulary",
    "perfkit.cli.models": "perfkit.cli.terminal perfkit.optimized perfkit.evidence cluster.models "
    "cluster.models.repository cluster.models.frames cluster.vocabulary",
    "perfkit.cli.profiling": "perfkit.cli.terminal perfkit.bench.calls perfkit.profile "
    "perfkit.optimized perfkit.evidence cluster.vocabulary",
    "perfkit.cli.tuning": "perfkit.cli.terminal perfkit.bench.tuning perfkit.bench.calls "
    "perfkit.optimized perfkit.evidence cluster.spec cluster.vocabulary",
    "perfkit.cli.terminal": "perfkit.bench.experiments perfkit.engines perfkit.optimized "
    "perfkit.report perfkit.evidence cluster.spec cluster.models cluster.models.repository "
    "cluster.vocabulary",
    "perfkit.jupyter": "perfkit.report.figures perfkit.report.engine perfkit.bench.calls "
    "perfkit.profile perfkit.profile.activity perfkit.gpu perfkit.gpu.device perfkit.optimized "
    "perfkit.evidence cluster.local cluster.shells cluster.supervision cluster.transport "
    "cluster.vocabulary",
    "perfkit": "perfkit.report.session perfkit.bench.calls perfkit.optimized perfkit.pool "
    "perfkit.gpu perfkit.profile perfkit.evidence cluster.spec",
    "perfkit.report.session": "perfkit.report.page perfkit.report.figures perfkit.report.engine "
    "perfkit.profile perfkit.gpu perfkit.evidence cluster.local cluster.shells cluster.spec "
    "cluster.protocol cluster.vocabulary",
    "perfkit.report": "perfkit.report.page perfkit.report.figures perfkit.report.engine "
    "perfkit.evidence",
    "perfkit.report.stories": "perfkit.report.page perfkit.report.figures perfkit.report.engine "
    "perfkit.bench.experiments perfkit.bench.goals perfkit.bench.leaks perfkit.bench.counts "
    "perfkit.bench.workloads perfkit.profile perfkit.gpu perfkit.gpu.rocprof perfkit.optimized "
    "perfkit.evidence cluster.spec cluster.vocabulary",
    "perfkit.report.page": "perfkit.report.figures perfkit.report.engine perfkit.evidence "
    "cluster.vocabulary",
    "perfkit.bench.tuning": "perfkit.report.figures perfkit.bench.workloads perfkit.gpu "
    "perfkit.gpu.device perfkit.optimized perfkit.evidence cluster.local cluster.shells "
    "cluster.transport cluster.spec cluster.work cluster.models.providers cluster.vocabulary",
    "perfkit.report.figures": "perfkit.bench.calls perfkit.profile perfkit.evidence "
    "cluster.vocabulary",
    "perfkit.report.engine": "perfkit.evidence cluster.scratch cluster.vocabulary",
    "perfkit.bench.experiments": "perfkit.bench.goals perfkit.bench.counts perfkit.bench.serving "
    "perfkit.bench.bare "
    "perfkit.bench.simulated perfkit.bench.workloads perfkit.profile perfkit.gpu "
    "perfkit.gpu.device perfkit.engines perfkit.optimized perfkit.evidence cluster.local "
    "cluster.supervision cluster.shells cluster.spec cluster.scratch cluster.vocabulary",
    "perfkit.bench.goals": "perfkit.bench.leaks perfkit.bench.counts perfkit.bench.serving "
    "perfkit.bench.bare perfkit.bench.workloads perfkit.profile perfkit.gpu perfkit.gpu.device "
    "perfkit.gpu.rocprof perfkit.optimized perfkit.pool perfkit.evidence cluster.local "
    "cluster.shells cluster.spec cluster.work cluster.models cluster.models.runtime "
    "cluster.models.frames cluster.scratch cluster.vocabulary",
    "perfkit.bench.leaks": "perfkit.bench.counts perfkit.bench.workloads perfkit.evidence "
    "cluster.process cluster.local cluster.shells cluster.transport cluster.spec cluster.core "
    "cluster.protocol cluster.scratch cluster.vocabulary",
    "perfkit.bench.regression": "perfkit.bench.counts perfkit.bench.workloads perfkit.optimized "
    "perfkit.evidence cluster.spec cluster.scratch cluster.vocabulary",
    "perfkit.bench.calls": "perfkit.profile perfkit.evidence cluster.vocabulary",
    "perfkit.bench.counts": "perfkit.bench.bare perfkit.bench.workloads perfkit.profile "
    "perfkit.optimized perfkit.evidence cluster cluster.local cluster.shells cluster.spec "
    "cluster.core cluster.protocol cluster.models cluster.models.frames cluster.scratch "
    "cluster.vocabulary",
    "perfkit.bench.bare": "perfkit.bench.workloads cluster.process cluster.local "
    "cluster.supervision cluster.shells cluster.transport cluster.spec cluster.protocol "
    "cluster.scratch cluster.vocabulary",
    "perfkit.bench.serving": "perfkit.bench.workloads perfkit.evidence cluster.process "
    "cluster.local cluster.supervision cluster.spec cluster.models cluster.models.repository "
    "cluster.models.runtime cluster.scratch cluster.vocabulary",
    "perfkit.bench.serving.peers": "",
    "perfkit.bench.simulated": "perfkit.bench.workloads cluster.spec cluster.core cluster.protocol "
    "cluster.vocabulary",
    "perfkit.bench.workloads": "perfkit.evidence cluster.process cluster.local "
    "cluster.supervision cluster.shells cluster.transport cluster.spec cluster.protocol "
    "cluster.models cluster.models.frames cluster.scratch cluster.vocabulary",
    "perfkit.bench": "",
    "perfkit.profile.activity": "perfkit.evidence cluster.shells cluster.transport cluster.spec "
    "cluster.vocabulary",
    "perfkit.profile": "perfkit.evidence cluster.shells cluster.spec cluster.scratch "
    "cluster.vocabulary",
    "perfkit.gpu": "perfkit.gpu.sources perfkit.gpu.processes perfkit.gpu.device perfkit.evidence "
    "cluster.work cluster.vocabulary",
    "perfkit.gpu.sources": "perfkit.gpu.metrics perfkit.gpu.device cluster.vocabulary",
    "perfkit.gpu.processes": "perfkit.gpu.device cluster.vocabulary",
    "perfkit.gpu.device": "cluster.scratch cluster.vocabulary",
    "perfkit.gpu.metrics": "",
    "perfkit.gpu.rocprof": "perfkit.evidence cluster.vocabulary",
    "perfkit.engines": "cluster.local cluster.shells cluster.spec cluster.work cluster.models "
    "cluster.scratch cluster.vocabulary",
    "perfkit.optimized": "cluster.shells cluster.spec cluster.core cluster.protocol "
    "cluster.vocabulary",
    "perfkit.pool": "cluster.vocabulary",
    "perfkit.evidence": "cluster.spec cluster.vocabulary",
    "cluster.serve.__main__": "cluster.serve.app cluster.serve cluster.serve.backends "
    "cluster.serve.http "
    "cluster.supervision cluster.shells cluster.spec cluster.vocabulary",
    "cluster.serve.app": "cluster.serve.operations cluster.serve cluster.serve.http",
    "cluster.serve.operations": "cluster.serve cluster.serve.backends cluster.serve.http "
    "cluster.shells cluster.vocabulary",
    "cluster.serve": "cluster.serve.backends cluster.serve.http cluster.shells "
    "cluster.models.frames cluster.vocabulary",
    "cluster.serve.backends": "cluster.model_offers cluster.shells cluster.protocol cluster.work "
    "cluster.vocabulary",
    "cluster.serve.http": "cluster.supervision cluster.vocabulary",
    "cluster": "cluster.local cluster.shells cluster.spec cluster.core cluster.work "
    "cluster.vocabulary",
    "cluster.process": "cluster.model_offers cluster.supervision cluster.shells cluster.spec "
    "cluster.work cluster.models.providers cluster.vocabulary",
    "cluster.local": "cluster.supervision cluster.shells cluster.spec cluster.work "
    "cluster.scratch cluster.vocabulary",
    "cluster.supervision": "cluster.transport cluster.spec cluster.vocabulary",
    "cluster.model_offers": "cluster.work cluster.models cluster.models.kinds cluster.vocabulary",
    "cluster.simulation": "cluster.core cluster.protocol cluster.vocabulary",
    "cluster.shells": "cluster.transport cluster.spec cluster.core cluster.work cluster.protocol "
    "cluster.vocabulary",
    "cluster.transport": "cluster.spec cluster.vocabulary",
    "cluster.spec": "cluster.protocol cluster.vocabulary",
    "cluster.work": "cluster.protocol cluster.models.frames cluster.vocabulary",
    "cluster.models": "cluster.models.kinds cluster.models.runtime cluster.models.providers "
    "cluster.models.repository "
    "cluster.models.frames cluster.scratch cluster.vocabulary",
    "cluster.models.kinds": "cluster.models.runtime cluster.models.repository "
    "cluster.models.frames cluster.vocabulary",
    "cluster.models.runtime": "cluster.models.providers cluster.models.repository "
    "cluster.models.frames cluster.scratch cluster.vocabulary",
    "cluster.models.providers": "cluster.models.repository cluster.vocabulary",
    "cluster.models.repository": "cluster.vocabulary",
    "cluster.models.frames": "cluster.vocabulary",
    "cluster.protocol": "cluster.vocabulary",
    "cluster.core": "cluster.vocabulary",
    "cluster.scratch": "",
    "cluster.vocabulary": "",
}
#: The sans-IO rooms.
SANS_IO = {"cluster.vocabulary", "cluster.core", "cluster.protocol"}

#: What the sans-IO rooms are handed instead of importing.
OUTSIDE_WORLD = set(
    "asyncio concurrent datetime multiprocessing os random secrets select selectors signal socket "
    "subprocess threading time uuid zmq".split()
)

MODULE_LINES_MAX = 400
FOLDER_MODULES_MAX = 16
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
        return set(self.imported_by(statements(self.tree)))

    def imported_by(self, nodes: Iterator[ast.AST]) -> Iterator[str]:
        package = ".".join(self.path.split("/")[:-1])
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{source}.{alias.name}" for alias in node.names)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node. There are none in expressions, which are most of a tree."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from statements(child)


def files(*patterns: str) -> list[File]:
    paths = sorted(chain.from_iterable(map(ROOT.glob, patterns)))
    return [File(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


def arrows(project: list[File]) -> dict[str, set[str]]:
    """For each module, the modules of the project that it imports, for its types alone too."""
    graph: dict[str, set[str]] = {module.module: set() for module in project}
    for module in project:
        for target in module.imports:
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
    for node in statements(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def opening_prose(module: File) -> list[str]:
    if len((ast.get_docstring(module.tree) or "").split()) >= DOCSTRING_WORDS_MIN:
        return []
    return [f"{module.path}: open with a docstring that says why the file exists"]


def sleeps(module: File) -> list[str]:
    if "sleep" not in module.text:
        return []
    calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    if "time.sleep" in calls or ("sleep" in calls and "time.sleep" in module.imports):
        return [f"{module.path} sleeps and hopes: wait for what it hopes for"]
    return []


# Rules for the imports of all files


def layering(project: list[File]) -> list[str]:
    """Each folder imports what its row allows; rows look down only, and modules form no circle."""
    order = list(HOUSE)
    found = [
        f"the row of {row} names {name}, which is not below it"
        for at, row in enumerate(order)
        for name in HOUSE[row].split()
        if name not in order[at + 1 :]
    ]
    graph = arrows(project)
    rows = {name: folder(name) for name in graph}
    found += [
        f"{name}: give {row} a row in HOUSE" for name, row in rows.items() if row not in HOUSE
    ]
    found += [
        f"{name} imports {target}, which its row does not allow"
        for name, targets in graph.items()
        for target in sorted(targets)
        if rows[target] not in (rows[name], *HOUSE.get(rows[name], rows[target]).split())
    ]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("a circle: " + " ← ".join(error.args[1]))
    return found


def folder(module: str) -> str:
    """The row of a module: its folder's; its own if it is a folder or lies in a whole package."""
    above = module.rpartition(".")[0]
    return module if module in HOUSE or above in ("cluster", "perfkit") else above


def rooms(project: list[File]) -> list[str]:
    """A folder has one purpose: few modules, and none that repeats the folder's name."""
    by_folder: dict[str, list[str]] = {}
    for file in project:
        if not file.path.endswith("__init__.py"):
            path, _, name = file.path.rpartition("/")
            by_folder.setdefault(path, []).append(name.removesuffix(".py"))
    return [
        f"{path}: {len(names)} modules; is it one room?"
        for path, names in by_folder.items()
        if len(names) > FOLDER_MODULES_MAX
    ] + [
        f"{path}/{name}.py repeats its folder's name"
        for path, names in by_folder.items()
        for name in names
        if name == path.rpartition("/")[2]
    ]


def sans_io(project: list[File]) -> list[str]:
    return [
        f"{module.path} imports {name}: the core is handed what it needs from outside"
        for module in project
        for name in sorted(module.imports)
        if folder(module.module) in SANS_IO and name.split(".")[0] in OUTSIDE_WORLD
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


# The project


PACKAGES = files("cluster/**/*.py", "perfkit/**/*.py")


def table() -> str:
    """Every folder from the top down: its modules and lines, what it imports, and why it exists."""
    graph = arrows(PACKAGES)
    lines = []
    for row in HOUSE:
        inside = [file for file in PACKAGES if folder(file.module) == row]
        if not inside:
            continue
        count = sum(len(file.text.splitlines()) for file in inside)
        seen = {folder(target) for file in inside for target in graph[file.module]} - {row}
        face = next((f for f in inside if f.module == row), inside[0])
        purpose = (ast.get_docstring(face.tree) or "").split("\n")[0]
        lines += [f"{row:26} {len(inside):3} modules {count:6,} lines  {purpose}"]
        lines += [f"    → {', '.join(name for name in HOUSE if name in seen)}"] if seen else []
    total = sum(len(file.text.splitlines()) for file in PACKAGES)
    circles = [text for text in layering(PACKAGES) if text.startswith("a circle")]
    return "\n".join([*lines, f"{total:,} lines in all; {'; '.join(circles) or 'no circle'}"])


if __name__ == "__main__":
    print(table())
