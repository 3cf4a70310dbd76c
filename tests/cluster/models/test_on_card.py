"""Models on a card over Vulkan, with drivers that need no card: the work is right and is where it
is said to be, what is not a card is refused, and a card that is lost costs no task.

No real card took part in these tests.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster import LocalCluster
from cluster.models.frames.tensor import pack_tensor
from cluster.models.frames.tensors import DESCRIBE
from cluster.models.inference import BUILT_IN, ModelRepository
from cluster.models.providers.webgpu import ALLOW_SOFTWARE, WEBGPU
from cluster.models.runtime.candidates import Row
from cluster.models.runtime.session import CPU, processor_name
from cluster.models.samples import held_out_digits
from tests.cluster.models.vulkan import ask, radv, software

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
make = onnx.helper

PLACE = "tests.cluster.models.on_card:HANDLERS"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache that this module's processes share, so that each trial takes place once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def test_a_worker_on_a_card_is_right_and_says_where_it_runs(home: Path, tmp_path: Path) -> None:
    shutil.copytree(BUILT_IN / "digits", folder := tmp_path / "mine")
    with (folder / "config.toml").open("a") as config:
        config.write('provider = "webgpu"\n')
    rows, _ = held_out_digits()
    payload = pack_tensor(rows[:64])
    (wanted,) = ModelRepository().load("digits").infer_batch([payload])
    cluster = LocalCluster(1, models=[str(folder)], environments=[software()])
    with cluster as local, local.client() as client:
        found = client.submit("mine", payload).result(timeout=100)
        info = json.loads(client.submit("mine", DESCRIBE).result(timeout=100))
    for own, other in zip(*map(msgspec.msgpack.decode, (wanted, found)), strict=True):
        assert own["label"] == other["label"]
        assert own["score"] == pytest.approx(other["score"], abs=1e-5)
    assert info["provider"] == WEBGPU
    assert info["nodes_by_provider"] == {WEBGPU: 6}
    assert info["device"] == "SwiftShader Device (Subzero) (software)"
    assert info["notes"][0].startswith("chosen webgpu fp32: ")


def test_the_faster_of_processor_and_card_is_chosen_and_remembered(home: Path) -> None:
    told = ask("load", software(), "digits", "auto")
    assert (told["provider"], told["precision"]) == (CPU, "fp32")
    assert "chosen cpu fp32: " in told["notes"][0]
    assert "; webgpu fp32: " in told["notes"][0]
    (folder,) = [it for it in (home / "perfkit").glob("digits-choice-*") if told_by(it, told)]
    assert ask("load", software(), "digits", "auto")["notes"] == told["notes"]
    assert folder.exists()


def told_by(folder: Path, told: dict[str, Any]) -> bool:
    """Whether the figures of a note are those kept in a folder of the cache."""
    rows = msgspec.json.decode((folder / "rows.json").read_bytes(), type=list[Row])
    return all(str(row) in told["notes"][0] for row in rows)


def test_without_a_card_nothing_is_tried(home: Path) -> None:
    info = ModelRepository().load("digits").describe()
    assert (info.provider, info.notes) == (CPU, ())
    assert info.device == processor_name()


REFUSED = {
    "a software device without permission": (
        lambda: software(allowed=False),
        r"there is no AMD card for Vulkan: Vulkan shows SwiftShader .* \(software\); for tests "
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 permits",
    ),
    "another card than the one asked for": (
        lambda: software(card="0000:03:00.0"),
        r"the card at 0000:03:00.0 \(PERFKIT_CARD\) is not there for Vulkan: Vulkan shows Swift",
    ),
    "no driver": (
        lambda: {**software(), "VK_ICD_FILENAMES": "/nonexistent.json"},
        r"the Vulkan loader finds no driver that works .*; install mesa-vulkan-drivers",
    ),
    "a card that the runtime does not see": (
        lambda: {**radv(), ALLOW_SOFTWARE: "0"},
        r"WebGpuExecutionProvider finds no device, though Vulkan shows .*POLARIS10",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_worker_whose_card_is_not_there_does_not_start(home: Path, what: str) -> None:
    environment, complaint = REFUSED[what]
    done = subprocess.run(
        [sys.executable, "-m", "cluster.process", "worker", "--model", "digits",
         "--endpoint", "tcp://127.0.0.1:1"],
        env={**os.environ, **environment()}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search(f"worker: model 'digits': {complaint}", done.stderr)
    assert "Traceback" not in done.stderr


def test_without_the_extra_it_is_named(home: Path) -> None:
    needed = "models on a card need the extra [gpu]: pip install 'perfkit[gpu]'"
    assert ask("load_without_extra", software(), "webgpu") == f"model 'digits': {needed}"
    told = ask("load_without_extra", software(), "auto")
    assert (told["provider"], told["notes"]) == (CPU, [f"not tried on the card: {needed}"])


def test_a_polaris_card_has_no_float16_and_a_vega_card_has() -> None:
    (polaris,) = ask("devices", radv("polaris10"))
    (vega,) = ask("devices", radv("vega10"))
    assert "POLARIS10" in polaris["name"]
    assert "VEGA10" in vega["name"]
    assert [polaris["vendor_id"], vega["vendor_id"]] == [0x1002, 0x1002]
    assert [polaris["has_fp16"], vega["has_fp16"]] == [False, True]


def test_float16_on_a_card_without_it_is_found_at_load(home: Path) -> None:
    told = ask("load", software(), "digits", "webgpu", "fp16")
    assert "can't compute with float16 (WebGPU's shader-f16)" in told


@pytest.mark.slow
def test_weights_in_8_bits_are_right_on_a_card(home: Path) -> None:
    told = ask("load", software(), "digits", "webgpu", "int8")
    assert (told["provider"], told["precision"]) == (WEBGPU, "int8")


def test_a_driver_that_dies_in_the_trial_leaves_the_model_to_the_processor(home: Path) -> None:
    before = set((home / "perfkit").glob("digits-choice-*"))
    told = ask("load", radv(), "digits", "auto")
    assert told["provider"] == CPU
    assert re.search(
        r"webgpu fp32: (its process has died of SIG|the card is lost)", told["notes"][0]
    )
    told = ask("load", radv(), "digits", "webgpu")
    assert re.search("model 'digits' can't be served so: webgpu fp32: (its proc|the card is)", told)
    # It may pass, so it is tried again.
    assert set((home / "perfkit").glob("digits-choice-*")) == before


def test_a_card_whose_work_the_kernel_does_not_see_is_refused_until_the_next_load(
    home: Path,
) -> None:
    row = ask("try_unseen", software())
    assert row["trouble"].startswith("the card at 0000:03:00.0 did not do the work: this process")
    assert row["may_pass"]


def test_a_worker_that_loses_its_card_starts_again_and_its_tasks_go_on_elsewhere(
    home: Path, until: Any
) -> None:
    with LocalCluster(2, handlers=PLACE, environments=[radv()]) as local:
        first = local.workers[0]
        with local.client() as client:

            def restarts() -> int:
                tasks = [client.submit("lose", b"%d" % it) for it in range(40)]
                assert [task.result(100) for task in tasks] == [b"%d" % it for it in range(40)]
                return local.crew.restarts

            until(restarts)  # the other worker may take all tasks of a round
        assert not first.alive()
        assert local.crew.exit_code(first) in (1, -signal.SIGSEGV, -signal.SIGABRT)


def test_a_session_on_a_card_takes_turns_and_refuses_what_would_crash_or_hang(home: Path) -> None:
    told = ask("guards", software())
    assert told["empty"] == "its input 'pixels' has no rows, which a card can't run"
    assert told["forked"] == "a forked process can't use the card of the one it comes from"
    assert (told["runs"], told["apart"]) == (100, 0.0)
    assert re.fullmatch(
        "model 'digits' on the card: its answers are [0-9.]+ from those of its trial",
        told["other_answers"],
    )
    assert "SwiftShader" in told["claimed_again"]


def save(path: Path, *nodes: Any, constants: Sequence[Any] = ()) -> str:
    """A graph from float32 x[N, 4] to y."""
    ports = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    constants = [
        *constants,
        make.make_tensor("zero", onnx.TensorProto.INT64, [1], [0]),
        make.make_tensor("rest", onnx.TensorProto.INT64, [1], [4]),
        make.make_tensor("w", onnx.TensorProto.FLOAT, [4, 4], np.eye(4, dtype="f").ravel()),
    ]
    graph = make.make_graph(list(nodes), "g", ports[:1], ports[1:], constants)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 16)], ir_version=8), path)
    return str(path)


def test_a_graph_may_compute_extents_on_the_processor_and_nothing_else(tmp_path: Path) -> None:
    by_extents = save(
        tmp_path / "extents.onnx",
        make.make_node("Shape", ["x"], ["extents"], "shape"),
        make.make_node("Slice", ["extents", "zero", "rest"], ["same"], "slice"),
        make.make_node("MatMul", ["x", "w"], ["product"], "product"),
        make.make_node("Reshape", ["product", "same"], ["y"], "reshape"),
    )
    by_data = save(
        tmp_path / "data.onnx",
        make.make_node("MatMul", ["x", "w"], ["product"], "product"),
        make.make_node("Det", ["w"], ["one"], "determinant"),
        make.make_node("Hardmax", ["product"], ["chosen"], "chosen"),
        make.make_node("Mul", ["chosen", "one"], ["y"], "times"),
    )
    extents, data = (ask("try_file", software(), path) for path in (by_extents, by_data))
    assert extents["trouble"] == ""
    assert extents["difference"] <= 1e-5
    assert {operator for operator, _ in extents["cpu_nodes"]} <= {"Shape", "Slice"}
    assert extents["nodes_by_provider"][WEBGPU] >= 2
    assert "of its nodes would run on the CPU, with copies forth and back: " in data["trouble"]
    assert "Hardmax 'chosen'" in data["trouble"]


def test_a_model_that_cannot_be_tried_stays_on_the_processor_and_says_so(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "1").mkdir(parents=True)
    sevens = make.make_tensor("sevens", onnx.TensorProto.INT64, [2], [-1, 7])
    path = tmp_path / "mine" / "1" / "model.onnx"
    save(path, make.make_node("Reshape", ["x", "sevens"], ["y"]), constants=[sevens])
    told = ask("load", software(), "mine", "auto", "fp32", tmp_path)
    assert told["provider"] == CPU
    assert "not tried on SwiftShader" in told["notes"][0]
    assert "it takes no made-up inputs; golden ones would do: " in told["notes"][0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_minilm_on_a_card_is_right_with_its_extents_and_mask_on_the_processor(
    minilm_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(minilm_home))
    assert ask("load", software(), "minilm", "webgpu")["provider"] == WEBGPU
    (folder,) = (minilm_home / "perfkit").glob("minilm-choice-*")
    rows = msgspec.json.decode((folder / "rows.json").read_bytes(), type=list[Row])
    (row,) = [it for it in rows if it.provider == "webgpu"]
    assert row.difference is not None
    assert row.difference < 1e-5
    assert {it.operator for it in row.cpu_nodes} == {"Shape", "Cast"}
