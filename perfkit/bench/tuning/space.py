"""What a search may change: the knobs that cost no guarantee, each with the values worth trying.

The values of a number are a ladder. Its rungs are powers of two or of four around the values that
some spec has, within the bounds of the knob's type; 0 is a rung where it means "off". A part can be
any of the parts that some spec has. A knob that is not in SEARCHED bounds what the cluster may
hold, notices a death or checks a message: a faster figure without it is no gain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.optimized.knobs import fields, value_of, with_knobs
from perfkit.optimized.specs import SPECS

#: The knobs that a search may turn, those that move most figures first.
SEARCHED = (
    "burst", "credit", "codec", "policies", "policy", "queue", "drain", "answer_after_s",
    "transport", "limits.recall_after_s", "limits.chunk_bytes", "sockets.buffer_bytes",
    "sockets.zero_copy_bytes",
)  # fmt: skip
#: A ladder reaches this factor beyond the values that specs have.
BEYOND = 4
#: A ladder that would have more rungs of two has rungs of four.
RUNGS_OF_TWO = 8

#: By knob, the values to try, in ascending order where they have one.
Space: TypeAlias = Mapping[str, tuple[Any, ...]]


def space_of(
    start: ClusterSpec, wanted: Iterable[str] | Mapping[str, Iterable[Any]] = SEARCHED
) -> Space:
    """The values to try of each wanted knob; a mapping gives them, or nothing for the usual ones.

    The value of `start` is among them. Raises ClusterError for a knob that is not searched, and for
    a value that it does not take, and if there is nothing to choose.
    """
    given = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted, ())
    known = fields()
    found = {}
    for knob, values in given.items():
        if knob not in SEARCHED:
            raise ClusterError(_refusal(knob, known))
        mine = value_of(start, knob)
        if chosen := [*values]:
            found[knob] = _unique(mine, *chosen)
            for value in chosen:
                with_knobs(start, {knob: value}, start.name)
        else:
            used = [mine, *(value_of(spec, knob) for spec in SPECS.values())]
            found[knob] = _values(knob, known[knob], used)
    if all(len(values) == 1 for values in found.values()):
        raise ClusterError("there is nothing to search: no knob has two values")
    return found


def _refusal(knob: str, known: Iterable[str]) -> str:
    if knob in known:
        return f"{knob} is no knob to tune: it guards what the cluster promises or may hold"
    hint = did_you_mean(knob, SEARCHED) or f"; there are {', '.join(SEARCHED)}"
    return f"there is no knob {knob!r} to tune{hint}"


def _values(knob: str, field: Mapping[str, Any], used: list[Any]) -> tuple[Any, ...]:
    if "enum" in field:
        return tuple(field["enum"])
    if field["type"] == "string":
        return tuple(load_part(SPECS["baseline"].policies)) if knob == "policy" else _unique(*used)
    least = field.get("minimum", field.get("exclusiveMinimum", -math.inf))
    return _ladder(used, least, field.get("maximum", math.inf), field["type"] == "integer")


def _ladder(used: Iterable[float], least: float, most: float, are_whole: bool) -> tuple[float, ...]:
    """Rungs around the values that are used, within the bounds."""
    above = [value for value in used if value > 0]
    low, high = min(above) / BEYOND, max(above) * BEYOND
    step = 2 if math.log2(high / low) <= RUNGS_OF_TWO else 4
    rungs = [low * step**n for n in range(math.ceil(math.log(high / low, step)) + 1)]
    rounded = (round(rung) if are_whole else float(f"{rung:.3g}") for rung in rungs)
    return tuple(sorted({*used, *(rung for rung in rounded if rung > 0 and least <= rung <= most)}))


def _unique(*values: Any) -> tuple[Any, ...]:
    """The values once each, in order if they can be ordered."""
    once = dict.fromkeys(values)
    try:
        return tuple(sorted(once))
    except TypeError:
        return tuple(once)


def turned(start: ClusterSpec, values: Mapping[str, Any]) -> ClusterSpec:
    """The start with these values; raises ClusterError for a combination that no cluster runs."""
    spec = with_knobs(start, values, f"{start.name}-tuned")
    if spec.policy not in load_part(spec.policies):
        raise ClusterError(f"{spec.policies} has no policy {spec.policy!r}")
    return spec


def changed(start: ClusterSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from those of the start."""
    return {knob: value for knob, value in values.items() if value != value_of(start, knob)}


def changes_text(changes: Mapping[str, Any]) -> str:
    """Changes as ``--set`` takes them, parts by their last name: `burst=256 codec=PackedCodec`."""
    parts = (f"{knob}={str(value).rpartition(':')[2]}" for knob, value in changes.items())
    return " ".join(parts) or "nothing changed"


def known_points(start: ClusterSpec, space: Space) -> list[dict[str, Any]]:
    """Where other specs are in this space, each once: the best first guesses there are."""
    points: dict[str, dict[str, Any]] = {}
    for spec in SPECS.values():
        point = {
            knob: value if (value := value_of(spec, knob)) in values else value_of(start, knob)
            for knob, values in space.items()
        }
        if changed(start, point):
            points.setdefault(repr(point), point)
    return [*points.values()]
