"""From an ONNX file to an answer at the terminal; each command's lines, JSON and exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from cluster.models.adding import NewModel, add_model
from tests.cluster.models.repository.test_folders import write_scale
from tests.cluster.models.runtime.test_network import make, node, onnx, port
from tests.cluster.models.vulkan import software
from tests.perfkit.cli.conftest import Up

Call = Callable[..., Result]


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    return write_scale(tmp_path / "scale.onnx", 2)


def repository(tmp_path: Path) -> Path:
    return tmp_path / "data" / "perfkit" / "models"


def test_a_model_is_added_listed_checked_and_removed(
    perfkit: Call, scale: Path, tmp_path: Path
) -> None:
    added = perfkit("model", "add", "mine", scale)
    assert added.exit_code == 0, added.stderr
    assert added.stdout.splitlines()[1:] == ["  takes FP32[?, 2] 'x'", "  gives FP32[?, 2] 'y'"]
    assert added.stdout.startswith("mine version 1, kind tensors, ")
    assert added.stderr == (
        f"in {repository(tmp_path)}/mine; serve it with `perfkit serve --model mine`\n"
    )
    assert perfkit("model", "add", "mine", scale, "--json", "added.json").exit_code == 0
    assert json.loads((tmp_path / "added.json").read_text())["version"] == "2"
    listed = perfkit("model", "list").stdout.splitlines()
    (line,) = [it for it in listed if it.startswith("mine")]
    assert line.split()[:4] == ["mine", "tensors", "1", "2*"]
    found = json.loads(perfkit("model", "list", "--json").stdout)
    assert found["repository"] == str(repository(tmp_path))
    assert [it["name"] for it in found["models"]] == ["digits", "magika", "mine", "minilm"]
    checked = perfkit("model", "check")
    assert checked.exit_code == 0
    assert [it.split()[:2] for it in checked.stdout.splitlines()[1:]] == [
        ["mine", "1"],
        ["mine", "2"],
    ]
    one = perfkit("model", "remove", "mine", "--version", 1)
    assert (one.exit_code, one.stderr) == (
        0, f"removed mine, version 1 from {repository(tmp_path)}\n"
    )  # fmt: skip
    gone = json.loads(perfkit("model", "remove", "mine", "--json").stdout)
    assert gone["versions"] == [2]
    assert "there is no model in" in perfkit("model", "check").stderr


def test_the_settings_name_the_repository_too(perfkit: Call, scale: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[cluster]\nrepository = "there"\n')
    assert perfkit("model", "add", "mine", scale, "--config", "mine.toml").exit_code == 0
    assert (tmp_path / "there" / "mine" / "1" / "model.onnx").is_file()


def test_golden_outputs_that_differ_end_an_add_and_a_check_with_1(
    perfkit: Call, scale: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([[1, 2]]))
    np.savez(tmp_path / "out.npz", y=np.array([[2, 4]]))
    np.savez(tmp_path / "bad.npz", y=np.array([[2, 5]]))
    bad = perfkit("model", "add", "mine", scale, "--golden", "in.npz", "bad.npz")
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert "is not the golden one: 1 of 2 values differ" in bad.stderr
    good = perfkit("model", "add", "mine", scale, "--golden", "in.npz", "out.npz")
    assert good.exit_code == 0
    assert "golden outputs match" in good.stdout
    write_scale(repository(tmp_path) / "mine" / "1" / "model.onnx", 3)
    checked = perfkit("model", "check", "mine")
    assert checked.exit_code == 1
    assert "failed" in checked.stdout
    assert checked.stderr.startswith("perfkit: model 'mine' on CPUExecutionProvider: the output")
    (found, *_) = json.loads(perfkit("model", "check", "--json").stdout)
    assert (found["name"], found["version"], "golden" in found["error"]) == ("mine", "1", True)


def test_a_check_includes_the_card_where_there_is_one(scale: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([[1, 2]]))
    np.savez(tmp_path / "out.npz", y=np.array([[2, 4]]))
    golden = tmp_path / "in.npz", tmp_path / "out.npz"
    add_model(NewModel("mine", scale, golden), tmp_path / "all")
    command = "-m perfkit model check --json --repository".split()
    done = subprocess.run(
        [sys.executable, *command, tmp_path / "all"],
        env={**os.environ, **software(), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        timeout=100,
    )
    found = {it["provider"]: (it["golden"], it["error"]) for it in json.loads(done.stdout)}
    assert found["WebGpuExecutionProvider"] == found["CPUExecutionProvider"] == (True, None)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ("add mine none.onnx", 1, "the file none.onnx is not there"),
        ("add a/b scale.onnx", 1, "'a/b' is no name for a model"),
        ("add mine scale.onnx --labels none", 1, "there is no file 'none', and a list has commas"),
        (
            "add mine scale.onnx --kind rowz",
            1,
            "there is no kind 'rowz'; there are file-type,",
        ),
        ("add mine scale.onnx --version 0", 2, "--version"),
        ("add mine", 2, "Missing argument"),
        ("remove none", 1, "there is no model 'none' in"),
        ("check none", 1, "there is no model 'none'; there are digits, magika, minilm"),
        ("list --repository /none", 2, "--repository: there is no folder /none"),
        ("add mine scale.onnx --repository /proc/none", 1, "cannot use /proc/none"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    perfkit: Call, scale: Path, arguments: str, code: int, complaint: str
) -> None:
    ended = perfkit("model", *arguments.split())
    assert ended.exit_code == code, ended.stderr
    assert complaint in ended.stderr


def test_a_model_whose_configuration_is_broken_is_listed_with_the_reason(
    perfkit: Call, scale: Path, tmp_path: Path
) -> None:
    perfkit("model", "add", "mine", scale, "--repository", "here")
    (tmp_path / "here" / "mine" / "config.toml").write_text("knid = 'rows'")
    listed = perfkit("model", "list", "--repository", "here")
    assert listed.exit_code == 0
    assert "there is no key 'knid'; did you mean 'kind'?" in listed.stdout


# Asking ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A cluster with a model of a repository, one of a file and one of a folder."""
    folder = tmp_path_factory.mktemp("served")
    write_scale(folder / "models" / "scale" / "1" / "model.onnx", 2)
    write_scale(folder / "models" / "scale" / "2" / "model.onnx", 3)
    (folder / "models" / "scale" / "config.toml").write_text('versions = "all"')
    write_scale(folder / "tenfold" / "model.onnx", 10)
    ports = [port(name, ["N", 1]) for name in "ab"]
    nodes = [node("Add", "a", "b", out="sum"), node("Sub", "a", "b", out="difference")]
    outputs = [port(name, ["N", 1]) for name in ("sum", "difference")]
    graph = make.make_graph(nodes, "g", ports, outputs)
    opset = [make.make_opsetid("", 16)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "sums.onnx")
    models = ("--model", "scale", "--model", "./sums.onnx", "--model", folder / "tenfold")
    up = Up(folder, "--workers", 1, "--repository", "models", *models)
    yield up
    up.stop()


