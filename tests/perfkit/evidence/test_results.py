"""Results make the round trip to a file unchanged, and bad files are refused in one sentence."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.environment import machine_id
from perfkit.evidence.results import (
    SCHEMA,
    Result,
    ResultError,
    comparable,
    decode,
    encode,
    load,
    save,
)
from perfkit.evidence.tables import LEFT
from tests.perfkit.machine import HERE

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def result(**fields: Any) -> Result:
    defaults: dict[str, Any] = {
        "experiment": "throughput", "spec": "baseline", "engine": "zmq", "workers": 2,
        "tasks": 20_000, "value": 1234.5, "unit": "tasks/s", "low": 1200.0, "high": 1300.0,
        "samples": [1230.0, 1234.5, 1240.25], "environment": HERE,
    }  # fmt: skip
    return Result(**{**defaults, **fields})


FULL = result(
    seed=7,
    parameters={"burst": 64, "pinned": True, "model": None, "sizes": [1, 2]},
    started_utc="2030-01-01T00:00:00+00:00",
    duration_s=3.25,
    counters={"messages_per_task": 0.02, "bytes": 4096, "allocations": None},
    series={"rss_bytes": [1.0, None, 3.0]},
)


def test_a_result_is_read_as_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    save(FULL, path)
    assert load(path) == FULL
    save(FULL, "-")  # to standard output
    assert decode(capsys.readouterr().out) == FULL


@given(
    st.lists(FINITE, max_size=10),
    st.none() | FINITE,
    st.dictionaries(st.text(), st.none() | FINITE, max_size=3),
)
def test_every_number_survives(
    samples: list[float], value: float | None, counters: dict[str, float | None]
) -> None:
    there = result(samples=samples, value=value, low=None, high=None, counters=counters)
    assert decode(encode(there)) == there


def test_each_field_is_at_the_top_level_on_a_line_of_its_own() -> None:
    text = encode(result(value=None, low=None, high=None, tasks=None))
    fields, lines = json.loads(text), text.splitlines()
    assert [*fields] == [*FULL.__struct_fields__]
    assert (fields["schema"], fields["value"], fields["tasks"]) == (SCHEMA, None, None)
    assert len(lines) == 2 + len(fields)
    assert '  "samples": [1230.0,1234.5,1240.25],' in lines


def test_a_file_is_replaced_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    save(FULL, path)
    assert load(path) == FULL
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(ResultError, match=r"Cannot write the result to .*: No space left"):
        save(FULL, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(ResultError, match="Cannot write"):
        save(FULL, path / "below a file")
    with pytest.raises(ResultError, match="Cannot read the result"):
        load(tmp_path)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        save(FULL, pipe)
        assert decode(os.read(reader, 65536)) == FULL
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "There is no result at "),
        (b"", "a.json is not JSON"),
        (b"\xff\xfe", "a.json is not JSON"),
        (encode(FULL)[:-40].encode(), "a.json is not JSON"),
        (b"[" * 100_000, "a.json is"),
        (b'{"schema": 1, "value": 1e999}', "out of range"),
        (b"[]", "JSON but not a perfkit result"),
        (b'{"value": 3}', "missing required field `schema`"),
        (b'{"schema": "1"}', "Expected `int`, got `str`"),
        (b'{"schema": 0}', "schema 0, which never was"),
        (b'{"schema": %d}' % (SCHEMA + 1), "made by a newer perfkit"),
        (b'{"schema": 1, "x": ' + b"[" * 100_000, "a.json is"),
    ],
)
def test_a_file_that_is_no_result_is_refused(
    tmp_path: Path, text: bytes | None, complaint: str
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ResultError, match=r"a\.json") as refusal:
        load(path)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("workers", "two", "$.workers"),
        ("samples", [1.0, "x"], "$.samples[1]"),
        ("environment", {}, "$.environment"),
        ("unit", None, "$.unit"),
        ("series", {"rss_bytes": ["x"]}, "$.series"),
        ("low", 2000.0, "above `high`"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: object, place: str) -> None:
    fields = json.loads(encode(FULL))
    fields[field] = value
    with pytest.raises(ResultError, match=r"b\.json is not a valid result") as refusal:
        decode(json.dumps(fields), source="b.json")
    assert place in str(refusal.value)


def test_a_missing_field_is_named_and_an_unknown_one_ignored() -> None:
    fields = {**json.loads(encode(FULL)), "mood": "sunny"}
    assert decode(json.dumps(fields)) == FULL
    del fields["samples"]
    with pytest.raises(ResultError, match="missing required field `samples`"):
        decode(json.dumps(fields))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize(
    ("field", "wrap", "place"),
    [
        ("value", lambda x: x, "`value`"),
        ("samples", lambda x: [1.0, x], r"`samples\[1\]`"),
        ("counters", lambda x: {"bytes": x}, "`counters.bytes`"),
        ("series", lambda x: {"rss_bytes": [None, x]}, r"`series.rss_bytes\[1\]`"),
        ("parameters", lambda x: {"a": {"b": x}}, "`parameters.a.b`"),
    ],
)
def test_nan_and_infinity_are_refused(field: str, wrap: Any, place: str, bad: float) -> None:
    with pytest.raises(ResultError, match=place):
        result(**{field: wrap(bad)})


def test_a_parameter_that_json_lacks_is_refused() -> None:
    with pytest.raises(ResultError, match="`parameters` holds what JSON can't"):
        encode(result(parameters={"what": object()}))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"experiment": "latency"}, "experiment: throughput against latency"),
        ({"unit": "ms"}, "unit: tasks/s against ms"),
        ({"workers": 4}, "workers: 2 against 4"),
        ({"tasks": None}, "tasks: 20000 against unknown"),
        ({"parameters": {"burst": 1}}, "parameter burst: unknown against 1"),
    ],
)
def test_results_must_agree_in_what_was_measured(fields: dict[str, Any], reason: str) -> None:
    assert comparable(result(), result(**fields)) == [reason]


def test_different_machines_are_not_comparable_for_stated_reasons() -> None:
    assert comparable(result(), result(spec="optimized", engine="local", value=2e5, high=3e5)) == []
    there = msgspec.structs.replace(HERE, cpu_model="Slow CPU 1", cores_available=0.25)
    there = msgspec.structs.replace(there, machine_id=machine_id(there))
    reasons = comparable(result(), result(environment=there))
    assert len(reasons) == 2
    assert reasons[0].endswith("against Slow CPU 1")
    assert reasons[1].endswith("against 0.25")


def test_a_result_says_its_figure_with_its_interval() -> None:
    told = result().describe()
    assert told == "throughput of baseline on zmq: 1,234 tasks/s (1,200 to 1,300)"
    assert result(low=None, high=None).describe().endswith(": 1,234 tasks/s")
    assert result(value=None, low=None, high=None).describe().endswith(": unknown")


def test_a_notebook_shows_a_small_escaped_table() -> None:
    html = result(tasks=None, counters={"a&b": 1})._repr_html_()
    assert f"<th>a&amp;b</th><td{LEFT}>1</td>" in html
    assert f"<th>tasks</th><td{LEFT}>unknown</td>" in html
