"""What saved results of this machine say about specs: which was faster than which, and by how much.

Three kinds of file hold two specs that took turns: the evidence of `perfkit tune`, what `perfkit
compare --json` writes, and the arms of an ablation, which share the moment they began. Results of
single runs are left out: too much changes between two runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.vocabulary.errors import ClusterError
from perfkit.bench.tuning.advice import Advice, Standing
from perfkit.bench.tuning.trials import gain_of
from perfkit.bench.tuning.tuned import EVIDENCE, EXPERIMENT
from perfkit.evidence.environment import Environment, machine_differences
from perfkit.evidence.results import Result, decode
from perfkit.evidence.samples import Interval
from perfkit.evidence.stats import Comparison, compare_blocks
from perfkit.evidence.verdicts import Verdict
from perfkit.optimized.specs import FILE_SUFFIX, SPECS

#: Where results are unless told otherwise, from the folder that perfkit is called in.
FOLDERS = (Path("reports"), Path())
#: The newest files that are read; a folder of reports may hold thousands.
FILES_MAX = 3_000
#: A larger file is no result.
FILE_BYTES_MAX = 1 << 26
#: Pieces of advice about specs.
SPECS_MAX = 3
_ABLATION, _FIGURE = "ablation ", "per_s"


class Gain(NamedTuple):
    """A spec that was faster than another, and where that is written."""

    spec: str
    against: str
    what: str
    gain: Interval
    source: Path


class _Saved(NamedTuple):
    path: Path
    result: Result


class _Compared(msgspec.Struct):
    """What `perfkit compare --json` writes, as far as it is needed."""

    a: str
    b: str
    experiment: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    direction: str
    confidence: float
    method: str
    results: dict[str, list[Result]]


def spec_advice(used: str, folders: Iterable[Path], environment: Environment) -> Iterator[Advice]:
    """What saved results of this machine say is faster than the spec that is used."""
    files = list(_files(folders))
    gains = saved_gains(files, environment, used)
    best: dict[str, Gain] = {}
    for gain in sorted(gains, key=lambda gain: gain.gain.low or 0.0, reverse=True):
        best.setdefault(gain.spec, gain)
    for gain in [*best.values()][:SPECS_MAX]:
        yield Advice(
            f"spec {gain.spec}",
            Standing.ADVICE,
            f"{used} is used",
            f"{gain.spec} was faster on this machine: {gain.what}",
            f"--spec {gain.spec}" if _is_spec(gain.spec) else f"its knobs are in {gain.source}",
            gain.gain,
            evidence=f"measured in turns, {gain.source}",
        )
    if not best:
        yield Advice(
            "spec",
            Standing.UNKNOWN,
            None,
            f"none of {len(files)} saved files compares {used} with another spec on this machine",
            f"perfkit compare {used} optimized --json compared.json, or perfkit doctor --measure",
        )


def _is_spec(name: str) -> bool:
    """Whether `--spec` takes the name: one that `--set` has turned is a name only."""
    return name in SPECS or name.endswith(FILE_SUFFIX)


def saved_gains(files: Iterable[Path], environment: Environment, used: str) -> list[Gain]:
    """Every spec that some file shows to be faster than the one that is used, on this machine."""
    return [gain for gain in _all_gains(files, environment, used) if gain.against == used]


def _all_gains(files: Iterable[Path], environment: Environment, used: str) -> Iterator[Gain]:
    arms: dict[tuple[str, str | None], dict[str, _Saved]] = {}
    for path in files:
        found = _read(path)
        if isinstance(found, _Compared):
            yield from _compared(found, path, environment)
        elif found is None or machine_differences(found.environment, environment):
            continue
        elif found.experiment == EXPERIMENT:
            yield from _tuned(found, path)
        elif found.experiment.startswith(_ABLATION):
            study = arms.setdefault((found.experiment, found.started_utc), {})
            study[str(found.parameters.get("arm", found.spec))] = _Saved(path, found)
    for study in arms.values():
        yield from _ablation(study, used)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    """The JSON files of reports, and those that lie in a folder, newest first."""
    found = set()
    for folder in folders:
        found |= {*folder.glob(f"*{FILE_SUFFIX}"), *folder.glob(f"*/results/*{FILE_SUFFIX}")}
    dated = []
    for path in found:
        try:
            about = path.stat()
        except OSError:
            continue
        if about.st_size <= FILE_BYTES_MAX:
            dated.append((about.st_mtime, path))
    yield from (path for _, path in sorted(dated, reverse=True)[:FILES_MAX])


def _read(path: Path) -> Result | _Compared | None:
    """What is in a file; None if it is neither, such as another program's."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    for kind in (_read_result, msgspec.json.Decoder(_Compared).decode):
        try:
            return kind(text)
        except (ClusterError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def _read_result(text: bytes) -> Result:
    return decode(text)


def _tuned(result: Result, path: Path) -> Iterator[Gain]:
    """The spec that a search has proved, by the name of its file if it was saved, too."""
    facts = result.parameters
    start = facts.get("start")
    if facts.get("verdict") == Verdict.FASTER and isinstance(start, Mapping):
        spec = path.with_name(path.name.removesuffix(EVIDENCE) + FILE_SUFFIX)
        name = str(spec) if spec.is_file() else result.spec
        interval = Interval(result.value, result.low, result.high, 0.95, "proof")
        yield Gain(name, str(start.get("name")), str(facts.get("workload")), interval, path)


def _compared(found: _Compared, path: Path, environment: Environment) -> Iterator[Gain]:
    runs = [run for arm in found.results.values() for run in arm]
    here = not any(machine_differences(run.environment, environment) for run in runs)
    is_slower = found.verdict is Verdict.SLOWER
    if not here or not found.results.get("C") or found.verdict not in (Verdict.FASTER, "slower"):
        return
    value, low, high = found.ratio, found.low, found.high
    if is_slower == (found.direction == "higher"):
        ends = (value, high, low)
        value, low, high = (None if not end else 1 / end for end in ends)
    better, worse = (found.a, found.b) if is_slower else (found.b, found.a)
    gain = Interval(value, low, high, found.confidence, found.method)
    yield Gain(better, worse, found.experiment, gain, path)


def _ablation(study: Mapping[str, _Saved], used: str) -> Iterator[Gain]:
    """Each arm with a spec's name that is faster than the arm of `used`."""
    base = study.get(used)
    for name, saved in study.items() if base else ():
        if base is not None and name != used and name in SPECS:
            found = _in_turns(base.result, saved.result)
            if found is not None and found.verdict is Verdict.FASTER:
                yield Gain(name, used, saved.result.experiment, gain_of(found), saved.path)


def _in_turns(base: Result, other: Result) -> Comparison | None:
    """Blocks of two arms that took turns; None if they do not pair up."""
    columns: list[Sequence[float | None]] = [it.series.get(_FIGURE, ()) for it in (base, other)]
    below, above = ([value for value in column if value is not None] for column in columns)
    if len(below) != len(above) or not below:
        return None
    try:
        return compare_blocks(below, above, direction="higher", seed=base.seed or 0)
    except ValueError:
        return None
