"""The table of goals for serving: the API against bare servers and against what people use instead.

One load generator asks all of them the same questions, in turns, and every answer is checked. A
peer that could not be installed or did not start is a row without a figure, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from statistics import median

from cluster.models.inference import ModelInfo
from cluster.models.runtime.choice import BUDGET_POINTS
from cluster.models.runtime.loss import Loss
from cluster.spec import ClusterSpec
from perfkit.bench.goals import serving_runs as runs
from perfkit.bench.goals.serving_runs import (
    AGAIN,
    AUTOMATIC,
    BARE,
    LOCAL,
    MANY,
    QUIET,
    SWALLOWED,
    UNBATCHED,
    Field,
    ServingContest,
    ServingSizes,
)
from perfkit.bench.goals.table import (
    OPTIMIZED,
    Contest,
    Goal,
    GoalRow,
    GoalTable,
    at_most,
    chosen,
    make_row,
)
from perfkit.bench.serving.asking import Generator
from perfkit.bench.serving.attacker import Hostility
from perfkit.bench.serving.venvs import PACKAGES, PeerMissing, python_of
from perfkit.bench.serving.venvs import chosen_peers as chosen_peers
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import ArmSamples, Say, prefixed
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.text import quantity
from perfkit.optimized.specs import OPTIMIZED as OPTIMIZED_SPEC

#: As many hostile requests have to be sent for a verdict.
HOSTILE_MIN = 10_000
#: Quick is for a look: some three minutes on two cores, a quarter of an hour with every peer; full
#: is for a claim.
PROFILES: Mapping[str, ServingSizes] = {
    "quick": ServingSizes(rounds=4, load_s=0.7, open_s=2.5, hostile=2_000),
    "full": ServingSizes(rounds=10, load_s=2.0, open_s=8.0, memory_rounds=5, hostile=HOSTILE_MIN),
}
#: The packages that the measurements need, and the extra that brings them.
NEEDED = {"uvicorn": "serve", "httptools": "serve", "uvloop": "serve", "onnxruntime": "infer"}

PLAN_MODELS = ("digits", "minilm", "magika")
WHAT = {
    "digits": "64 pixels in JSON",
    "minilm": "32 tokens in JSON",
    "texts": "a text of 32 tokens to /v1/embeddings",
    "magika": "2,048 bytes in JSON",
}

MEMORY_GOALS = (
    at_most("api_idle", "api_idle", "MB", 60, "PSS of the API's process before its first load"),
    at_most("api_loaded", "api_loaded", "MB", 100, f"highest PSS, {MANY} requests in flight"),
)
CLEAR = Goal("hostile_refused", "unclear", "unclear", "lower", "value", 0.0,
             f"none of {HOSTILE_MIN:,}")  # fmt: skip
#: The goal is held to the time without an attack. Here others also share the cores with the
#: attacker, which they do not in life: the same attack on a sink, beside it, shows that part.
HOSTILE_GOALS = (
    Goal(
        "hostile_others_p99", "others_p99", "ms", "lower", "ratio", 2.0,
        "≤ 2 × without them", against=QUIET,
        note=f"p99 of others, open loop, {runs.HOSTILE_PER_S:.0f} hostile requests/s meanwhile",
    ),
    Goal(
        "hostile_others_sink", "others_p99", "ms", "lower", "ratio", None,
        "for comparison", against=SWALLOWED,
        note="against the same attack on a sink, which takes the attacker's share of the cores",
    ),
    at_most(
        "hostile_memory", "hostile_memory", "MB", 400,
        "highest PSS meanwhile; the API holds at most 256 MiB of open requests",
    ),
)  # fmt: skip
MODELS_SPED_UP = Goal("plan_models", "plan_models", "models", "higher", "value", 2.0, "≥ 2 of 3")


def goals_of(sizes: ServingSizes, peers: Sequence[str]) -> Iterator[Goal]:
    """The goals of the contests: of each model against each peer, and against the bare servers."""
    for model in sizes.models:
        in_flight = sizes.connections if model == "digits" else (MANY,)
        for count in in_flight if model != "magika" else ():
            figure = f"{model}_{count}"
            note = f"{WHAT[model]}, {count} in flight"
            for peer in peers:
                yield _ratio(f"{figure}_vs_{peer}", figure, 1.0, peer, note)
            yield _ratio(f"{figure}_vs_bare", figure, None, BARE, note)
        if model in runs.SLOW and sizes.open_s:
            for peer in (*peers, BARE):
                yield Goal(
                    f"{model}_p99_vs_{peer}", f"{model}_p99", "ms", "lower", "ratio",
                    None if peer == BARE else 1.0,
                    "for comparison" if peer == BARE else f"lower than {peer}'s", against=peer,
                    note=f"{WHAT[model]}, open loop",
                )  # fmt: skip
        if model == "magika":
            note = f"{WHAT[model]}, {MANY} in flight; batching does not pay"
            yield _ratio("magika_vs_unbatched", f"magika_{MANY}", 1.0, UNBATCHED, note)
        limit = UNBATCHED if model == "magika" else BARE
        yield Goal(
            f"{model}_cpu", f"{model}_cpu", "ms", "lower", "ratio", None, "for comparison",
            against=limit, note=f"processor time of all processes per request, {MANY} in flight",
        )  # fmt: skip
        note = f"{WHAT[model]}, {MANY} in flight: how much the API differs from itself"
        yield _ratio(f"{model}_again", f"{model}_{MANY}", None, AGAIN, note)
    for count in sizes.connections if "digits" in sizes.models else ():
        note = f"digits without a cluster, {count} in flight"
        yield _ratio(f"local_{count}_vs_bare", f"local_{count}", 0.8, BARE, note)
    for model in (name for name in PLAN_MODELS if name in sizes.models):
        note = f"{model}, {MANY} in flight, precision auto, against one by one in fp32"
        yield _ratio(f"plan_rate_{model}", f"plan_rate_{model}", 1.3, UNBATCHED, note)
        yield Goal(
            f"plan_time_{model}", f"plan_time_{model}", "ms", "lower", "ratio", 0.7,
            "≤ 0.7 × unbatched", against=UNBATCHED, note=note,
        )  # fmt: skip
        note = f"accuracy that {model} loses in the precision that auto takes"
        yield at_most(f"plan_loss_{model}", "", "points", BUDGET_POINTS, note)


def _ratio(name: str, figure: str, goal: float | None, against: str, note: str) -> Goal:
    text = "for comparison" if goal is None else f"≥ {quantity(goal)} × {against}"
    return Goal(
        name, figure, "requests/s", "higher", "ratio", goal, text, against=against, note=note
    )


#: Every goal that a table may have a row of; the profile and the peers decide which.
GOALS: Sequence[Goal] = (
    *goals_of(PROFILES["full"], tuple(PACKAGES)),
    MODELS_SPED_UP,
    *MEMORY_GOALS,
    *HOSTILE_GOALS,
    CLEAR,
)


def measure_serving(
    profile: str | ServingSizes = "quick",
    *,
    optimized: ClusterSpec = OPTIMIZED_SPEC,
    seed: int = 0,
    progress: Say | None = None,
    peers: str = "installed",
) -> GoalTable:
    """Measure every goal on this machine; `peers` is one of the words of `venvs.chosen_peers`.

    Raises ExperimentError for an unknown profile or peer and for a missing package, WrongResult if
    any answer was wrong, and what the cluster raises.
    """
    name, sizes = chosen(profile, PROFILES)
    _check_extras()
    environment, began_s = fingerprint(), time.perf_counter()
    contest = Contest(optimized, sizes, seed, prefixed(progress, "serving"))
    with ExitStack() as stack:
        field = _field(contest, peers, stack.enter_context(Generator()))
        samples = runs.contests(field)
        samples |= runs.memory(field)
        attacked, hostility = runs.hostility(field)
    samples |= attacked
    samples |= _of_other_arms(sizes, samples)
    measured = [peer for peer in field.peers if peer in samples.get(f"digits_{MANY}", field.peers)]
    rows = serving_rows(sizes, measured, samples, seed, field.automatic)
    rows += [missing_row(peer, reason) for peer, reason in field.missing.items()]
    rows += [make_row(goal, samples, seed) for goal in MEMORY_GOALS] if sizes.memory_rounds else []
    if hostility.sent:
        rows += [make_row(goal, samples, seed) for goal in HOSTILE_GOALS]
        rows.append(hostile_row(hostility))
    took_s = time.perf_counter() - began_s
    notes = _notes(field, hostility)
    return GoalTable(tuple(rows), environment, name, seed, "", took_s, notes, ("API", "baseline"))


def _of_other_arms(sizes: ServingSizes, samples: ArmSamples) -> ArmSamples:
    """The figures whose own arm is not the API as it is by default."""
    pairs = [(f"local_{count}", f"digits_{count}", LOCAL, BARE) for count in sizes.connections]
    for model in PLAN_MODELS:
        pairs.append((f"plan_rate_{model}", f"{model}_{MANY}", AUTOMATIC, UNBATCHED))
        pairs.append((f"plan_time_{model}", f"{model}_time", AUTOMATIC, UNBATCHED))
    found: ArmSamples = {}
    for figure, source, arm, against in pairs:
        arms = samples.get(source, {})
        found[figure] = {OPTIMIZED: arms.get(arm, []), against: arms.get(against, [])}
    return found


def serving_rows(
    sizes: ServingSizes,
    peers: Sequence[str],
    samples: ArmSamples,
    seed: int = 0,
    automatic: Mapping[str, ModelInfo] = {},
) -> list[GoalRow]:
    """The rows of the contests; a verdict that the A/A arm casts doubt on is inconclusive.

    `automatic` has each model in the precision that was chosen for it.
    """
    rows = [make_row(goal, samples, seed) for goal in goals_of(sizes, peers)]
    doubts = {row.name.removesuffix("_again"): row for row in rows if row.against == AGAIN}
    rows = [_doubted(row, doubts.get(row.name.split("_")[0])) for row in rows]
    rows = [_with_loss(row, automatic) for row in rows]
    return [*rows, *_models_sped_up(rows)]


def _with_loss(row: GoalRow, automatic: Mapping[str, ModelInfo]) -> GoalRow:
    """A row of `plan_loss` with the loss that was measured when the precision was chosen."""
    info = automatic.get(row.name.removeprefix("plan_loss_"))
    if info is None or not row.name.startswith("plan_loss_"):
        return row
    loss = info.loss or Loss(0.0, 0.0, 0.0, 0)  # the file as it is
    met = {"within": True, "beyond": False}.get(loss.verdict(BUDGET_POINTS))
    note = f"{row.note}, {info.precision}"
    return replace(row, value=loss.points, low=loss.low, high=loss.high, met=met, note=note)


def _doubted(row: GoalRow, again: GoalRow | None) -> GoalRow:
    """The row without its verdict if the API differed from itself by as much as from the goal."""
    if again is None or row is again or None in (again.ratio_low, again.ratio_high):
        return row
    low, high = again.ratio_low or 0.0, again.ratio_high or 0.0
    if row.met is None or row.goal is None or row.ratio is None or low <= 1.0 <= high:
        return row
    noise = max(high, 1 / low)
    if row.goal / noise <= row.ratio <= row.goal * noise:
        return replace(row, met=None, note=f"{row.note}; the A/A arm differs as much")
    return row


def _models_sped_up(rows: Sequence[GoalRow]) -> list[GoalRow]:
    """How many models are faster by the plan's margins, in rate and time, at equal accuracy."""
    by_name = {row.name: row for row in rows}
    verdicts = [
        {by_name[f"plan_{what}_{model}"].met for what in ("rate", "time", "loss")}
        for model in PLAN_MODELS
        if f"plan_rate_{model}" in by_name
    ]
    if len(verdicts) < len(PLAN_MODELS):
        return []
    met = sum(some == {True} for some in verdicts)
    possible = sum(False not in some for some in verdicts)
    verdict = True if met >= 2 else (False if possible < 2 else None)
    note = f"rate ≥ 1.3 × and time ≤ 0.7 × unbatched, at most {BUDGET_POINTS:g} points lost"
    row = make_row(MODELS_SPED_UP, {})
    return [
        replace(row, value=float(met), low=float(met), high=float(possible), met=verdict, note=note)
    ]


