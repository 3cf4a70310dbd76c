"""The specs under study, by name: what benchmarks, notebooks and the command line choose from."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from cluster.errors import ClusterError
from cluster.spec import BASELINE, ClusterSpec

SPECS: Mapping[str, ClusterSpec] = {spec.name: spec for spec in (BASELINE,)}


def spec_named(name: str) -> ClusterSpec:
    """The spec of that name; ClusterError lists what there is."""
    if name in SPECS:
        return SPECS[name]
    close = get_close_matches(name, SPECS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ClusterError(f"no spec {name!r}; there are {', '.join(SPECS)}{hint}")
