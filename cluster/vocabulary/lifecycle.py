"""The life of a task as a table: from which state, by what cause, to which state.

The scheduler looks up every move here, so a move that is not in the table fails at once.
``python -m cluster.vocabulary.lifecycle`` prints the README's picture of it.
"""

from __future__ import annotations

from enum import StrEnum

from cluster.vocabulary.task import State


class Cause(StrEnum):
    """Why a task changed its state."""

    ASSIGNED = "assigned"
    FINISHED = "finished"
    FAILED = "failed"
    RETRIED = "retried"
    RETURNED = "returned"
    LOST = "lost"
    BURIED = "buried"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    UNSERVED = "unserved"


TRANSITIONS: dict[State, dict[Cause, State]] = {
    State.QUEUED: {
        Cause.ASSIGNED: State.ASSIGNED,
        Cause.CANCELLED: State.CANCELLED,
        Cause.TIMED_OUT: State.FAILED,
        Cause.UNSERVED: State.FAILED,
        Cause.BURIED: State.DEAD_LETTERED,
    },
    State.ASSIGNED: {
        Cause.FINISHED: State.DONE,
        Cause.FAILED: State.FAILED,
        Cause.RETRIED: State.QUEUED,
        Cause.RETURNED: State.QUEUED,
        Cause.LOST: State.QUEUED,
        Cause.BURIED: State.DEAD_LETTERED,
        Cause.CANCELLED: State.CANCELLED,
        Cause.TIMED_OUT: State.FAILED,
    },
    State.DONE: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.DEAD_LETTERED: {},
}

TERMINAL = frozenset(state for state, moves in TRANSITIONS.items() if not moves)


def diagram() -> str:
    """The table as a Mermaid state diagram (https://mermaid.js.org/syntax/stateDiagram.html)."""
    node = {state: state.value.replace("-", "_") for state in TRANSITIONS}
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, moves in TRANSITIONS.items():
        for cause, target in moves.items():
            arrows.setdefault((node[state], node[target]), []).append(cause.value)
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {node[State.QUEUED]}: accepted"]
    lines += [f"    {a} --> {b}: {', '.join(causes)}" for (a, b), causes in arrows.items()]
    lines += [f"    {node[state]} --> [*]" for state in TRANSITIONS if state in TERMINAL]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
