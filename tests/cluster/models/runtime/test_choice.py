"""What a model is opened with, where no card takes part: precisions, budgets, and what is refused.

`tests/cluster/models/test_on_card.py` has the choice between the processor and a card.
"""

from pathlib import Path

import numpy as np
import pytest

from cluster.models.inference import BUILT_IN, ModelRepository
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.candidates import (
    INPUTS,
    OWN,
    SAMPLE,
    Candidate,
    Request,
    Row,
    answers_name,
    outputs_name,
    try_candidates,
)
from cluster.models.runtime.choice import AUTO, Wish, fastest
from cluster.models.runtime.golden import read_groups, read_tensors, write_groups
from cluster.models.runtime.loss import Loss
from cluster.models.samples import held_out_digits

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

DIGITS = BUILT_IN / "digits" / "model.onnx"


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def row(
    precision: str,
    provider: str,
    speed: float,
    loss: Loss | None = None,
    trouble: str = "",
    difference: float = 0.1,
) -> Row:
    times = (1 / speed,) * 3
    return Row(
        precision, provider, 1, trouble=trouble, loss=loss, item_s=times, difference=difference
    )


def lost(low: float, points: float, high: float) -> Loss:
    return Loss(points, low, high, 1000)


ROWS = (
    row("fp32", "cpu", 100),
    row("fp32", "webgpu", 90),
    row("int8", "cpu", 200, lost(-0.1, 0.2, 0.4)),
    row("int8", "webgpu", 300, lost(0.1, 0.2, 0.6)),
    row("int4", "webgpu", 900, lost(0, 0, 0), trouble="it failed"),
    # As near to the model's own answers as those of another device.
    row("fp16", "webgpu", 150, lost(0, 0, 1.1), difference=1e-4),
)


