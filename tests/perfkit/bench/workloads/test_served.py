"""Real inputs with known truths, and models that are wrong about them."""

import random
from pathlib import Path

import msgspec
import pytest

from perfkit.bench.workloads import served
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.bench.workloads.served import model_work, python_files


def test_files_of_the_installed_python_are_told_apart() -> None:
    work = model_work("magika", 12, 3)
    assert work.models == ("magika",)
    assert len(work) == len(set(work.payloads)) == work.facts["distinct_inputs"] == 12
    labels = {msgspec.msgpack.decode(answer)["label"] for answer in work.expected}
    assert "python" in labels
    assert len(labels) > 1
    assert work.figures["accuracy"] == work.figures["accuracy_high"] == 1
    assert 0.7 < (work.figures["accuracy_low"] or 0) < 1


def test_more_tasks_than_inputs_ask_about_the_same_ones_again() -> None:
    work = model_work("digits", 400, 0)
    distinct = int(work.facts["distinct_inputs"])
    assert distinct < len(work) == 400
    assert work.payloads[distinct:] == work.payloads[: 400 - distinct]
    assert work.expected[distinct:] == work.expected[: 400 - distinct]
    assert work.payloads != model_work("digits", 400, 1).payloads


def test_an_answer_may_differ_in_the_last_digits_of_its_score_only() -> None:
    work = model_work("digits", 3, 0)
    first, *rest = work.expected
    answer = msgspec.msgpack.decode(first)

    def encoded(**changes: object) -> bytes:
        return msgspec.msgpack.encode({**answer, **changes})

    work.check([encoded(score=answer["score"] - 1e-6), *rest])
    unknown = msgspec.msgpack.encode({"label": answer["label"]})
    label = encoded(label=answer["label"] + 1)
    for wrong in (encoded(score=answer["score"] - 0.1), label, unknown, b"", b"\xc1", b"\x01"):
        with pytest.raises(WrongResult, match="digits task 0 of 3"):
            work.check([wrong, *rest])


def test_a_model_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lied_about(tasks: int, rng: random.Random) -> served.Inputs:
        payloads, truths = served._digits(tasks, rng)
        return payloads, truths[1:] + truths[:1]

    monkeypatch.setattr(served, "INPUTS", {"digits": lied_about})
    model_work.cache_clear()
    with pytest.raises(WrongResult, match=r"'digits' is right about \d+ of 360 inputs, less than"):
        model_work("digits", 30, 0)


def test_without_known_files_it_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(served.sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "short.py").write_text("x = 1")
    assert python_files() == {}
    model_work.cache_clear()
    with pytest.raises(ExperimentError, match="no files of a known type"):
        model_work("magika", 5, 0)
