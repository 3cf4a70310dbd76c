"""``perfkit model precision``: each precision with its loss, speed and size; what auto takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from tests.cluster.models.vulkan import software

Call = Callable[..., Result]

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache for this module, so that each conversion takes place once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def test_each_precision_has_its_loss_speed_and_size_and_auto_keeps_to_its_budget(
    perfkit: Call, tmp_path: Path
) -> None:
    file = tmp_path / "told.json"
    done = perfkit("model", "precision", "digits", "--json", file)
    assert done.exit_code == 0, done.stderr
    told = json.loads(file.read_text())
    rows = {row["precision"]: row for row in told["rows"]}
    assert list(rows) == ["fp32", "fp16", "int8", "int4", "sparse"]
    assert told["inputs"] == "360 held-out rows"
    assert (rows["fp32"]["loss"], rows["fp32"]["verdict"]) == (None, "")
    assert (rows["sparse"]["loss"]["count"], rows["sparse"]["verdict"]) == (360, "beyond")
    # None of 360 changes: that may still be a point.
    assert rows["int8"]["loss"]["points"] == 0.0
    assert rows["int8"]["verdict"] == "inconclusive"
    assert rows["int4"]["file_bytes"] < rows["int8"]["file_bytes"] < rows["fp16"]["file_bytes"]
    assert rows["sparse"]["file_bytes"] == rows["fp32"]["file_bytes"]
    for row in rows.values():
        assert row["items_per_s_low"] <= row["items_per_s"] <= row["items_per_s_high"]
        assert len(row["item_s"]) >= 5
    (best,) = [row for row in rows.values() if row["auto"]]
    fit = [rows["fp32"], rows["fp16"]]  # which answers like the model's own file
    assert rows["fp16"]["difference"] < 1e-3
    assert best in fit
    assert best["items_per_s"] == max(row["items_per_s"] for row in fit)


def test_inputs_of_ones_own_are_used_and_the_table_marks_what_auto_takes(
    perfkit: Call, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", pixels=np.zeros((3, 64), np.float32))
    done = perfkit("model", "precision", "digits", "--golden", tmp_path / "mine.npz", "--budget", 0)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("→") for line in lines) == 1
    assert "by the mine.npz given; on " in done.stderr
    assert "the fastest that surely loses at most 0 points" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["digit"], 1, "there is no model 'digit'; did you mean 'digits'?"),
        (["digits", "--golden", "/none.npz"], 1, "can't read tensors from /none.npz"),
        (["digits", "--card", "card0"], 2, "--card: 'card0' is not a card's PCI address"),
        (["digits", "--budget", "-1"], 2, "Invalid value for '--budget'"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(
    perfkit: Call, arguments: list[str], code: int, complaint: str
) -> None:
    done = perfkit("model", "precision", *arguments)
    assert done.exit_code == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_card_has_rows_of_its_own_and_what_it_cannot_do_is_told(
    perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in software().items():
        monkeypatch.setenv(name, value)
    done = perfkit("model", "precision", "digits", "--json")
    assert done.exit_code == 0, done.stderr
    rows = {(it["precision"], it["provider"]): it for it in json.loads(done.stdout)["rows"]}
    assert len(rows) == 10
    assert "can't compute with float16" in rows["fp16", "webgpu"]["trouble"]
    for precision in ("fp32", "int8", "int4"):
        assert rows[precision, "webgpu"]["trouble"] == ""
        assert rows[precision, "webgpu"]["device"].startswith("SwiftShader")