@pytest.mark.parametrize(
    ("wish", "rows", "chosen"),
    [
        (Wish(), ROWS[:2], 0),
        (Wish(), ROWS[1:2], 0),
        (Wish(AUTO, AUTO), ROWS, 2),
        (Wish(AUTO, AUTO, budget_points=1.0), ROWS, 3),
        (Wish(AUTO, AUTO, budget_points=0.0), ROWS, 5),
        # One that is asked for by name is taken whatever it loses.
        (Wish(AUTO, "int8"), ROWS[2:4], 1),
        (Wish(AUTO, "int4"), ROWS[4:5], None),
        (Wish(), (), None),
    ],
)
def test_the_fastest_that_is_right_and_surely_within_the_budget_is_chosen(
    wish: Wish, rows: tuple[Row, ...], chosen: int | None
) -> None:
    assert fastest(wish, rows) == chosen


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        (Wish("gpu"), "there is no provider 'gpu'"),
        (Wish("web-gpu"), "there is no provider 'web-gpu'; did you mean 'webgpu'"),
        (Wish(precision="fp8"), "there is no precision 'fp8'; there are auto, fp32, "),
        (Wish(options={"deviceID": "1"}), "WebGpuExecutionProvider has no option 'deviceID'"),
    ],
)
def test_a_wish_for_what_there_is_not_is_refused(wish: Wish, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        ModelRepository().load("digits", wish=wish)


def test_a_configuration_asks_for_a_precision(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(DIGITS.read_bytes())
    (folder / "config.toml").write_text('precision = "int8"\n')
    info = ModelRepository(tmp_path).load("mine").describe()
    assert info.precision == "int8"
    assert info.file_size_bytes < DIGITS.stat().st_size / 2
    (folder / "config.toml").write_text('precision = "int9"\n')
    with pytest.raises(ModelError, match=r"model 'mine': .*config\.toml: .* 'int9'"):
        ModelRepository(tmp_path).load("mine")


def test_an_automatic_precision_is_measured_once_and_told(home: Path) -> None:
    first = ModelRepository().load("digits", wish=Wish("cpu", AUTO)).describe()
    again = ModelRepository().load("digits", wish=Wish("cpu", AUTO)).describe()
    assert first.precision in ("fp32", "fp16", "int8", "int4")
    (note, *_) = first.notes
    assert note.startswith(f"chosen cpu {first.precision}: ")
    assert "; cpu sparse: " in note
    assert again.notes[0] == note
    assert len(list((home / "perfkit").glob("digits-choice-*"))) == 1


def test_a_trial_tells_what_a_candidate_fails_at_and_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"junk")
    some = (Candidate("int8", "cpu", str(broken)), Candidate("fp32", "cpu", str(DIGITS)))
    first, second = try_candidates(Request("digits", str(DIGITS), some, str(tmp_path)), tmp_path)
    assert "onnxruntime cannot run" in first.trouble
    assert first.item_s == ()
    assert (second.trouble, second.difference, second.loss) == ("", 0.0, None)
    assert second.nodes_by_provider == {"CPUExecutionProvider": 6}
    assert len(second.item_s) >= 5


def test_inputs_are_run_in_parts_and_all_of_them_are_answered(tmp_path: Path) -> None:
    rows, _ = held_out_digits()
    write_groups(tmp_path / INPUTS, [{"arr_0": rows}, {"pixels": rows[:5]}])  # savez needs no names
    some = (Candidate("fp32", "cpu", str(DIGITS)),)
    request = Request("digits", str(DIGITS), some, str(tmp_path), rows_max=8)
    (row,) = try_candidates(request, tmp_path)
    assert (row.trouble, row.rows) == ("", 8)
    sample = read_tensors(tmp_path / SAMPLE)
    assert np.array_equal(sample["pixels"], rows[:8])
    assert read_tensors(tmp_path / outputs_name(0))["probabilities"].shape == (8, 10)
    own, answers = read_groups(tmp_path / OWN), read_groups(tmp_path / answers_name(0))
    assert [len(it["probabilities"]) for it in answers] == [len(rows), 5]
    for one, other in zip(own, answers, strict=True):
        assert np.array_equal(one["probabilities"], other["probabilities"])


def test_inputs_that_do_not_fit_the_model_are_told(tmp_path: Path) -> None:
    write_groups(tmp_path / INPUTS, [{"other": np.zeros((2, 64), np.float32)}])
    some = (Candidate("fp32", "cpu", str(DIGITS)),)
    with pytest.raises(ModelError, match=r".*'other'; the graph has 'pixels'"):
        try_candidates(Request("digits", str(DIGITS), some, str(tmp_path)), tmp_path)


def test_a_model_that_the_processor_does_not_run_cannot_be_tried(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"junk")
    request = Request("mine", str(broken), (Candidate("fp32", "cpu", str(broken)),), str(tmp_path))
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        try_candidates(request, tmp_path)


def test_a_precision_that_is_no_faster_is_not_asked_everything(tmp_path: Path) -> None:
    model = onnx.load(DIGITS)
    name, steps = model.graph.node[0].input[0], []
    for at in range(300):  # nodes that change nothing, and take far longer than the rest
        steps.append(onnx.helper.make_node("Neg", [name], [f"step{at}"]))
        name = f"step{at}"
    model.graph.node[0].input[0] = name
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "slow.onnx")
    rows, _ = held_out_digits()
    write_groups(tmp_path / INPUTS, [{"pixels": rows}])
    slow = Candidate("int8", "cpu", str(tmp_path / "slow.onnx"))
    some = (slow, Candidate("fp32", "cpu", str(DIGITS)))
    request = Request("digits", str(DIGITS), some, str(tmp_path), only_faster=True)
    first, second = try_candidates(request, tmp_path)
    assert (first.trouble, first.difference, second.trouble) == ("", 0.0, "")
    there = [(tmp_path / answers_name(at)).exists() for at in (0, 1)]
    assert there == [False, True]
