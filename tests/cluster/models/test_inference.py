"""Real models answer correctly, alone and in batches; a broken one is refused in one line."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.models.frames.tensor import pack_tensor
from cluster.models.inference import (
    BUILT_IN,
    Model,
    ModelError,
    ModelRepository,
    PayloadError,
    file_payload,
    model_handlers,
)
from cluster.models.kinds.filetypes import FILE_BLOCK_BYTES
from cluster.models.samples import held_out_digits

onnxruntime = pytest.importorskip("onnxruntime")
magika = pytest.importorskip("magika")

CPU = "CPUExecutionProvider"
#: In the runtime's own wheels, and given no node of an ordinary graph, like an idle GPU.
IDLE = "AzureExecutionProvider"

decode = msgspec.msgpack.decode


@pytest.fixture(scope="module")
def digits() -> Model:
    return ModelRepository().load("digits")


@pytest.fixture(scope="module")
def filetypes() -> Model:
    return ModelRepository().load("magika")


@pytest.fixture(scope="module")
def reference() -> "magika.Magika":
    return magika.Magika()


# Digits ----------------------------------------------------------------------------------------


def test_digits_labels_the_held_out_rows_correctly(digits: Model) -> None:
    rows, labels = held_out_digits()
    assert rows.shape == (360, 64)
    results = [decode(result) for result in digits.infer_batch([pack_tensor(row) for row in rows])]
    right = sum(it["label"] == label for it, label in zip(results, labels, strict=True))
    assert right / len(labels) >= 0.95
    assert all(0.0 < it["score"] <= 1.0 for it in results)
    assert results[0].keys() == {"label", "score"}


def test_a_batch_of_mixed_payloads_is_answered_in_order_for_any_rows_of_a_run(
    digits: Model, tmp_path: Path
) -> None:
    make_model(tmp_path, labels=list(range(10)), batch_items_max=2)
    rows, labels = held_out_digits()
    payloads = [pack_tensor(it) for it in (rows[0], rows[1:3], rows[:0], rows[3:4], rows[4:20])]
    for model in (digits, ModelRepository(tmp_path).load("mine")):
        one, *several = map(decode, model.infer_batch(payloads))
        assert one["label"] == labels[0]
        assert [len(it) for it in several] == [2, 0, 1, 16]
        alone = [decode(it) for it in model.infer_batch([pack_tensor(row) for row in rows[4:20]])]
        assert [it["label"] for it in several[3]] == [it["label"] for it in alone]
        assert model.handle_batch([]) == []


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"junk", "not a tensor"),
        (pack_tensor(np.zeros(64)), r"expected float32\[64\].*got float64\[64\]"),
        (pack_tensor(np.zeros(63, np.float32)), r"got float32\[63\]"),
        (pack_tensor(np.zeros((1, 8, 8), np.float32)), r"got float32\[1, 8, 8\]"),
        (pack_tensor(np.float32(0)), r"got float32\[\]"),
        (pack_tensor(np.full(64, 255, np.float32)), "within 0 and 16"),
        (pack_tensor(np.full(64, -1, np.float32)), "within 0 and 16"),
        (pack_tensor(np.full(64, np.nan, np.float32)), "within 0 and 16"),
    ],
)
def test_a_bad_payload_fails_alone(digits: Model, payload: bytes, complaint: str) -> None:
    rows, labels = held_out_digits()
    first, bad, last = digits.handle_batch([pack_tensor(rows[0]), payload, pack_tensor(rows[1])])
    assert [decode(first)["label"], decode(last)["label"]] == list(labels[:2])
    assert isinstance(bad, PayloadError)
    with pytest.raises(PayloadError, match=f"model 'digits': .*{complaint}"):
        digits.infer_batch([payload])


# File types --------------------------------------------------------------------------------------


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as it:
        it.writestr("a.txt", "text " * 99)
    return buffer.getvalue()


SOURCE = (BUILT_IN / "inference.py").read_bytes()
NOISE = random.Random(7).randbytes(20_000)
CONTENTS = {
    "empty": b"",
    "few letters": b"hello",
    "few bytes": b"\xff\xfe\x00\xff",
    "only blanks": b" \n\t" * 3000,
    "blanks before a program": b"\n" * 4000 + SOURCE,
    "a program": SOURCE,
    "one block": SOURCE[:4096],
    "two blocks": (SOURCE * 2)[:8192],
    "two blocks and one byte": (SOURCE * 2)[:8193],
    "a long program": SOURCE * 20,
    "markdown": b"# Title\n\nSome *prose*, a [link](a.md) and\n\n- a list\n- of two\n" * 9,
    "json": json.dumps({"name": "a", "items": [{"id": i} for i in range(40)]}, indent=2).encode(),
    "html": b"<!doctype html><html><head><title>t</title></head><body><p>x</p></body></html>",
    "zip": archive(),
    "gzip": gzip.compress(SOURCE, mtime=0),
    "random bytes": NOISE,
    "latin-1 text": "déjà vu, à bientôt ".encode("latin-1") * 40,
    "zeros": bytes(10_000),
}


def as_magika_says(result: "magika.types.MagikaResult") -> dict[str, object]:
    output = result.prediction.output
    return {
        "label": str(output.label),
        "mime_type": output.mime_type,
        "group": output.group,
        "description": output.description,
        "score": pytest.approx(result.score, abs=1e-4),
    }


def test_made_up_files_are_what_magika_says(
    filetypes: Model, reference: "magika.Magika", tmp_path: Path
) -> None:
    answers = filetypes.infer_batch(list(CONTENTS.values()))
    for (name, content), answer in zip(CONTENTS.items(), answers, strict=True):
        assert decode(answer) == as_magika_says(reference.identify_bytes(content)), name
        path = tmp_path / name
        path.write_bytes(content)
        (again,) = filetypes.infer_batch([file_payload(path)])
        assert decode(again) == decode(answer), name
    found = {decode(answer)["label"] for answer in answers}
    assert {"empty", "txt", "unknown", "python", "json", "zip"} < found <= set(filetypes.labels)


def test_a_big_file_is_sent_as_its_ends(
    filetypes: Model, reference: "magika.Magika", tmp_path: Path
) -> None:
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        file.write(CONTENTS["zip"])
        file.truncate(50 << 20)
        file.seek(-len(CONTENTS["zip"]), os.SEEK_END)
        file.write(CONTENTS["zip"])
    payload = file_payload(path)
    assert len(payload) == 2 * FILE_BLOCK_BYTES
    (answer,) = filetypes.infer_batch([payload])
    assert decode(answer) == as_magika_says(reference.identify_path(path))
    assert decode(answer)["label"] == "zip"


text_and_blanks = st.lists(
    st.sampled_from([b" ", b"\n", b"\t", b"x", b"\xff", b"def f(): pass\n", b" " * 2000, NOISE]),
    max_size=12,
).map(b"".join)


@given(content=text_and_blanks)
@settings(max_examples=30)
def test_any_content_has_the_same_answer_whole_and_shortened(
    filetypes: Model, reference: "magika.Magika", content: bytes
) -> None:
    short = content
    if len(content) > 2 * FILE_BLOCK_BYTES:
        short = content[:FILE_BLOCK_BYTES] + content[-FILE_BLOCK_BYTES:]
    whole, shortened = map(decode, filetypes.infer_batch([content, short]))
    assert whole == as_magika_says(reference.identify_bytes(content))
    assert shortened == whole


def test_a_pipe_a_folder_and_a_missing_path_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PayloadError, match=r"pipe is not a regular file"):
        file_payload(tmp_path / "pipe")
    with pytest.raises(PayloadError, match=r"is a directory"):
        file_payload(tmp_path)
    with pytest.raises(PayloadError, match=r"cannot read .*nothing: No such file"):
        file_payload(tmp_path / "nothing")


# Repository --------------------------------------------------------------------------------------


def make_model(root: Path, folder_name: str = "mine", **changes: object) -> Path:
    """A copy of digits under another name, its manifest changed; None leaves a line out."""
    folder = root / folder_name
    folder.mkdir(parents=True)
    shutil.copy(BUILT_IN / "digits" / "model.onnx", folder)
    lines = {
        "name": folder_name,
        "kind": "rows",
        "file": "model.onnx",
        "description": "a copy",
        "labels": list("abcdefghij"),
    } | changes
    text = "".join(f"{key} = {json.dumps(it)}\n" for key, it in lines.items() if it is not None)
    (folder / "config.toml").write_text(text)
    return folder


def save_lookup(folder: Path, row: list[int]) -> None:
    """A graph that looks each number up in a table of 17, and fails where one is 17 or more."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["numbers"], ["places"], to=kind.INT64),
        helper.make_node("Gather", ["table", "places"], ["found"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("numbers", kind.FLOAT, [None, *row])],
        [helper.make_tensor_value_info("found", kind.FLOAT, [None, *row])],
        [helper.make_tensor("table", kind.FLOAT, [17], [i / 16 for i in range(17)])],
    )
    opset = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")


