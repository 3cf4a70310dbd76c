"""The table of moves, the picture drawn from it, and the moves that are really made."""

import runpy
from pathlib import Path

import pytest

from cluster.core.run import Run
from cluster.simulation.simulator import Simulation
from cluster.vocabulary import lifecycle
from cluster.vocabulary.lifecycle import TERMINAL, TRANSITIONS, Cause
from cluster.vocabulary.task import State


def test_every_state_has_a_row_and_every_cause_a_place() -> None:
    assert TRANSITIONS.keys() == set(State)
    assert {cause for moves in TRANSITIONS.values() for cause in moves} == set(Cause)


def test_terminal_states_are_those_without_a_move() -> None:
    assert {State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED} == TERMINAL


def test_every_state_can_be_reached_and_leads_to_an_end() -> None:
    reached, ends = {State.QUEUED}, set(TERMINAL)
    for _ in State:
        reached |= {target for state in reached for target in TRANSITIONS[state].values()}
        ends |= {state for state, moves in TRANSITIONS.items() if ends & set(moves.values())}
    assert reached == ends == set(State)


def test_the_picture_mentions_every_move_once() -> None:
    first, *lines = lifecycle.diagram().splitlines()
    assert first == "stateDiagram-v2"
    arrows = dict(line.strip().split(": ", 1) for line in lines if ": " in line)
    drawn = {(arrow, cause) for arrow, causes in arrows.items() for cause in causes.split(", ")}
    name = {state: state.value.replace("-", "_") for state in State}
    assert drawn == {("[*] --> queued", "accepted")} | {
        (f"{name[state]} --> {name[target]}", cause.value)
        for state, moves in TRANSITIONS.items()
        for cause, target in moves.items()
    }
    ends = {line.strip() for line in lines if line.endswith("--> [*]")}
    assert ends == {f"{name[state]} --> [*]" for state in TERMINAL}


def test_the_module_prints_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(lifecycle.__file__)), run_name="__main__")
    assert capsys.readouterr().out == lifecycle.diagram() + "\n"


def test_the_scheduler_makes_every_move_of_the_table_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: set[tuple[State, Cause]] = set()
    note = Run.note

    def noted(run: Run, state: State, cause: Cause, *rest: object) -> None:
        made.add((state, cause))
        note(run, state, cause, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "note", noted)
    known = {(state, cause) for state, moves in TRANSITIONS.items() for cause in moves}
    seeds = iter([30, *range(60)])  # world 30 had them all when this was written
    while made != known:
        Simulation(next(seeds)).run()
        assert made <= known
