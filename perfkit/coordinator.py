"""The specs under study, by name: what benchmarks, notebooks and the command line choose from.

BASELINE uses the plain parts, OPTIMIZED those of this package. Each of ABLATIONS is the baseline
with one idea switched on, under the plan's own name for it, so that a notebook can show which idea
earned what.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from cluster.errors import ClusterError
from cluster.limits import Limits
from cluster.spec import BASELINE, ClusterSpec, SocketOptions

OPTIMIZED = ClusterSpec(
    name="optimized",
    codec="perfkit.codec:PackedCodec",
    policies="perfkit.policy:POLICIES",
    burst=2_048,
    credit=8_192,
    sockets=SocketOptions(zero_copy_bytes=65_536),
    limits=Limits(recall_after_s=0.001),
)

SPECS: Mapping[str, ClusterSpec] = {spec.name: spec for spec in (BASELINE, OPTIMIZED)}


def spec_named(name: str) -> ClusterSpec:
    """The spec of that name; ClusterError lists what there is."""
    if name in SPECS:
        return SPECS[name]
    close = get_close_matches(name, SPECS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ClusterError(f"no spec {name!r}; there are {', '.join(SPECS)}{hint}")
