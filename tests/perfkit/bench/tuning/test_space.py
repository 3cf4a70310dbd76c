"""What a search may turn, and the values that it tries."""

import pytest

from cluster.spec import BASELINE
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning.space import (
    SEARCHED,
    changed,
    changes_text,
    known_points,
    space_of,
    turned,
)
from perfkit.optimized.knobs import fields, value_of
from perfkit.optimized.specs import OPTIMIZED, SPECS

#: Knobs that bound, time or check what the cluster promises; a new knob belongs in one of the two.
GUARDING = {"name", "checks", "trim_bytes", "sockets.high_water_mark", "sockets.hello_s",
            "sockets.silence_s", "sockets.pong_s"} | {
    f"limits.{name}" for name in BASELINE.limits.__struct_fields__
} - {"limits.recall_after_s", "limits.chunk_bytes"}  # fmt: skip


def test_every_knob_is_searched_or_guards_a_promise() -> None:
    assert set(fields()) == {*SEARCHED} | GUARDING
    assert not GUARDING & {*SEARCHED}


@pytest.mark.parametrize("knob", SEARCHED)
def test_each_value_is_one_that_the_knob_takes_and_those_of_known_specs_are_among_them(
    knob: str,
) -> None:
    (values,) = space_of(BASELINE, [knob]).values()
    for value in values:
        changes = {knob: value}
        if knob == "policy":
            assert turned(BASELINE, changes).policy == value
        assert value_of(turned(BASELINE, changes), knob) == value
    assert {value_of(spec, knob) for spec in SPECS.values()} <= {*values}
    assert len({*values}) == len(values) > 1


def test_a_number_has_a_ladder_within_its_bounds_and_off_is_a_rung() -> None:
    found = space_of(BASELINE, ["burst", "answer_after_s", "sockets.zero_copy_bytes"])
    assert found["burst"] == (1, 4, 16, 64, 256, 1024, 2048, 4096, 16384)
    assert found["answer_after_s"] == (0.0, 0.00125, 0.0025, 0.005, 0.01, 0.02)
    assert found["sockets.zero_copy_bytes"][:3] == (0, 16384, 32768)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["limits.tasks"], "limits.tasks is no knob to tune: it guards what"),
        (["checks"], "guards"),
        (["brust"], "there is no knob 'brust' to tune; did you mean 'burst'?"),
        ({"burst": [0]}, "not a value of a knob: Expected `int` >= 1"),
        ({"burst": [1]}, "nothing to search"),
    ],
)
def test_what_is_not_to_be_searched_is_refused_in_words(wanted, words: str) -> None:
    with pytest.raises(ClusterError) as refused:
        space_of(BASELINE, wanted)
    assert words in str(refused.value)


def test_policies_that_lack_the_policy_make_no_spec() -> None:
    cached = "perfkit.optimized.policy:CACHED"
    with pytest.raises(ClusterError, match="has no policy 'adaptive'"):
        turned(BASELINE, {"policies": cached, "policy": "adaptive"})


def test_the_first_guesses_are_the_other_specs_and_never_the_start() -> None:
    space = space_of(BASELINE, ["burst", "credit"])
    first, *others = known_points(BASELINE, space)
    assert first == {"burst": OPTIMIZED.burst, "credit": OPTIMIZED.credit}
    assert others == [{"burst": 1, "credit": 32}]
    changes = changed(BASELINE, {"burst": 1, "codec": "perfkit.optimized.codec:PackedCodec"})
    assert changes_text(changes) == "codec=PackedCodec"
