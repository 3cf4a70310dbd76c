"""What a codec costs a task: every message read back, and a codec that garbles is not timed."""

from typing import Any

import msgspec
import pytest

from cluster import BASELINE
from cluster.protocol.codec import DictCodec
from perfkit.bench.counts.headers import codec_us, packing_us
from perfkit.bench.workloads.load import WrongResult, echo_work

WORK = echo_work(250, seed=1)


def test_every_hop_is_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Counting(DictCodec):
        def encode(self, messages: Any) -> Any:
            written.extend(type(message).__name__ for message in messages)
            return super().encode(messages)

    monkeypatch.setattr("cluster.protocol.codec.DictCodec", Counting)
    assert codec_us(msgspec.structs.replace(BASELINE, burst=100), WORK) > 0
    hops = ["TasksSubmitted", "Assign", "TasksFinished", "Deliver"]
    assert written == hops * 3


def test_a_wrongly_decoded_message_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DictCodec, "events", lambda self, frames: [])
    with pytest.raises(
        WrongResult, match=r"'cluster\.protocol\.codec:DictCodec' did not read what it wrote"
    ):
        codec_us(BASELINE, WORK)


def test_bare_packing_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packing_us(WORK) > 0
    monkeypatch.setattr("perfkit.bench.counts.headers.unpack_jobs", lambda frame: [])
    with pytest.raises(WrongResult, match="bare packing"):
        packing_us(WORK)