def test_the_repository_lists_its_models_and_those_of_a_folder_which_come_first(
    tmp_path: Path,
) -> None:
    assert ModelRepository().names() == ["digits", "magika", "minilm"]
    make_model(tmp_path)
    make_model(tmp_path, "digits")
    (tmp_path / "not a model").mkdir()
    repository = ModelRepository(tmp_path)
    assert repository.names() == ["digits", "magika", "mine", "minilm"]
    assert repository.load("digits").labels == tuple("abcdefghij")


def test_a_model_in_a_folder_of_the_user_answers_with_its_own_labels(tmp_path: Path) -> None:
    make_model(tmp_path)
    rows, labels = held_out_digits()
    handler = model_handlers(["mine"], tmp_path)["mine"]
    (result,) = handler([pack_tensor(rows[0])])
    assert decode(result)["label"] == "abcdefghij"[labels[0]]
    (unbounded,) = handler([pack_tensor(np.full(64, 255, np.float32))])
    assert decode(unbounded)["label"] in "abcdefghij"
    (infinite,) = handler([pack_tensor(np.full(64, np.inf, np.float32))])
    assert isinstance(infinite, PayloadError)


def test_a_model_says_what_it_is_and_where_it_runs(digits: Model) -> None:
    content = (BUILT_IN / "digits" / "model.onnx").read_bytes()
    info = digits.describe()
    assert (info.name, info.kind, info.labels, info.threads) == ("digits", "rows", digits.labels, 1)
    assert info.file_sha256 == hashlib.sha256(content).hexdigest()
    assert info.file_size_bytes == len(content)
    assert 0 < info.network_ms < info.load_ms
    assert (info.shared, info.notes) == (False, ())
    assert (info.provider, digits.provider, digits.threads) == (digits.provider, info.provider, 1)
    assert info.provider in onnxruntime.get_available_providers()
    assert msgspec.json.decode(msgspec.json.encode(info))["description"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("digit", r"no model 'digit'; did you mean 'digits'\?"),
        ("zzz", "no model 'zzz'; there are digits, magika, minilm"),
        ("../digits", "model 'digits': there is no file or folder /"),
    ],
)
def test_an_unknown_model_is_refused_with_a_hint(name: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        ModelRepository().load(name)
    with pytest.raises(ModelError, match=complaint):
        model_handlers(["digits", name])


def test_a_missing_root_and_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere does not exist"):
        ModelRepository(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="threads must be 1 or more, not 0"):
        ModelRepository().load("digits", threads=0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "other"}, "names it 'other'; rename"),
        ({"kind": "poem"}, "no kind 'poem'; there are file-type, rows, tensors, text-embedding"),
        ({"versions": "newest"}, "versions"),
        ({"versions": [2]}, "asks for version 2; there are 1"),
        ({"lables": []}, "there is no key 'lables'; did you mean 'labels'"),
        ({"batch_items_max": 0}, "batch_items_max"),
        ({"file": "../mine/model.onnx"}, "must lie in its folder"),
        ({"file": "/etc/hostname"}, "must lie in its folder"),
        ({"file": "absent.onnx"}, "no file 'absent.onnx' in "),
        ({"file": "config.toml"}, "onnxruntime cannot run .*config.toml: it is no ONNX file"),
        ({"labels": ["a"]}, "1 label for the scores .*10"),
        ({"package": "no.such.package"}, r"needs the extra \[infer\]"),
        ({"package": "no_such_package"}, r"needs the extra \[infer\]"),
        ({"kind": "file-type"}, "kind 'file-type' needs a package"),
        (
            {"kind": "file-type", "package": "cluster", "file": "models/digits/model.onnx"},
            "cannot read the configuration in the package cluster",
        ),
        (
            {"package": "magika", "file": "models/*/model.onnx"},
            r"wants a graph that takes FP32\[\?, 2048\] 'bytes'; this one takes INT32",
        ),
    ],
)
def test_a_broken_model_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    make_model(tmp_path, **changes)
    with pytest.raises(ModelError, match=f"model 'mine': .*{complaint}|'mine' {complaint}"):
        ModelRepository(tmp_path).load("mine")


