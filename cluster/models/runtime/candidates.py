"""Tries one model in several precisions on the CPU and the card: who is right, and how fast?

It runs in a process of its own (``python -m … FOLDER``): a driver that crashes ends the trial and
not a worker, and the memory of all these sessions is freed. The folder has the request and gets the
answer, a line of JSON for each step, so that the parent knows at which candidate a trial has ended.
Then it is run again without that one.

All candidates first answer the same inputs, and each is compared with the model's own file on
the CPU. Only then is time measured, in blocks that alternate in random order. For a card the
kernel must say that it did the work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.models.providers.placement import Node, carrying_data, nodes_on
from cluster.models.providers.usage import CardUnused, check_used, engine_times_ns
from cluster.models.providers.webgpu import WEBGPU, DeviceLost, claim_card, claimed_card
from cluster.models.repository.manifest import Manifest, ModelError
from cluster.models.runtime.golden import (
    SAME,
    Tensors,
    difference,
    is_comparable,
    read_groups,
    run_all,
    write_groups,
    write_tensors,
)
from cluster.models.runtime.loss import Loss
from cluster.models.runtime.network import Network
from cluster.models.runtime.session import CPU, OpenSession, Provider, load_runtime, open_session
from cluster.models.runtime.timing import block_times, run_s
from cluster.models.runtime.trial import Golden, first_run

TIMEOUT_S = 600.0
#: A precision that is not faster by this is not worth any loss.
GAIN_MIN = 1.05

#: The rows of a run, at most.
PART_ROWS = 64

REQUEST, TOLD, INPUTS, SAMPLE = "request.json", "told.jsonl", "inputs.npz", "sample.npz"
#: The model's own answers to all the inputs.
OWN = "own.npz"
PROVIDERS: Mapping[str, str] = {"cpu": CPU, "webgpu": WEBGPU}


class Candidate(msgspec.Struct, frozen=True):
    """A file to try: the model in a ``precision``, made for a ``provider``, "cpu" or "webgpu"."""

    precision: str
    provider: str
    path: str
    options: dict[str, str] = {}


class Row(msgspec.Struct, frozen=True):
    """What a trial says of a candidate; with a ``trouble`` it can't serve, and why.

    ``difference`` and ``loss`` are against the model's file on the CPU, as
    `cluster.models.runtime.golden` and `cluster.models.runtime.loss` explain. ``item_s`` has the
    seconds for an item, one figure a block; ``rows`` is the batch they were taken with.
    ``cpu_nodes`` of a card's graph stay on the CPU. ``may_pass`` says that the trouble may pass:
    the driver crashed or lost its card, or the kernel did not see the card work.
    """

    precision: str
    provider: str
    file_bytes: int | None
    trouble: str = ""
    device: str = ""
    nodes_by_provider: dict[str, int] | None = None
    cpu_nodes: tuple[Node, ...] = ()
    difference: float | None = None
    loss: Loss | None = None
    rows: int = 0
    item_s: tuple[float, ...] = ()
    may_pass: bool = False

    @property
    def items_per_s(self) -> float | None:
        """By the median block; None if it wasn't timed."""
        if not self.item_s:
            return None
        from statistics import median  # it takes 15 ms to load

        return 1 / median(self.item_s)

    def __str__(self) -> str:
        """In words, such as ``cpu fp32: 1,200 items/s``."""
        speed = self.items_per_s
        told = self.trouble or ("not timed" if speed is None else f"{speed:,.0f} items/s")
        lost = f", loses {self.loss}" if self.loss is not None else ""
        return f"{self.provider} {self.precision}: {told}{lost}"


