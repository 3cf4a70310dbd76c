"""Recordings of cards and of profilers' files, read and compared with what is right.

Recordings are not part of the project, so their folder is an argument. Each is a folder with a
`right.json` that was written by hand:

    {"gpu": {"0000:09:00.0": {"gpu_busy_pct": 11, "temp_memory_c": null}},
     "kernels": {"trace.csv": {"kernels": [{"name": "saxpy", "duration_ns": 4000}]}}}

`gpu` has fields of `perfkit gpu --drm-root … --json` by card, of the tree in the folder's `drm`, or
in the folder itself. `kernels` has parts of `perfkit kernels FILE --json` by file; the right answer
may also be {"error": "words of the refusal"}. Every figure there is compared, and no other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfkit.bench.workloads.load import ExperimentError
from perfkit.gpu.card import Cards
from perfkit.gpu.rocprof import RocprofError, read

RIGHT = "right.json"
#: Two numbers are the same if they differ by no more than this part.
PRECISION = 1e-6


@dataclass(frozen=True)
class Recording:
    """One recording as it was read: how many figures were compared, and the wrong ones in words.

    `fields_n` and `fields_wrong_n` count those of cards, which have a goal of their own.
    """

    name: str
    figures_n: int
    wrong: tuple[str, ...]
    fields_n: int
    fields_wrong_n: int


def read_recordings(folder: Path) -> list[Recording]:
    """Read every recording below a folder.

    Raises ExperimentError if there is none, and for a `right.json` that is not as described.
    """
    found = [_recording(folder, path) for path in sorted(folder.rglob(RIGHT))]
    if not found:
        raise ExperimentError(f"no {RIGHT} below {folder}; each recording needs one beside it")
    return found


def _recording(root: Path, path: Path) -> Recording:
    try:
        right = json.loads(path.read_bytes())
        cards, files = dict(right.get("gpu", {})), dict(right.get("kernels", {}))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ExperimentError(f"{path} is not as described: {error}") from None
    name, place = str(path.parent.relative_to(root)), path.parent
    fields = list(_compared(_cards(place) if cards else {}, cards, name))
    figures = [
        verdict
        for file, expected in files.items()
        for verdict in _compared(_profile(place / file), expected, f"{name}/{file}")
    ]
    wrong_fields, wrong_figures = ([w for w in part if w is not None] for part in (fields, figures))
    return Recording(
        name=name,
        figures_n=len(fields) + len(figures),
        wrong=(*wrong_fields, *wrong_figures),
        fields_n=len(fields),
        fields_wrong_n=len(wrong_fields),
    )


def _cards(place: Path) -> dict[str, Any]:
    """The fields of each card, by PCI address or number, as JSON values."""
    cards = Cards(place / "drm" if (place / "drm").is_dir() else place)
    found = {sample.pci or sample.card: sample.to_dict() for sample in cards.sample()}
    cards.close()
    values: dict[str, Any] = _plain(found)
    return values


def _profile(file: Path) -> Any:
    """A profile as JSON values, or the error that refuses it."""
    try:
        profile = read(file)
    except RocprofError as error:
        return {"error": str(error)}
    return _plain(profile.to_json(profile.top_kernels()))


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))


def _compared(told: Any, right: Any, where: str) -> Iterator[str | None]:
    """For each figure of `right`, None if it was told so, or what is wrong."""
    if isinstance(right, dict):
        for name, expected in right.items():
            known = told.get(name) if isinstance(told, dict) else None
            yield from _compared(known, expected, f"{where} {name}")
    elif _are_records(right) and isinstance(told, list) and len(right) == len(told):
        yield None  # as many as there should be
        for number, (known, expected) in enumerate(zip(told, right, strict=True)):
            yield from _compared(known, expected, f"{where}[{number}]")
    elif where.endswith(" error"):
        yield None if told is not None and str(right) in str(told) else _differ(where, told, right)
    else:
        yield None if _same(told, right) else _differ(where, told, right)


def _are_records(right: Any) -> bool:
    return isinstance(right, list) and any(isinstance(record, dict) for record in right)


def _differ(where: str, told: Any, right: Any) -> str:
    return f"{where} is {json.dumps(told)[:200]}; right is {json.dumps(right)[:200]}"


def _same(told: Any, right: Any) -> bool:
    numbers = (int, float)
    if isinstance(told, numbers) and isinstance(right, numbers):
        if isinstance(told, bool) or isinstance(right, bool):
            return told is right
        return math.isclose(told, right, rel_tol=PRECISION)
    return bool(told == right)
