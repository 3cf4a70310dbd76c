"""Tiny notebooks and the runs over them that several tests look at.

A kernel takes a second or two to start, so runs are made once per module and looked at often.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from perfkit.report import Progress, ReportRun, run_report
from perfkit.report.engine.plan import Plan

PARAMETERS = """\
profile: str = "quick"  # quick|full: how long to measure
seed: int = 3  # of everything random
workers: int = 2  # 1..64: worker processes
out_dir: str = "results"
"""

Writer = Callable[..., Path]


@pytest.fixture(scope="session")
def write_notebook(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Writes a notebook from cells: text that opens with `#` and a space is markdown."""

    def write(name: str, *cells: str, parameters: str | None = None) -> Path:
        made = []
        for source in cells:
            prose = source.lstrip("#").startswith(" ") and source.startswith("#")
            new = nbformat.v4.new_markdown_cell if prose else nbformat.v4.new_code_cell
            made.append(new(source))
        if parameters is not None:
            tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
            made.insert(1, tagged)
        path = tmp_path_factory.mktemp("notebooks") / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    return write


GOOD = (
    "# A *good* story",
    "## Where it runs\n\nA table:\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "import sys, os, random\nprint(sys.executable, os.environ['IPYTHONDIR'])",
    "(profile, seed, workers, out_dir)",
    "## What was found",
    "from perfkit.report import headlines\n"
    "headlines.record(out_dir, 'Throughput', 41_000.0, 'tasks/s', 40_000, 42_000,\n"
    "                 claim=1_000, verdict='faster', note='an echo of 200 bytes')\n"
    "headlines.record(out_dir, 'GPU memory', None, 'MiB', verdict='inconclusive')\n"
    "(__import__('pathlib').Path(out_dir) / 'raw.json').write_text('[1, 2]')",
    "## A profile",
    "def work():\n    return sum(range(1000))",
    "%prun work()",
    "## A profile",
    "%load_ext line_profiler\n%lprun -f work work()",
    "## A picture",
    "from perfkit.report.figures.charts import latency_distribution\n"
    "latency_distribution([1.0, 2.0, 3.0, 4.0] * 30)",
    "print(os.getcwd() + '/here', 'see http://example.org for more')",
)


@pytest.fixture
def plan() -> Plan:
    """The plan of a run of nothing."""
    return Plan((), {}, "quick", None, False, (), {}, datetime(2026, 3, 14, tzinfo=UTC))


@pytest.fixture(scope="session")
def gallery(write_notebook: Writer, tmp_path_factory: pytest.TempPathFactory) -> ReportRun:
    """Four notebooks in one run: a good one, and three that fail, load a script and die."""
    return run_report(
        [
            write_notebook("good", *GOOD, parameters=PARAMETERS),
            write_notebook(
                *("failing", "# Bad news", "## Before", "fine = 1"),
                *("## The *division*", "fine / 0", "print('never printed')"),
            ),
            write_notebook(
                "loading",
                "# A page with a script",
                "from IPython.display import HTML, SVG",
                "HTML('<script src=\"https://cdn.example.org/x.js\"></script><b>kept</b>')",
            ),
            write_notebook("dying", "# A kernel that dies", "import os", "os._exit(9)"),
        ],
        parameters={"workers": "4"},
        out_root=tmp_path_factory.mktemp("gallery"),
        progress=Progress(),
    )