def missing_row(peer: str, reason: str) -> GoalRow:
    """The row of a peer that was not measured."""
    goal = Goal(peer.replace(" ", "_"), "", "", "higher", "value", None, "not measured")
    return make_row(replace(goal, note=reason), {})


def hostile_row(found: Hostility) -> GoalRow:
    """How many hostile requests got no clear refusal; fewer than HOSTILE_MIN prove nothing."""
    count = float(len(found.unclear))
    met = False if count else (True if found.sent >= HOSTILE_MIN else None)
    note = f"of {found.sent:,} hostile requests; each must get a 4xx that says why"
    return replace(make_row(CLEAR, {}), value=count, low=count, high=count, met=met, note=note)


def _field(contest: ServingContest, peers: str, generator: Generator) -> Field:
    names, install = chosen_peers(peers)
    field = Field(contest, generator, {}, {})
    for peer in PACKAGES:
        if peer not in names:
            field.missing[peer] = f"left out by --peers {peers}"
            continue
        try:
            field.peers[peer] = python_of(peer, install, contest.say)
        except PeerMissing as error:
            field.missing[peer] = str(error)
    return field


def _notes(field: Field, found: Hostility) -> tuple[str, ...]:
    notes = [
        "Every server has the same model file, one thread and one process for the model; every "
        "answer was checked."
    ]
    if field.cpu_shares:
        shares = f"{median(field.cpu_shares):.0%}, at most {max(field.cpu_shares):.0%}"
        notes.append(f"The load generator used {shares} of a core.")
    notes += [f"{peer} is not measured: {reason}." for peer, reason in field.missing.items()]
    for model, rate_per_s in field.rates_per_s.items():
        rate = quantity(rate_per_s)
        notes.append(f"Open loop of {model}: {rate} requests/s, half of what unbatched gives.")
    if found.took_s:
        notes.append(
            f"Hostile requests came at {found.sent / found.took_s:.0f}/s; the attacker used "
            f"{found.cpu_s / found.took_s:.0%} of a core."
        )
    kinds = sorted({text.partition(":")[0] for text in found.unclear})
    if kinds:
        notes.append(f"Not refused clearly: {'; '.join(kinds)}. The first: {found.unclear[0]}")
    return tuple(notes)


def _check_extras() -> None:
    """Refuse to begin what a missing package would end minutes later."""
    if missing := {name: extra for name, extra in NEEDED.items() if find_spec(name) is None}:
        extras = ",".join(sorted(set(missing.values())))
        raise ExperimentError(
            f"measuring serving needs {' and '.join(missing)}; pip install 'perfkit[{extras}]' "
            "brings what is missing"
        )
