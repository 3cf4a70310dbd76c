"""The specs under study, by name, for benchmarks, notebooks and the command line.

BASELINE uses the plain parts, OPTIMIZED those of this package. Each of ABLATIONS is the baseline
with one idea switched on, under the plan's name for it. LADDER leads from BASELINE to OPTIMIZED,
one idea a rung, so that a notebook can show what each idea earns. There is no "lock-free" entry:
one thread owns the scheduler, so there is no lock to avoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cluster.spec import BASELINE, ClusterSpec, SocketOptions, decode_spec
from cluster.vocabulary.errors import ClusterError, did_you_mean
from cluster.vocabulary.limits import Limits

#: How the name of a file ends that holds a spec, as ``perfkit tune`` writes one.
FILE_SUFFIX = ".json"
RUNS = {"burst": 2_048, "credit": 8_192, "limits": Limits(recall_after_s=0.001)}
PACKED = {"codec": "perfkit.optimized.codec:PackedCodec"}
INDEXED = {"policies": "perfkit.optimized.policy:POLICIES"}
SORTED = {"queue": "perfkit.optimized.queue:SortedQueue"}
UNCOPIED = {"sockets": SocketOptions(zero_copy_bytes=65_536)}
FEWER_ANSWERS = {"answer_after_s": 0.005}
TRIMMED = {"trim_bytes": 4 << 20}


def _with(base: ClusterSpec, name: str, *ideas: Mapping[str, Any]) -> ClusterSpec:
    changes = {knob: value for idea in ideas for knob, value in idea.items()}
    return msgspec.structs.replace(base, name=name, **changes)


OPTIMIZED = _with(BASELINE, "optimized", RUNS, PACKED, INDEXED, UNCOPIED, FEWER_ANSWERS, TRIMMED)

#: by the plan's names of the ideas
ABLATIONS: Mapping[str, ClusterSpec] = {
    spec.name: spec
    for spec in (
        _with(BASELINE, "capability-cache", {"policies": "perfkit.optimized.policy:CACHED"}),
        _with(BASELINE, "load-scores", {"policies": "perfkit.optimized.policy:INDEXED"}),
        _with(BASELINE, "priority-queue", SORTED),
        _with(BASELINE, "batch-assignment", RUNS, {"policies": "perfkit.optimized.policy:SIZED"}),
        _with(BASELINE, "packed-codec", PACKED),
        _with(BASELINE, "zero-copy", UNCOPIED),
        _with(BASELINE, "pooling", {"codec": "perfkit.optimized.codec:PooledCodec"}),
        _with(BASELINE, "fewer-handshakes", FEWER_ANSWERS),
        _with(
            BASELINE,
            "socket-tuning",
            {"sockets": SocketOptions(high_water_mark=100_000, buffer_bytes=4 << 20)},
        ),
        _with(BASELINE, "pipelining", {"credit": 32}),
    )
}
#: from the baseline up; each rung includes the ones below it
LADDER: tuple[ClusterSpec, ...] = (
    BASELINE,
    _with(BASELINE, "runs", RUNS, {"policies": "perfkit.optimized.policy:SIZED"}),
    _with(BASELINE, "runs+packed", RUNS, {"policies": "perfkit.optimized.policy:SIZED"}, PACKED),
    _with(BASELINE, "runs+packed+index", RUNS, PACKED, INDEXED),
    _with(BASELINE, "runs+packed+index+zero-copy", RUNS, PACKED, INDEXED, UNCOPIED),
    OPTIMIZED,
)
SPECS: Mapping[str, ClusterSpec] = {
    spec.name: spec for spec in (BASELINE, OPTIMIZED, *ABLATIONS.values(), *LADDER)
}


def spec_named(name: str) -> ClusterSpec:
    """The spec of that name, or in the file of that name if it ends in FILE_SUFFIX.

    Raises ClusterError, which lists the known names or says what is wrong with the file.
    """
    if name in SPECS:
        return SPECS[name]
    if name.endswith(FILE_SUFFIX):
        return _from_file(Path(name))
    hint = did_you_mean(name, SPECS)
    raise ClusterError(f"no spec {name!r}; there are {', '.join(SPECS)}{hint}")


def _from_file(path: Path) -> ClusterSpec:
    try:
        return decode_spec(path.read_text("utf-8"))
    except OSError as error:
        raise ClusterError(f"cannot read the spec {path}: {error.strerror}") from None
    except (ClusterError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: {error}") from None