class Request(msgspec.Struct, frozen=True):
    """What to try: ``plain`` is the model's own file, ``rows_max`` bounds a run. With
    ``only_faster`` another precision that is no faster than that file answers a single run of
    inputs.
    """

    name: str
    plain: str
    candidates: tuple[Candidate, ...]
    shaders: str
    threads: int = 1
    rows_max: int = PART_ROWS
    only_faster: bool = False


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the answer: ``at``, the candidate that is tried next, or its row."""

    at: int
    row: Row | None = None


def try_candidates(request: Request, folder: Path) -> list[Row]:
    """A row for each candidate, without its loss. ``folder`` may hold `INPUTS`; it gets `SAMPLE`, a
    run of them, and each candidate's outputs for it as `outputs_name` says, and for all the inputs
    `OWN` and what `answers_name` says, unless a candidate is too slow to be of interest.

    Raises:
        ModelError: the model's own file fails on the CPU, or it takes too long.
    """
    rows: dict[int, Row] = {}
    while left := [at for at in range(len(request.candidates)) if at not in rows]:
        told = folder / TOLD
        told.unlink(missing_ok=True)
        some = msgspec.structs.replace(
            request, candidates=tuple(request.candidates[at] for at in left)
        )
        (folder / REQUEST).write_bytes(msgspec.json.encode(some))
        command = [sys.executable, "-P", "-m", "cluster.models.runtime.candidates", str(folder)]
        command += [str(at) for at in left]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"the trial was not done in {TIMEOUT_S:g} s") from None
        lines = told.read_bytes().splitlines() if told.exists() else []
        steps = [msgspec.json.decode(line, type=Step) for line in lines]
        rows |= {step.at: step.row for step in steps if step.row is not None}
        if done.returncode == 0 or all(at in rows for at in left):
            break
        if not steps:
            raise ModelError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        rows = {at: row for at, row in rows.items() if row.trouble}
        if steps[-1].at not in rows:
            trouble = f"its process {_how_it_ended(done.returncode)}"
            for at in _blamed(request, left, rows, steps[-1].at):
                rows[at] = _row(request.candidates[at], trouble=trouble, may_pass=True)
    return [rows[at] for at in range(len(request.candidates))]


def _blamed(
    request: Request, left: Sequence[int], rows: Mapping[int, Row], last: int
) -> Sequence[int]:
    """The candidates that may have ended a process at the candidate ``last``: a card's driver also
    crashes later, while the CPU works.
    """
    if request.candidates[last].provider != "cpu":
        return [last]
    on_card = [at for at in left if request.candidates[at].provider != "cpu" and at not in rows]
    return on_card or [last]


def outputs_name(at: int) -> str:
    """The file with the outputs of the candidate ``at``."""
    return f"outputs-{at}.npz"


def answers_name(at: int) -> str:
    """The file with the answers of the candidate ``at`` to all the inputs."""
    return f"answers-{at}.npz"


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"has ended with code {code}"
    return f"has died of {signal.Signals(-code).name}: the driver is broken, or lost its card"


def _row(candidate: Candidate, **facts: Any) -> Row:
    size = Path(candidate.path).stat().st_size
    return Row(candidate.precision, candidate.provider, size, **facts)


# The process of a trial


def main(folder: Path, numbers: Sequence[int]) -> None:
    """Try the candidates of the request in ``folder``, by their ``numbers`` in the answer."""
    request = msgspec.json.decode((folder / REQUEST).read_bytes(), type=Request)
    plain = Network(Manifest(name=request.name), Path(request.plain), request.threads, (CPU,))
    groups = _groups(plain, folder, request.rows_max)
    wanted = _answers(plain.opened, groups)
    sample = groups[0][0]
    first = [[sample]], _answers(plain.opened, [[sample]])
    items = len(next(iter(sample.values()))) if plain.batches else 1
    write_tensors(folder / SAMPLE, sample)
    write_groups(folder / OWN, wanted)
    sessions: dict[int, Any] = {}
    rows: dict[int, Row] = {}
    with (folder / TOLD).open("ab", buffering=0) as told:

        def tell(at: int, row: Row | None = None) -> None:
            told.write(msgspec.json.encode(Step(at, row)) + b"\n")

        for at, candidate in zip(numbers, request.candidates, strict=True):
            tell(at)
            try:
                opened, cpu_nodes = _open(request, candidate)
                asked, own = groups, wanted
                if request.only_faster and not _is_worth_it(candidate, opened, plain, sample):
                    asked, own = first
                outputs = _answers(opened, asked)
                rows[at] = _judge(candidate, opened, own, outputs, cpu_nodes)
                if asked is groups:
                    write_groups(folder / answers_name(at), outputs)
                write_tensors(folder / outputs_name(at), run_all(opened.session, sample))
                sessions[at] = opened.session
            except Exception as error:  # the runtime's errors share no base of their own
                may_pass = isinstance(error, DeviceLost | CardUnused)
                trouble = _why(candidate, error)
                rows[at] = _row(candidate, trouble=trouble, may_pass=may_pass)
                if isinstance(error, DeviceLost):  # sooner or later the driver ends this process
                    tell(at, rows[at])
                    os._exit(1)
            if rows[at].trouble:
                sessions.pop(at, None)
                tell(at, rows[at])
        for at, block_s in block_times(sessions, sample, tell).items():
            item_s = tuple(it / items for it in block_s)
            tell(at, msgspec.structs.replace(rows[at], rows=items, item_s=item_s))


def _is_worth_it(
    candidate: Candidate, opened: OpenSession, plain: Network, sample: Mapping[str, Any]
) -> bool:
    """Whether a candidate is so much faster than the model's own file that its loss matters."""
    if candidate.precision == "fp32":
        return True
    found: dict[int, float] = {}
    for session in (plain.opened.session, opened.session) * 2:
        once_s = run_s(session, sample)
        found[id(session)] = min(once_s, found.get(id(session), once_s))
    own_s, other_s = found.values()
    return own_s >= GAIN_MIN * other_s


