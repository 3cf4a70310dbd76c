"""The same tasks on every engine: results where it runs, a reason where it does not."""

from typing import Any
from unittest.mock import Mock

import pytest

from cluster.vocabulary.errors import ClusterError
from perfkit.bench.experiments import peers
from perfkit.bench.experiments.catalogue import EXPERIMENTS, run
from perfkit.bench.experiments.peers import (
    MAPS,
    SINGLE_TASKS,
    Amount,
    PeerTable,
    measure_peers,
)
from perfkit.bench.workloads.load import WrongResult

AMOUNTS = (Amount("latency", 10),)


def test_the_cluster_runs_once_for_each_spec() -> None:
    table = measure_peers(AMOUNTS, workers=1, engines=["zmq"])
    assert [row.name for row in table.rows] == ["zmq baseline", "zmq optimized"]
    assert table.results.keys() == {"latency-zmq-baseline", "latency-zmq-optimized"}
    assert all(result.samples for result in table.results.values())
    assert " ms (" in table._repr_html_()


def test_a_peer_that_cannot_run_is_a_row_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *, engine: str, **given: Any) -> Any:
        if engine == "dask":
            raise ClusterError("the dask engine is not installed\nat all")
        return run(name, engine=engine, **given)

    monkeypatch.setattr(peers, "run", refuse)
    table = measure_peers(AMOUNTS, workers=1, engines=["dask", "zmq"])
    assert (table.rows[0].results, table.rows[0].reason) == ({}, "the dask engine is not installed")
    assert "unknown: the dask engine is not installed" in table._repr_html_()
    assert len(table.results) == 2


@pytest.mark.parametrize(
    ("engine", "error"), [("dask", WrongResult("wrong")), ("zmq", ClusterError("dead"))]
)
def test_a_wrong_result_and_a_broken_cluster_end_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, error: Exception
) -> None:
    monkeypatch.setattr(peers, "run", Mock(side_effect=error))
    with pytest.raises(type(error)):
        measure_peers(AMOUNTS, workers=1, engines=[engine])


def test_the_table_says_what_is_like_for_like_and_that_a_map_is_not() -> None:
    text = PeerTable((), ("throughput", "burst", "latency"))._repr_html_()
    assert "burst, latency: like for like" in text
    assert "throughput: a map, not like for like" in text
    assert "columns of up to 1,000 tasks" in text
    assert "map" not in PeerTable((), ("latency",))._repr_html_()


def test_what_is_said_to_be_fair_are_experiments_that_peers_can_run() -> None:
    open_to_peers = {name for name, one in EXPERIMENTS.items() if not one.cluster_only}
    assert open_to_peers >= SINGLE_TASKS | MAPS
    assert not SINGLE_TASKS & MAPS
