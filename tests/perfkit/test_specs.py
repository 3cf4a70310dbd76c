"""Every spec can be had by its name, and every part it names is there."""

import itertools

import msgspec
import pytest

from cluster.codec import Codec
from cluster.errors import ClusterError
from cluster.spec import BASELINE, ClusterSpec, decode_spec, encode_spec, load_codec, load_part
from perfkit.codec import PackedCodec
from perfkit.policy import POLICIES
from perfkit.specs import ABLATIONS, LADDER, OPTIMIZED, SPECS, spec_named

each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@each_spec
def test_a_spec_is_found_by_its_own_name(spec: ClusterSpec) -> None:
    assert spec_named(spec.name) is spec


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("optimised", "did you mean 'optimized'?"),
        ("basline", "did you mean 'baseline'?"),
        ("", "no spec ''; there are baseline, optimized, capability-cache, "),
    ],
)
def test_an_unknown_name_is_an_error_that_says_what_there_is(name: str, words: str) -> None:
    with pytest.raises(ClusterError) as refused:
        spec_named(name)
    assert words in str(refused.value)
    assert ("did you mean" in str(refused.value)) == bool(name)


@each_spec
def test_every_part_of_a_spec_loads(spec: ClusterSpec) -> None:
    codec: Codec = load_codec(spec)
    assert codec.encode([]) == []
    policies = load_part(spec.policies)
    assert policies[spec.policy]().name == spec.policy
    assert all(make().name == name for name, make in policies.items())


@each_spec
def test_a_spec_reaches_another_process_whole(spec: ClusterSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec


def test_the_optimised_spec_has_the_optimised_parts_and_the_same_policies_by_name() -> None:
    assert isinstance(load_codec(OPTIMIZED), PackedCodec)
    assert load_part(OPTIMIZED.policies) is POLICIES
    assert POLICIES.keys() == load_part(BASELINE.policies).keys()


def test_each_ablation_is_the_baseline_with_something_switched_on() -> None:
    for name, spec in ABLATIONS.items():
        assert spec.name == name
        assert spec != msgspec.structs.replace(BASELINE, name=name)


def test_the_ladder_climbs_from_the_baseline_to_the_optimised_spec() -> None:
    assert (LADDER[0], LADDER[-1]) == (BASELINE, OPTIMIZED)
    knobs = [msgspec.structs.asdict(spec) for spec in LADDER]
    for below, above in itertools.pairwise(knobs):
        assert {knob for knob in below if below[knob] != above[knob]} > {"name"}
