"""Rows that depend on each other never share a run; outputs that are not the golden ones refuse."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from cluster.models.inference import Model, ModelError, ModelRepository
from cluster.models.runtime.trial import mismatch
from tests.cluster.models.kinds.test_named_tensors import answer, frame
from tests.cluster.models.repository.test_folders import write_scale
from tests.cluster.models.runtime.test_network import FLOAT, TYPES, make, node, port, save

N2, M2 = port("x", ["N", 2]), port("y", ["M", 2])


def load(root: Path, *graph: Any, **more: Any) -> Model:
    root.mkdir(exist_ok=True)
    return save(root, *graph, **{"kind": "tensors", "labels": [], **more}).load("mine")


def one_hot(axis: int) -> list[Any]:
    return [node("Softmax", "x", axis=axis)]


def scan() -> list[Any]:
    return [node("CumSum", "x", "axis")]


AXIS = make.make_tensor("axis", TYPES.INT64, [], [0])
DEPENDENT: dict[str, tuple[Any, ...]] = {
    "a distribution over the rows": ([N2], [M2], one_hot(0)),
    "a running sum": ([N2], [M2], scan(), AXIS),
    "rows reversed": (
        [N2], [M2],
        [node("Slice", "x", "start", "end", "axes", "step")],
        *(make.make_tensor(name, TYPES.INT64, [1], [value]) for name, value in
          (("start", -1), ("end", -1000), ("axes", 0), ("step", -1))),
    ),
    "objects found": (
        [N2], [port("y", ["K"], TYPES.INT64)],
        [node("Round", "x", out="r"), node("NonZero", "r", out="z"), node("Flatten", "z", out="f"),
         node("Reshape", "f", "flat")],
        make.make_tensor("flat", TYPES.INT64, [1], [-1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DEPENDENT)
def test_open_first_axes_that_are_no_batch_are_found_out(tmp_path: Path, what: str) -> None:
    model = load(tmp_path, *DEPENDENT[what])
    info = model.describe()
    assert (info.batches, info.batch_items_max) == (False, 1)
    assert info.notes[-1].startswith("it does not batch: ")
    first, second = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 1.0]])
    payloads = [frame(x=("FP32", it)) for it in (first, second)]
    alone = [model.handle_batch([it])[0] for it in payloads]
    assert model.handle_batch(payloads) == alone


def test_golden_rows_that_are_all_alike_prove_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "golden_in.npz", x=np.ones((3, 2)))
    np.savez(tmp_path / "mine" / "golden_out.npz", y=np.ones((3, 2)))
    model = load(tmp_path, *DEPENDENT["rows reversed"])
    assert (model.describe().golden, model.describe().batches) == (True, False)


def test_golden_inputs_of_unlike_first_extents_are_no_batch(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "golden_in.npz", x=np.ones((3, 2)), z=np.ones((2, 1)))
    np.savez(tmp_path / "mine" / "golden_out.npz", y=np.full((3, 1), 2.0))
    inputs = [port("x", ["N", "K"]), port("z", ["K", "M"])]
    model = load(tmp_path, inputs, [port("y", ["N", "M"])], [node("MatMul", "x", "z")])
    assert (model.describe().golden, model.describe().batches) == (True, False)


def test_independent_rows_batch_and_the_configuration_has_the_last_word(tmp_path: Path) -> None:
    assert load(tmp_path / "a", [N2], [M2], one_hot(1)).describe().batches
    assert not load(tmp_path / "b", [N2], [M2], one_hot(1), batches=False).describe().batches
    assert load(tmp_path / "c", [N2], [M2], one_hot(0), batches=True).describe().batches


def test_a_graph_that_takes_no_made_up_input_is_served_one_by_one_with_a_note(
    tmp_path: Path,
) -> None:
    table = make.make_tensor("table", FLOAT, [1, 2], [1.0, 2.0])
    inputs = [port("x", ["N"], TYPES.INT64), port("step", ["N"], TYPES.INT64)]
    nodes = [node("Sub", "x", "step", out="d"), node("Add", "d", "seven", out="at"),
             node("Gather", "table", "at", axis=0)]  # fmt: skip
    seven = make.make_tensor("seven", TYPES.INT64, [1], [7])
    model = load(tmp_path, inputs, [M2], nodes, table, seven)
    assert model.refusal is not None
    assert "takes no made-up input: model 'mine' failed: " in model.describe().notes[0]
    assert not model.describe().batches
    (result,) = model.handle_batch([frame(x=("INT64", [0]), step=("INT64", [7]))])
    assert answer(result) == {"y": [[1, 2]]}


# Golden outputs ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that doubles, with golden outputs for all its versions."""
    write_scale(tmp_path / "scale" / "1" / "model.onnx", 2)
    save_golden(tmp_path / "scale", y=[[2, 4]])
    return tmp_path / "scale"


def save_golden(folder: Path, x: Any = ((1, 2),), **outputs: Any) -> None:
    np.savez(folder / "golden_in.npz", x=np.array(x, np.float32))
    np.savez(folder / "golden_out.npz", **{name: np.array(it) for name, it in outputs.items()})


def load_folder(folder: Path) -> Model:
    return ModelRepository(folder.parent).load("scale")


