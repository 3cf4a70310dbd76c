"""Every spec can be had by its name, and every part it names is there."""

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster import Client, ClusterCoordinator, Handlers, Worker
from cluster.protocol.codec import Codec
from cluster.spec import BASELINE, ClusterSpec, decode_spec, encode_spec, load_codec, load_part
from cluster.vocabulary.errors import ClusterError
from perfkit.optimized.codec import PackedCodec
from perfkit.optimized.policy import POLICIES
from perfkit.optimized.specs import ABLATIONS, LADDER, OPTIMIZED, SPECS, spec_named


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("optimised", "no spec 'optimised'; there are baseline, "),
        ("optimised", "; did you mean 'optimized'?"),
        ("basline", "did you mean 'baseline'?"),
        ("", "no spec ''; there are baseline, optimized, "),
    ],
)
def test_an_unknown_name_is_an_error_that_says_what_there_is(name: str, words: str) -> None:
    with pytest.raises(ClusterError) as refused:
        spec_named(name)
    assert words in str(refused.value)
    assert ("did you mean" in str(refused.value)) == bool(name)


def test_a_spec_is_read_from_a_file_and_a_file_that_holds_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(encode_spec(replace(OPTIMIZED, name="mine", burst=7)))
    assert spec_named(str(file)) == replace(OPTIMIZED, name="mine", burst=7)
    for content, words in (
        (b'{"name": "x", "burst": 0}', "mine.json: not a cluster spec: Expected `int` >= 1"),
        (b'{"name": "x", "bursts": 1}', "unknown field `bursts`"),
        (b"", "mine.json: not a cluster spec: "),
        (b"\xff", "mine.json: "),
        (None, "cannot read the spec "),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(ClusterError) as refused:
            spec_named(str(file))
        assert words in str(refused.value)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_spec_is_found_by_its_name_travels_whole_and_has_its_parts(spec: ClusterSpec) -> None:
    assert spec_named(spec.name) is spec
    assert decode_spec(encode_spec(spec)) == spec
    codec: Codec = load_codec(spec)
    assert codec.encode([]) == []
    assert load_part(spec.queue) is not None
    policies = load_part(spec.policies)
    assert policies[spec.policy]().name == spec.policy
    assert all(make().name == name for name, make in policies.items())


def test_the_optimised_spec_has_the_optimised_parts_and_the_same_policies_by_name() -> None:
    assert isinstance(load_codec(OPTIMIZED), PackedCodec)
    assert load_part(OPTIMIZED.policies) is POLICIES
    assert POLICIES.keys() == load_part(BASELINE.policies).keys()


def test_each_rung_of_the_ladder_differs_from_the_one_below() -> None:
    assert LADDER[0] == BASELINE
    assert LADDER[-1] == OPTIMIZED
    nameless = [replace(spec, name="any") for spec in (*LADDER, *ABLATIONS.values())]
    assert all(low != high for low, high in pairwise(nameless[: len(LADDER)]))
    assert BASELINE not in ABLATIONS.values()


@pytest.mark.parametrize("spec", ABLATIONS.values(), ids=ABLATIONS)
def test_an_idea_alone_serves_tasks(spec: ClusterSpec) -> None:
    handlers = Handlers()
    handlers.register("echo")(lambda payload: payload)
    payloads = [b"%d" % number for number in range(200)] + [b"l" * 100_000] * 2
    with ClusterCoordinator(spec) as coordinator, Client(coordinator.endpoint, spec=spec) as client:
        worker = Worker(coordinator.endpoint, handlers, name="w", spec=spec)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            assert list(client.map("echo", payloads)) == payloads
            assert [client.submit("echo", p).result(20) for p in payloads[-3:]] == payloads[-3:]
        finally:
            worker.stop()
            thread.join(20)