def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    manifest = make_model(tmp_path) / "config.toml"
    manifest.write_bytes(b"name = \xff")
    with pytest.raises(ModelError, match=r"model 'mine': .*config.toml: "):
        ModelRepository(tmp_path).load("mine")
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(ModelError, match=r"'mine': cannot read .*config.toml: Is a directory"):
        ModelRepository(tmp_path).load("mine")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_inputs_at_offsets": True},
        {"block_size": 8192},
        {"beg_size": 512},
        {"target_labels_space": ["txt"] * 213},
        {"overwrite_map": {"python": "no such type"}},
        {"block_size": 0},
    ],
)
def test_a_package_that_reads_files_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    original = Path(magika.__file__).parent
    package = tmp_path / "other_magika"
    for part in ("models", "config"):
        shutil.copytree(original / part, package / part)
    (package / "__init__.py").touch()
    (config,) = package.glob("models/*/config.min.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    monkeypatch.syspath_prepend(tmp_path)
    make_model(
        tmp_path / "models", kind="file-type", package="other_magika", file="models/*/model.onnx"
    )
    with pytest.raises(ModelError, match=r"model 'mine': .*(not supported|>= 1)"):
        ModelRepository(tmp_path / "models").load("mine")


def test_a_network_that_takes_pictures_is_refused_as_rows(tmp_path: Path) -> None:
    save_lookup(make_model(tmp_path, labels=["left", "right"]), row=[8, 2])
    with pytest.raises(ModelError, match=r"model.onnx does not take rows of a fixed width"):
        ModelRepository(tmp_path).load("mine")


# Providers ---------------------------------------------------------------------------------------


def test_a_provider_that_runs_no_part_of_the_model_is_not_claimed() -> None:
    assert IDLE in onnxruntime.get_available_providers()
    model = ModelRepository().load("digits", preference=(IDLE, CPU))
    assert model.provider == CPU
    assert model.describe().nodes_by_provider == {CPU: 6}


def test_a_runtime_that_cannot_count_nodes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    tells = "get_provider_graph_assignment_info"
    (home,) = [it for it in onnxruntime.InferenceSession.__mro__ if tells in vars(it)]
    monkeypatch.delattr(home, tells)
    model = ModelRepository().load("digits", preference=(IDLE, CPU))
    assert (model.provider, model.describe().nodes_by_provider) == (CPU, None)


def test_providers_that_cannot_do_it_are_named_with_the_reason() -> None:
    with pytest.raises(ModelError, match=f"{IDLE}: it takes no part of the graph"):
        ModelRepository().load("digits", preference=(IDLE,))
    with pytest.raises(ModelError, match=r"cannot run .*: only .*CPUExecutionProvider available"):
        ModelRepository().load("digits", preference=("ROCMExecutionProvider",))


def test_the_session_has_the_threads_asked_for_and_does_not_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    opened = onnxruntime.InferenceSession

    def record(path, options, **rest):
        seen.append(options)
        return opened(path, options, **rest)

    record.get_provider_graph_assignment_info = None
    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    assert ModelRepository().load("digits", threads=2).threads == 2
    (options,) = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_failure_inside_the_runtime_spares_the_others(tmp_path: Path) -> None:
    save_lookup(make_model(tmp_path, labels=["left", "right"]), row=[2])
    model = ModelRepository(tmp_path).load("mine")
    rows = [[1, 2], [99, 0], [16, 3]]
    first, bad, last = model.handle_batch([pack_tensor(np.float32(row)) for row in rows])
    assert (decode(first)["label"], decode(last)["label"]) == ("right", "left")
    assert isinstance(bad, ModelError)
    assert "model 'mine' failed: " in str(bad)
    assert "\n" not in str(bad)


# Without the extra -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "missing"), [("digits", "onnxruntime"), ("magika", "magika"), ("digits", "numpy")]
)
def test_a_missing_extra_is_named_in_a_sentence(model: str, missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from cluster.models.inference import ModelError, ModelRepository
try:
    ModelRepository().load({model!r})
except ModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = f"model '{model}' needs the extra [infer]: pip install 'perfkit[infer]'\n"
    assert done.stdout == expected, done.stderr


def test_a_client_can_read_files_without_the_extra(tmp_path: Path) -> None:
    program = """
import sys
from cluster.models.inference import ModelRepository, file_payload
ModelRepository().names(), file_payload(sys.executable)
print(*{"numpy", "onnxruntime", "magika"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "\n", done.stderr
