"""The coordinator's processor time per task, in units of a fixed load: a figure that repeats.

A time alone can't tell 10 % on a shared machine, where identical code differs by a quarter between
two runs. This figure can, because

* the production dispatcher runs without sockets and threads, and is sent the same messages in every
  round (see `perfkit.bench.counts.lockstep`), so each of its steps does the same in every round;
* a step takes microseconds, and the fastest of many rounds is the one that nothing disturbed: no
  preemption, no cold cache, no slow clock. The figure is the sum over the steps of these times,
  which is processor time, because a step waits for nothing;
* the unit is a load of the same kind, timed likewise between the rounds (`reference`), so that
  another clock or a slower machine moves both;
* a fresh process is one sample: where its memory lies is worth a per cent or two.

The fastest round says nothing of what happens now and then (garbage collection, page faults), nor
of system calls: the experiments on a living cluster do.

    python -m perfkit.bench.regression.cost     one sample of each figure, as JSON
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.counts.lockstep import Letters, Load, Lockstep, SteppedCoordinator
from perfkit.bench.counts.per_task import uncollected
from perfkit.bench.regression.bytecodes import count_bytecodes
from perfkit.bench.regression.reference import PIECES, ReferenceLoad
from perfkit.bench.workloads.load import WrongResult, echo_work
from perfkit.optimized.specs import OPTIMIZED

#: Rounds before the recorded one, so that peers have met and leases have grown.
WARM_ROUNDS = 4
#: With fewer, a busy machine leaves some steps without an undisturbed round.
ROUNDS = 48


@dataclass(frozen=True)
class CostCase:
    """A spec under a load: one figure of the gate."""

    spec: ClusterSpec
    load: str
    shape: Load

    @property
    def name(self) -> str:
        """How the figure is called: spec and load."""
        return f"{self.spec.name}, {self.load}"


#: Blocks of memory allocated before a round, and how many of them are kept: one in each of Python's
#: arenas at least, so that no round asks the system for memory. A page fault costs what it likes.
BALLAST_BLOCKS, BALLAST_KEPT = 40_000, 200
BALLAST_BYTES = 200

#: One task at a time, and many at once: as many as make a step of a spec last about as long.
CASES = (
    CostCase(BASELINE, "single", Load(16, 1, 1)),
    CostCase(BASELINE, "stream", Load(32, 32, 32)),
    CostCase(OPTIMIZED, "single", Load(16, 1, 1)),
    CostCase(OPTIMIZED, "stream", Load(256, 256, 256)),
)


class CostSample(msgspec.Struct, frozen=True):
    """One sample of a figure: `cost` is the time of a task over that of the reference load.

    `us_per_task` is the same in µs, for people: it moves with the machine's clock.
    `bytecodes_per_task` is what the coordinator's Python code executes.
    """

    cost: float
    us_per_task: float
    bytecodes_per_task: float


class Replay:
    """What a coordinator was sent while a load ran, to be sent to another one.

    Every result of the recorded run was checked, and every replay must send as much as it did.
    """

    def __init__(self, case: CostCase) -> None:
        self._spec = case.spec
        shape = case.shape
        coordinator = SteppedCoordinator(case.spec)
        lockstep = Lockstep(case.spec, coordinator)
        for _ in range(WARM_ROUNDS):
            lockstep.drive(echo_work(max(1, shape.tasks // 4), seed=0), shape)
        met, before = len(lockstep.inbox), coordinator.traffic()
        lockstep.drive(echo_work(shape.tasks, seed=0), shape)
        self._warm: list[Letters] = lockstep.inbox[:met]
        self._timed: list[Letters] = lockstep.inbox[met:]
        self._traffic = _growth(coordinator, before)

    def run(self) -> list[int]:
        """Nanoseconds of each step, on a fresh coordinator; raises WrongResult if its answers are
        more or fewer than they were.
        """
        coordinator = self._warmed()
        before, step, clock = coordinator.traffic(), coordinator.step, time.perf_counter_ns
        took_ns = []
        for letters in self._timed:
            began_ns = clock()
            step(letters)
            took_ns.append(clock() - began_ns)
        if _growth(coordinator, before) != self._traffic:
            raise WrongResult(f"spec {self._spec.name!r} answered the same messages in another way")
        return took_ns

    def bytecodes(self) -> int:
        """Bytecodes that the steps execute."""
        coordinator = self._warmed()
        with uncollected():  # a collection may call Python code of others
            return count_bytecodes(lambda: [coordinator.step(letters) for letters in self._timed])

    def _warmed(self) -> SteppedCoordinator:
        coordinator = SteppedCoordinator(self._spec)
        for letters in self._warm:
            coordinator.step(letters)
        return coordinator


def _growth(coordinator: SteppedCoordinator, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in coordinator.traffic().items()}


class _Fastest:
    """The fastest time of each step over all rounds."""

    def __init__(self) -> None:
        self._steps_ns: list[int] = []

    def add(self, took_ns: list[int]) -> None:
        self._steps_ns = list(map(min, self._steps_ns or took_ns, took_ns))

    def sum_ns(self) -> int:
        return sum(self._steps_ns)


def sample_costs(rounds: int = ROUNDS) -> dict[str, CostSample]:
    """One sample of each of CASES by its name, from this process; raises WrongResult."""
    ballast = [bytes(BALLAST_BYTES) for _ in range(BALLAST_BLOCKS)]
    ballast = ballast[:: BALLAST_BLOCKS // BALLAST_KEPT]
    reference, unit = ReferenceLoad(), _Fastest()
    replays = [(case, Replay(case), _Fastest()) for case in CASES]
    with uncollected():
        for _ in range(rounds):
            for _, replay, fastest in replays:
                unit.add(_reference_ns(reference))
                fastest.add(replay.run())
    del ballast
    return {
        case.name: CostSample(
            cost=fastest.sum_ns() / case.shape.tasks / unit.sum_ns(),
            us_per_task=fastest.sum_ns() / case.shape.tasks / 1e3,
            bytecodes_per_task=replay.bytecodes() / case.shape.tasks,
        )
        for case, replay, fastest in replays
    }


def _reference_ns(reference: ReferenceLoad) -> list[int]:
    clock, run = time.perf_counter_ns, reference.run
    took_ns = []
    for piece in range(PIECES):
        began_ns = clock()
        run(piece)
        took_ns.append(clock() - began_ns)
    return took_ns


def main() -> None:
    """Print one sample of each figure as JSON."""
    print(msgspec.json.encode(sample_costs()).decode())


if __name__ == "__main__":
    main()
