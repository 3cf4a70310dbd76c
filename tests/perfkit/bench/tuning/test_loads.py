"""The loads of a search: the tasks that they are made of, and the samples that they give."""

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from perfkit.bench.tuning.loads import KINDS, NoSuchLoad, make_load
from perfkit.bench.tuning.recorded import NoRecording, read_recording
from perfkit.bench.workloads.load import WrongResult

TASKS = [
    {"at_s": 0.0, "kind": "sleep", "payload": "0.001"},
    {"at_s": 0.01, "payload_bytes": 10},
    {"at_s": 0.02, "kind": "noop"},
]


class Here:
    """A client that runs each task at once, in this process, and notes what came."""

    def __init__(self, spoilt: bytes | None = None) -> None:
        self.came: list[tuple[str, int]] = []
        self.spoilt = spoilt

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        self.came.append((kind, len(payload)))
        future: Future[bytes] = Future()
        result = payload if kind in ("echo", "sleep") else b""
        future.set_result(result if self.spoilt is None else self.spoilt)
        return future

    def map(self, kind: str, payloads: list[bytes]) -> Any:
        return (self.submit(kind, payload).result() for payload in payloads)


def written(path: Path, tasks: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, tasks)) + "\n\n")
    return path


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_load_gives_figures_above_0_for_all_its_objectives(
    name: str, tmp_path: Path
) -> None:
    recording = written(tmp_path / "mix", TASKS) if name == "recorded" else None
    tasks = None if recording else 4
    for objective in KINDS[name].objectives:
        load = make_load(name, objective=objective.name, tasks=tasks, recording=recording)
        client: Any = Here()
        load.warm_up(client)
        assert load.block(client, 0.0) > 0
        assert f": {len(load.work)} tasks of {load.work.kind}" in load.text
    assert make_load(name, recording=recording).objective is KINDS[name].objectives[0]


def test_a_recording_is_sent_again_as_it_came(tmp_path: Path) -> None:
    recording = read_recording(written(tmp_path / "mix", TASKS), seed=3)
    client: Any = Here()
    latencies_ms = recording.latencies_ms(client, recording.work)
    assert client.came == [("sleep", 5), ("echo", 10), ("noop", 200)]
    assert len(latencies_ms) == 3
    assert read_recording(tmp_path / "mix", seed=3).payloads == recording.payloads
    assert len(read_recording(tmp_path / "mix", tasks=2).tasks) == 2
    spoilt: Any = Here(b"other")
    with pytest.raises(WrongResult, match="recorded task 0 of 3 gave b'other' instead"):
        recording.latencies_ms(spoilt, recording.work)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a recording has 1 to 100,000 tasks, not 0"),
        ("{", "line 1: not a task: "),
        ('{"kind": ""}', "line 1: not a task: "),
        ('\n{"at_s": -1}', "line 2: not a task: "),
        ('{"at": 1}', "unknown field `at`"),
        ('{"at_s": 1}\n{"at_s": 0.5}', "line 2: sent before the line above it"),
        (None, "cannot read the recording "),
    ],
)
def test_a_file_without_a_recording_is_named_with_its_line(
    tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "mix").write_text(text)
    with pytest.raises(NoRecording) as refused:
        read_recording(tmp_path / "mix")
    assert words in str(refused.value)


def test_a_load_refuses_what_its_kind_does_not_take(tmp_path: Path) -> None:
    mix = written(tmp_path / "mix", TASKS)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "thruput"}, "did you mean 'throughput'"),
        ({"name": "latency", "objective": "throughput"}, "it has latency_p95"),
        ({"name": "mixed", "payload_bytes": 9}, "tasks of its own"),
        ({"name": "recorded"}, "takes a recording"),
        ({"name": "burst", "recording": mix}, "no other does"),
        ({"model": "nope"}, "no inputs are known for model 'nope'"),
    ]
    for options, words in wrong:
        with pytest.raises(NoSuchLoad, match=words):
            make_load(**options)