def _groups(plain: Network, folder: Path, rows_max: int) -> list[list[dict[str, Any]]]:
    """The inputs in groups, each in parts of a few rows if the graph takes batches: a card's driver
    gives up on a run that takes too long.
    """
    if (folder / INPUTS).exists():
        groups = [
            Golden(some, {}, 0.0, 0.0).take_inputs(plain) for some in read_groups(folder / INPUTS)
        ]
    else:
        inputs, refusal = first_run(plain)
        if refusal is not None:
            raise ModelError(f"it takes no made-up inputs; golden ones would do: {refusal}")
        groups = [inputs]
    if not plain.batches:
        return [[some] for some in groups]
    step = min(rows_max, PART_ROWS)
    return [
        [
            {name: it[start : start + step] for name, it in some.items()}
            for start in range(0, len(next(iter(some.values()))), step)
        ]
        for some in groups
    ]


def _open(request: Request, candidate: Candidate) -> tuple[OpenSession, tuple[Node, ...]]:
    provider: Provider = PROVIDERS[candidate.provider]
    cpu_nodes: tuple[Node, ...] = ()
    if provider == WEBGPU:
        claim_card(load_runtime(request.name), Path(request.shaders))
        provider = WEBGPU, candidate.options
    opened = open_session(request.name, Path(candidate.path), request.threads, (provider,))
    if opened.provider == WEBGPU:
        cpu_nodes = tuple(nodes_on(opened.session, CPU))
        strays = carrying_data(cpu_nodes, Path(candidate.path))
        if strays:
            some = ", ".join(map(str, strays[:3])) + (" …" if len(strays) > 3 else "")
            raise ModelError(
                f"{len(strays)} of its nodes would run on the CPU, with copies forth and back: "
                f"{some}; WebGPU has no such operator for these types, so serve it on the CPU"
            )
    return opened, cpu_nodes


def _why(candidate: Candidate, error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ModelError):
        return said
    if candidate.precision == "fp16" and candidate.provider == "webgpu":
        card = claimed_card()
        if not card.has_fp16:
            return (
                f"{card} can't compute with float16 (WebGPU's shader-f16), so take another "
                f"precision: {said}"
            )
    return said


def _answers(opened: OpenSession, groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[Tensors]:
    """The answer to each group of the inputs; a card must have computed it."""
    before = engine_times_ns()
    outputs = [_joined([run_all(opened.session, part) for part in parts]) for parts in groups]
    if opened.provider == WEBGPU and not claimed_card().is_software:
        check_used(claimed_card().pci, before, engine_times_ns())
    return outputs


def _judge(
    candidate: Candidate,
    opened: OpenSession,
    wanted: Sequence[Tensors],
    outputs: Sequence[Tensors],
    cpu_nodes: tuple[Node, ...],
) -> Row:
    pairs = list(zip(wanted, outputs, strict=True))
    apart = max(difference(own, other) for own, other in pairs)
    trouble = ""
    if candidate.precision == "fp32" and apart > SAME:
        trouble = f"its answers are {apart:.2g} from the CPU's, relative to the largest number"
    elif not all(is_comparable(own, other) for own, other in pairs):
        trouble = "its answers have NaN, infinity or other shapes"
    return _row(
        candidate,
        trouble=trouble,
        device=opened.device,
        nodes_by_provider=opened.nodes_by_provider,
        cpu_nodes=cpu_nodes,
        difference=apart if apart != float("inf") else None,
    )


def _joined(parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
    except ModelError as error:
        sys.exit(str(error))
