"""A spec survives the way to another process, and what is wrong with one is said in a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.policy import POLICIES
from cluster.spec import BASELINE, ClusterSpec, SocketOptions, decode_spec, encode_spec, load_part
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.limits import Limits


@given(
    st.builds(
        ClusterSpec,
        name=st.from_regex(r"\A[a-z0-9][a-z0-9+._-]*\Z"),
        burst=st.integers(1, 10_000),
        credit=st.integers(1, 100),
        transport=st.sampled_from(["tcp", "ipc"]),
        sockets=st.builds(SocketOptions, buffer_bytes=st.integers(0, 1 << 20)),
        limits=st.builds(Limits, heartbeat_s=st.floats(0.01, 100), tasks=st.integers(1, 10**6)),
    )
)
def test_a_spec_reaches_another_process_unchanged(spec):
    assert decode_spec(encode_spec(spec)) == spec
    assert decode_spec('{"name": "baseline"}') == BASELINE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a cluster spec"),
        ("{", "not a cluster spec"),
        ("[]", "not a cluster spec"),
        ("{}", "`name`"),
        ('{"name": "Two Words"}', "name"),
        ('{"name": "x", "bursts": 3}', "`bursts`"),
        ('{"name": "x", "burst": 0}', "burst"),
        ('{"name": "x", "transport": "udp"}', "transport"),
        ('{"name": "x", "limits": {"heartbeat_s": 0}}', "limits.heartbeat_s"),
        ('{"name": "x", "sockets": {"hwm": 1}}', "`hwm`"),
    ],
)
def test_what_is_wrong_with_a_spec_is_named(text, complaint):
    with pytest.raises(ClusterError, match="not a cluster spec") as refused:
        decode_spec(text)
    assert complaint in str(refused.value)


def test_a_part_is_loaded_by_name():
    assert load_part("cluster.core.policy:POLICIES") is POLICIES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cluster.policy:POLICIES", "cluster.core.policy:POLICIES"),
        ("cluster.gone.workloads:HANDLERS", "cluster.work.workloads:HANDLERS"),
        ("perfkit.codec:PackedCodec", "perfkit.optimized.codec:PackedCodec"),
    ],
)
def test_a_part_that_has_moved_is_found_for_the_error(old, new):
    load_part(new)
    with pytest.raises(ClusterError) as refused:
        load_part(old)
    module = old.partition(":")[0]
    assert f"there is no module {module!r}; did you mean {new!r}?" in str(refused.value)


def test_what_is_wrong_with_a_parts_name_is_said(module):
    module("from cluster import nothing_of_that_name\n", "half_a_module")
    module("def (:\n", "no_python")
    for path, complaint in {
        "cluster.core.policy": "'module:attribute'",
        "cluster.core.policy:": "'module:attribute'",
        ":POLICIES": "'module:attribute'",
        ".policy:POLICIES": "'module:attribute'",
        "cluster.novelty:PART": "No module named 'cluster.novelty'",
        "cluster.policy:NOVELTY": "No module named 'cluster.policy'",
        "novelty:PART": "No module named 'novelty'",
        "cluster.core.policy:NOVELTY": "module 'cluster.core.policy' has no 'NOVELTY'",
        "half_a_module:PART": "nothing_of_that_name",
        "no_python:PART": "invalid syntax",
    }.items():
        with pytest.raises(ClusterError) as refused:
            load_part(path)
        assert repr(path) in str(refused.value)
        assert complaint in str(refused.value)