def test_golden_outputs_are_compared_at_each_load(folder: Path) -> None:
    assert load_folder(folder).describe().golden
    save_golden(folder, y=[[2, 4.1]])
    with pytest.raises(ModelError) as raised:
        load_folder(folder)
    assert str(raised.value) == (
        "model 'scale' on CPUExecutionProvider: the output 'y' is not the golden one: 1 of 2 "
        "values differ, most of all 4.0 instead of 4.1 at [0, 1], by 0.1; allowed are 0.0001 + "
        "0.001 × the value"
    )
    (folder / "config.toml").write_text("golden_rtol = 0.1")
    assert load_folder(folder).describe().golden


def test_a_versions_own_golden_outputs_come_before_those_of_the_model(folder: Path) -> None:
    write_scale(folder / "2" / "model.onnx", 3)
    with pytest.raises(ModelError, match="is not the golden one"):
        load_folder(folder)
    save_golden(folder / "2", y=[[3, 6]])
    assert load_folder(folder).describe().golden


def test_another_file_is_no_golden_one(folder: Path) -> None:
    np.save(folder / "lone.npy", [[1, 2]])
    (folder / "lone.npy").rename(folder / "golden_in.npz")
    with pytest.raises(ModelError, match=r"'scale': .*golden_in\.npz: it is not what numpy\.savez"):
        load_folder(folder)
    with ZipFile(folder / "golden_in.npz", "w") as archive:
        archive.writestr("x", "text")
    with pytest.raises(ModelError, match=r"'scale': .*golden_in\.npz: 'x' in it is no array"):
        load_folder(folder)


def test_arrays_without_names_and_several_rows_are_taken(folder: Path) -> None:
    np.savez(folder / "golden_in.npz", np.array([[1, 2]] * 600, np.float32))
    np.savez(folder / "golden_out.npz", np.array([[2, 4]] * 600, np.float64))
    assert load_folder(folder).describe().golden


@pytest.mark.parametrize(
    ("inputs", "outputs", "complaint"),
    [
        ({"z": [[1, 2]]}, {"y": [[2, 4]]}, "golden_in.npz has 'z'; the graph has 'x'"),
        ({"x": [1, 2]}, {"y": [[2, 4]]}, r"golden_in.npz has \[2\] for FP32\[\?, 2\] 'x'"),
        ({"x": [["a", "b"]]}, {"y": [[2, 4]]}, "golden_in.npz: 'x': <U1.* can't be taken as FP32"),
        ({"x": [[1, 2]]}, {}, "golden_out.npz has no array; the graph has 'y'"),
        ({"x": [[1e300, 2]]}, {"y": [[2, 4]]}, "golden_in.npz: 'x': float64.* taken as FP32"),
        ({"x": [[b"\xff", b"a"]]}, {"y": [[2, 4]]}, "golden_in.npz: 'x': 'utf-8' codec can't"),
        (
            {"arr_0": [[1, 2]], "arr_1": [[1, 2]]},
            {"y": [[2, 4]]},
            "golden_in.npz has 'arr_0'; the graph has 'x'",
        ),
        ({"x": [[1, 2]]}, {"y": [2, 4]}, r"its shape is \[1, 2\] instead of \[2\]"),
    ],
)
def test_golden_arrays_that_do_not_fit_are_an_error(
    folder: Path, inputs: dict[str, Any], outputs: dict[str, Any], complaint: str
) -> None:
    np.savez(folder / "golden_in.npz", **{name: np.array(it) for name, it in inputs.items()})
    np.savez(folder / "golden_out.npz", **{name: np.array(it) for name, it in outputs.items()})
    with pytest.raises(ModelError, match=f"'scale'.*{complaint}"):
        load_folder(folder)


def test_golden_files_that_cannot_be_read_are_an_error(folder: Path) -> None:
    (folder / "golden_out.npz").write_bytes(b"PK torn")
    with pytest.raises(ModelError, match=r"'scale': can't read tensors from .*golden_out\.npz"):
        load_folder(folder)
    (folder / "golden_out.npz").unlink()
    with pytest.raises(ModelError, match=r"'scale': can't read tensors from .*golden_out\.npz"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], None),
        ([1.0], [1.0009], None),
        ([1.0], [np.nan], "1 of 1 values differ, most of all nan instead of 1.0 at [0], by inf"),
        ([np.nan], [1.0], "1 of 1 values differ"),
        ([np.inf], [1.0], "1 of 1 values differ"),
        ([], [], None),
        (
            [0.0, 0.0],
            [5e-5, 2e-4],
            "1 of 2 values differ, most of all 0.0002 instead of 0.0 at [1]",
        ),
    ],
)
def test_numbers_differ_by_the_bounds(wanted: Any, found: Any, said: str | None) -> None:
    told = mismatch(np.array(wanted, float), np.array(found, float), 1e-3, 1e-4)
    assert (told or "").startswith(said or "")
    assert (told is None) == (said is None)


def test_whole_numbers_and_texts_must_be_equal() -> None:
    assert mismatch(np.array([1, 2]), np.array([1, 2]), 1, 1) is None
    texts = np.array(["a", "b"], object), np.array(["a", "c"], object)
    assert "most of all c instead of b at [1]; they must be equal" in str(
        mismatch(*texts, rtol=1, atol=1)
    )
