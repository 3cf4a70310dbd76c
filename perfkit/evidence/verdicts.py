"""The verdicts: what a figure says about its goal, and what a comparison says about two figures.

A verdict follows from a whole interval, never from a value alone.
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Literal

import msgspec

from perfkit.evidence.samples import Interval

Direction = Literal["higher", "lower"]


class Verdict(StrEnum):
    """What is said about a figure.

    `met` and `missed` judge it by its goal; `faster`, `slower` and `same` compare it with another.
    `regression` is `slower` than a saved baseline. `measured` is a figure that nothing judges.
    """

    MET = "met"
    MISSED = "missed"
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    REGRESSION = "regression"
    MEASURED = "measured"


class FigureGoal(msgspec.Struct, frozen=True):
    """The goal of one figure of a result: of the counter `figure`, or of its value if that is "".

    `what` names the figure for people, `goal` is in `unit`.
    """

    figure: str
    what: str
    unit: str
    better: Direction
    goal: float


def judge(figure: Interval, goal: float | None, better: Direction) -> Verdict:
    """Whether the whole interval reaches the goal; the goal itself is good enough.

    An interval that holds both sides of the goal, or whose end is unknown, is inconclusive, and so
    is an unknown figure. Without a goal the verdict is `measured`.
    """
    if goal is None:
        return Verdict.MEASURED
    if figure.value is None:
        return Verdict.INCONCLUSIVE
    if better == "higher":
        reaches, worst, best = operator.ge, figure.low, figure.high
    else:
        reaches, worst, best = operator.le, figure.high, figure.low
    if worst is not None and reaches(worst, goal):
        return Verdict.MET
    return Verdict.MISSED if best is not None and not reaches(best, goal) else Verdict.INCONCLUSIVE
