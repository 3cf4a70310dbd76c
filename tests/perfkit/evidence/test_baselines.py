"""A baseline is read as it was written, and a bad one is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfkit.evidence.baselines import (
    Baseline,
    NoBaseline,
    baseline_path,
    load_baseline,
    machine_name,
    save_baseline,
)
from perfkit.evidence.environment import machine_id
from perfkit.evidence.results import ResultError
from tests.perfkit.evidence.test_results import result
from tests.perfkit.machine import HERE


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    results = [result(spec=spec) for spec in ("baseline", "optimized")]
    path = save_baseline(results, tmp_path / "new")
    assert path == baseline_path(tmp_path / "new")
    read = load_baseline(path)
    assert read == Baseline(results=results)
    assert read.environment == results[0].environment
    assert (len(read.of("throughput")), read.of("latency")) == (2, [])
    assert len(path.read_text().splitlines()) == len(results) + 2  # a result a line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("AMD EPYC", "amd-epyc-2-cores-python-3.11-"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon-2-cores-python-3.11-"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "amd-ryzen-9-5950x-2-cores-python-3.11-"),
        (None, "unknown-2-cores-python-3.11-"),
    ],
)
def test_a_machine_has_a_name_that_people_can_read(model: str | None, words: str) -> None:
    there = msgspec.structs.replace(
        HERE, cpu_model=model, cores_available=2.0, python="3.11.7", implementation="CPython"
    )
    there = msgspec.structs.replace(there, machine_id=machine_id(there))
    assert machine_name(there) == words + there.machine_id


def test_a_baseline_is_of_one_machine_and_has_a_result() -> None:
    there = msgspec.structs.replace(HERE, machine_id="0123456789ab")
    with pytest.raises(ResultError, match="of one machine, and these results are of 2"):
        Baseline(results=[result(), result(environment=there)])
    with pytest.raises(ResultError, match="at least one result"):
        save_baseline([])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no baseline of a machine: .*; `perfkit baseline save` makes one"),
        ("[]", "is no baseline of a machine"),
        ('{"results": []}', "is no baseline of a machine: .*`schema`"),
        ('{"schema": 1}', "is no baseline of a machine: .*`results`"),
        ('{"schema": 1, "results": []}', "at least one result"),
        ('{"schema": 9, "results": 3}', "was made by a newer perfkit: it has schema 9"),
        (json.dumps({"schema": 1, "results": [{"value": 1}]}), "is no baseline of a machine"),
    ],
)
def test_a_bad_baseline_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=complaint) as refused:
        load_baseline(path)
    assert str(path) in str(refused.value)


def test_a_missing_baseline_says_how_to_make_one(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(NoBaseline, match="`perfkit baseline save` makes one"):
        load_baseline(tmp_path / "none.json")
    with pytest.raises(ResultError, match="Cannot read the baseline at"):
        load_baseline(tmp_path)
