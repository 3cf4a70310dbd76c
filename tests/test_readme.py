"""The README as a promise: its picture is the code's, its Python runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.vocabulary.lifecycle import diagram

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_life_cycle_picture_is_the_one_that_the_table_gives() -> None:
    pictures = re.findall(r"```mermaid\n(.*?)\n```", README, flags=re.DOTALL)
    assert pictures == [diagram()]


@pytest.mark.parametrize(
    ("number", "prints"),
    [(0, "PerformanceStats("), (1, "Status(")],
    ids=["embedded", "local"],
)
def test_a_python_example_with_a_cluster_runs_as_printed(number: int, prints: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PYTHON[number]], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert prints in ran.stdout


@pytest.mark.parametrize("example", PYTHON, ids=["embedded", "local"])
def test_every_python_example_compiles(example: str) -> None:
    compile(example, "README.md", "exec")


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_a_newcomer_reads_it_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 150
