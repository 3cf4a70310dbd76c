"""Weights that workers share: the same answers, made once, made again when damaged."""

import os
import sys
from pathlib import Path

import pytest

from cluster import LocalCluster
from cluster.models.frames.tensor import pack_tensor, unpack_tensor
from cluster.models.inference import Model, ModelError, ModelRepository
from cluster.models.runtime import sharing
from cluster.models.samples import held_out_digits
from tests.cluster.models.test_inference import CPU, IDLE, decode, make_model

pytest.importorskip("onnxruntime")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ``perfkit``, the user's cache, would be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def load(home: Path, **options: object) -> Model:
    """The smallest of models, shared as if it were large."""
    return ModelRepository(share_bytes_min=0, **options).load("digits")


def made(home: Path) -> Path:
    (folder,) = (home / "perfkit").glob("digits-shared-*")
    return folder


def test_a_shared_model_gives_the_same_answers(home: Path) -> None:
    rows, _ = held_out_digits()
    payload = pack_tensor(rows)
    plain, shared = load(home, share=False), load(home)
    answers = [decode(model.infer_batch([payload])[0]) for model in (plain, shared)]
    for own, mapped in zip(*answers, strict=True):
        assert own["label"] == mapped["label"]
        assert own["score"] == pytest.approx(mapped["score"], abs=1e-6)
    assert shared.describe().nodes_by_provider is not None
    assert shared.describe().nodes_by_provider.keys() == {CPU}
    assert plain.describe().file_sha256 == shared.describe().file_sha256


def test_its_files_are_made_at_the_first_load_and_found_at_the_next(home: Path) -> None:
    first, second = load(home).describe(), load(home).describe()
    assert (first.shared, second.shared) == (True, True)
    assert first.notes == (f"made {made(home).name}: it was not there yet",)
    assert second.notes == ()


def test_a_model_below_the_bound_or_unwanted_leaves_no_files(home: Path) -> None:
    for repository in (ModelRepository(), ModelRepository(share_bytes_min=0, share=False)):
        info = repository.load("digits").describe()
        assert (info.shared, info.notes) == (False, ())
    assert not home.exists()


def test_weights_are_not_shared_with_another_provider_than_the_cpu(home: Path) -> None:
    repository = ModelRepository(share_bytes_min=0)
    assert not repository.load("digits", preference=(IDLE, CPU)).describe().shared
    assert repository.load("digits", preference=("NoSuchProvider", CPU)).describe().shared


def test_files_for_another_processor_are_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(home)
    monkeypatch.setattr(sharing, "processor", lambda: "another one")
    assert "it was not there yet" in load(home).describe().notes[0]
    assert len(list((home / "perfkit").glob("digits-shared-*"))) == 2


def garble(folder: Path) -> None:
    """Other bytes with the same size and time."""
    for name in ("model.onnx", "model.data"):
        stat = (folder / name).stat()
        (folder / name).write_bytes(bytes(stat.st_size))
        os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_that_the_runtime_refuses_is_made_again_with_the_reason(home: Path) -> None:
    load(home)
    garble(made(home))
    again = load(home)
    reason = "the file in the cache was refused: model 'digits': onnxruntime cannot run"
    assert reason in "; ".join(again.describe().notes)
    assert again.describe().shared
    rows, labels = held_out_digits()
    assert decode(again.infer_batch([pack_tensor(rows[0])])[0])["label"] == labels[0]
    assert load(home).describe().notes == ()


def test_without_a_cache_a_model_is_loaded_plainly_and_says_why(home: Path) -> None:
    home.write_text("not a folder")
    info = load(home).describe()
    assert not info.shared
    (note,) = info.notes
    assert note.startswith("not shared: model 'digits': the cache in ")
    assert note.endswith("XDG_CACHE_HOME names another place")


@pytest.mark.parametrize(
    ("content", "limit_s", "complaint"),
    [
        (b"junk", 60.0, r"cannot make a graph of .*model\.safetensors: .*No such file"),
        (b"junk", 0.001, "convert_bert was not done with .* in 0.001 s"),
    ],
)
def test_weights_that_cannot_be_converted_are_an_error(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    content: bytes, limit_s: float, complaint: str,
) -> None:  # fmt: skip
    folder = make_model(tmp_path / "models", kind="text-embedding", file="model.safetensors")
    (folder / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(sharing, "TIMEOUT_S", limit_s)
    with pytest.raises(ModelError, match=f"model 'mine': {complaint}"):
        ModelRepository(tmp_path / "models").load("mine")


def test_a_model_that_the_runtime_refuses_is_not_made_again_and_again(
    home: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "models")
    (folder / "model.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"model 'mine': onnxruntime cannot run .*model\.onnx"):
        ModelRepository(tmp_path / "models", share_bytes_min=0).load("mine")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("share", [True, False])
def test_a_worker_maps_the_weights_unless_it_is_told_not_to(
    minilm_home: Path, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(minilm_home))
    with LocalCluster(1, models=["minilm"], share_models=share) as local:
        mapped = Path(f"/proc/{local.workers[0].pid}/maps").read_text()
        with local.client() as client:
            vector = unpack_tensor(client.submit("minilm", b"text").result(timeout=30))
    assert vector.shape == (384,)
    assert (f"{minilm_home}/perfkit/minilm-shared-" in mapped) is share
