"""Shared weights: plain and shared answers agree first, and every figure has its goal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.frames.tensor import pack_tensor
from cluster.models.inference import ModelRepository
from cluster.models.samples import LIKE_AND_UNLIKE
from perfkit.bench.goals import sharing as module
from perfkit.bench.goals.sharing import (
    MODEL,
    SharingSizes,
    check_meaning,
    check_same,
    grown,
    load_times,
    measure_sharing,
)
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.profile.watch import MemorySample

MIB = 1 << 20


@pytest.fixture(autouse=True)
def own_cache(minilm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(minilm_home))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known loads and clusters, so that the table made of them can be checked."""

    def load(*, share: bool, cache: Path | None = None) -> Mapping[str, float]:
        return {"load": 30.0, "network": 20.0} if share else {"load": 120.0, "network": 100.0}

    def grow(
        share: bool, counts: Iterable[int], texts: Sequence[bytes]
    ) -> Iterator[tuple[int, int]]:
        yield from ((count, (60 + 40 * count if share else 150 * count) * MIB) for count in counts)

    monkeypatch.setattr(module, "load_times", load)
    monkeypatch.setattr(module, "grown", grow)


def test_every_figure_has_plain_and_shared_samples_and_a_goal(known: None) -> None:
    said: list[str] = []
    table = measure_sharing(SharingSizes(load_rounds=4, item_rounds=4), progress=said.append)
    rows = {row.name: row for row in table}
    assert [*rows] == [
        "shared_pss_1", "shared_pss_2", "shared_pss_4",
        "shared_load", "shared_network", "shared_latency",
    ]  # fmt: skip
    four = rows["shared_pss_4"]
    assert (four.baseline, four.value, four.met) == (600, 220, True)
    assert four.ratio == pytest.approx(0.367, abs=1e-3)
    assert (rows["shared_pss_1"].goal, rows["shared_pss_1"].met) == (None, None)
    assert (rows["shared_load"].ratio, rows["shared_load"].met) == (pytest.approx(0.25), True)
    assert rows["shared_latency"].value > 0
    assert "sharing: round 3 of 3, optimized: 4 workers 220 MiB" in said
    shown = table._repr_html_()
    assert "<th>shared</th><th>plain</th>" in shown
    assert "A first load, which fills the cache: 30, 30 ms." in shown


def test_an_unshared_model_is_not_measured(known: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.models.runtime.sharing.CPU", "another")
    with pytest.raises(ExperimentError, match="minilm cannot be shared here: it runs on CPU"):
        measure_sharing()


class Fake:
    """A model that gives every text the vector it is told to."""

    def __init__(self, *vectors: Sequence[float]) -> None:
        self._vectors = vectors

    def infer_batch(self, payloads: list[bytes]) -> list[bytes]:
        return [pack_tensor(np.float32(vector)) for vector in self._vectors[: len(payloads)]]


@pytest.mark.parametrize("other", [[1.0, 1e-3], [1.0, float("nan")]])
def test_another_vector_is_an_error_before_anything_is_timed(other: list[float]) -> None:
    plain: Any = Fake([1.0, 0.0])
    check_same(plain, plain, [b"text"])
    with pytest.raises(WrongResult, match="another vector when shared: b'text' is off by"):
        check_same(plain, Fake(other), [b"text"])  # type: ignore[arg-type]


def test_a_mistaken_meaning_is_an_error() -> None:
    good: Any = Fake([1, 0], [1, 0], [0, 1])
    check_meaning(good)
    bad: Any = Fake([1, 0], [0, 1], [1, 0])
    with pytest.raises(WrongResult, match="it is broken"):
        check_meaning(bad)


def test_a_fresh_process_tells_how_long_it_took(minilm_home: Path) -> None:
    ModelRepository().load(MODEL)
    times = load_times(share=True)
    assert 0 < times["network"] < times["load"]


def test_a_process_that_cannot_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.chdir("/")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ExperimentError, match="loading minilm failed: "):
        load_times(share=True)


def test_an_unknown_pss_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_memory", lambda pid: MemorySample(1, None, None))
    with pytest.raises(ExperimentError, match="does not tell the PSS"):
        list(grown(True, [1], [b"text"]))


@pytest.mark.slow
def test_four_workers_hold_the_weights_once() -> None:
    texts = [text.encode() for triple in LIKE_AND_UNLIKE for text in triple]
    plain, shared = (dict(grown(share, (1, 2, 4), texts)) for share in (False, True))
    # The weights are 86 MiB and laid out 41 MiB: what a further worker takes cannot be a timing.
    assert plain[4] - plain[1] > 3 * 100 * MIB
    assert shared[4] - shared[1] < 3 * 60 * MIB
    assert shared[4] <= 0.45 * plain[4]