@pytest.fixture
def submit(perfkit: Call, served: Up) -> Call:
    return lambda *arguments: perfkit(
        "cluster", "submit", "--endpoint", served.endpoint, "--model", *arguments
    )


def test_models_by_name_by_file_and_by_folder_are_tasks_of_their_names(
    perfkit: Call, served: Up
) -> None:
    found = json.loads(perfkit("cluster", "status", "--endpoint", served.endpoint, "--json").stdout)
    (worker,) = found["workers"]
    assert sorted(worker["models"]) == ["scale", "sums", "tenfold"]
    kinds = {"scale", "scale/1", "scale/2", "sums", "sums/1", "tenfold", "tenfold/1"}
    assert kinds <= {*worker["kinds"]}


def numbers(done: Result) -> list[str]:
    """What each line says after its name and time."""
    assert (done.exit_code, done.stderr) == (0, "")
    return [line.split(" ms  ")[-1].split("  ", 1)[-1].strip() if " ms  " not in line
            else line.split(" ms  ")[1] for line in done.stdout.splitlines()]  # fmt: skip


def test_tensors_are_read_from_csv_and_from_arrays(submit: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("\ufeff# two rows\nfirst,second\n1,2\n\n3,4\n")
    np.save(tmp_path / "rows.npy", np.array([[1, 2], [3, 4]]))
    np.save(tmp_path / "row.npy", np.array([1, 2]))
    np.savez(tmp_path / "rows.npz", x=np.array([[1, 2], [3, 4]], np.float32))
    np.savez(tmp_path / "nameless.npz", np.array([[1, 2]], np.float32))
    files = ("rows.csv", "rows.npy", "row.npy", "rows.npz", "nameless.npz")
    assert numbers(submit("scale", *files)) == [
        "y 3 6", "y 9 12", "y 3 6", "y 9 12", "y 3 6", "y 3 6", "y 9 12", "y 3 6"
    ]  # fmt: skip
    assert numbers(submit("scale/1", "row.npy")) == ["y 2 4"]
    assert numbers(submit("tenfold", "row.npy")) == ["y 10 20"]


def test_several_inputs_are_named_by_a_header_or_by_arrays(submit: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("b,c,a\n1,x,5\n2,y,7\n")
    np.savez(tmp_path / "rows.npz", a=np.array([[5], [7]]), b=np.array([[1], [2]]))
    expected = ["sum 6  difference 4", "sum 9  difference 5"]
    for file in ("rows.csv", "rows.npz"):
        assert numbers(submit("sums", file)) == expected
    result = json.loads(submit("sums", "rows.npz", "--json").stdout)["results"][0]["result"]
    assert result["outputs"]["sum"] == {
        "datatype": "FP32", "shape": [2, 1], "values": [[6.0], [9.0]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "1,2,3\n", "a.csv, line 1: 3 values; a row has 2"),
        ("a.csv", "1,2\n1,x\n", "a.csv, line 2: could not convert string to float: 'x'"),
        ("a.csv", "", "a.csv holds no rows"),
        ("a.csv", b"\xff\xfe\x00", "a.csv is neither text nor named .npy or .npz"),
        ("a.npy", "no array", "a.npy is no file of arrays: "),
        ("a.csv", "a;b\n", "a.csv holds no rows below its header 'a;b'"),
        ("a.npz", "no array", "can't read tensors from a.npz: it is not what numpy.savez writes"),
    ],
)
def test_a_file_that_is_no_input_is_an_error_that_names_the_place(
    submit: Call, tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = submit("scale", name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("perfkit: ")
    assert complaint in done.stderr


def test_arrays_that_do_not_fit_are_an_error_that_names_them(submit: Call, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", z=np.zeros((1, 2)))
    np.save(tmp_path / "b.npy", np.array([["x", "y"]]))
    np.save(tmp_path / "c.npy", np.zeros((2, 3)))
    done = submit("scale", "a.npz", "b.npy", "c.npy")
    assert done.stderr.splitlines() == [
        "perfkit: a.npz: there is no input 'z'; the model takes x",
        "perfkit: b.npy: 'x': <U1[1, 2] can't be taken as FP32",
        "perfkit: c.npy: PayloadError: model 'scale': expected FP32[?, 2] 'x', got FP32[2, 3]",
    ]
    done = submit("sums", "c.npy")
    assert "c.npy does not say which input is which: the model takes FP32[?, 1] 'a'" in done.stderr


def test_a_text_for_a_model_of_tensors_is_refused(submit: Call) -> None:
    done = submit("scale", "--payload", "x")
    assert done.exit_code == 2
    assert "--payload goes with --kind, or a model of texts" in done.stderr


@pytest.mark.parametrize("command", ["up", "worker"])
@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("none.onnx", "model 'none': there is no file or folder"),
        ("./none", "model 'none': there is no file or folder"),
        ("digitz", "there is no model 'digitz'; did you mean 'digits'?"),
    ],
)
def test_what_is_no_model_is_refused_before_anything_starts(
    perfkit: Call, command: str, model: str, complaint: str
) -> None:
    done = perfkit("cluster", command, "--model", model)
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_models_of_a_settings_file_may_be_paths(perfkit: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[cluster]\nmodels = ["./none.onnx"]\nrepository = "/nowhere"\n'
    )
    done = perfkit("cluster", "up", "--config", "mine.toml")
    assert "--repository: there is no folder /nowhere" in done.stderr
    done = perfkit("cluster", "up", "--config", "mine.toml", "--repository", ".")
    assert "model 'none': there is no file or folder" in done.stderr
