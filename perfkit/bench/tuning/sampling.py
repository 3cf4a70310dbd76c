"""Optuna as this search uses it: quiet, seeded, and with a rung of a ladder for a number.

T. Akiba and others, "Optuna: A Next-generation Hyperparameter Optimization Framework" (KDD 2019).
The sampler "tpe" is the tree-structured Parzen estimator of J. Bergstra and others, "Algorithms for
Hyper-Parameter Optimization" (NIPS 2011), over all knobs together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from perfkit.bench.tuning.space import Space
from perfkit.bench.workloads.load import ExperimentError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Suggesting

Sampler = Literal["tpe", "grid"]
#: Candidates that are drawn before the sampler has seen enough to choose.
DRAWN = 8


def maximise(
    ratio_of: Callable[[dict[str, Any]], float | None],
    space: Space,
    *,
    sampler: Sampler,
    first: Iterable[Mapping[str, Any]],
    seed: int,
    timeout_s: float,
) -> None:
    """Ask for the ratio of candidates, by their values, until the time or the grid is over.

    `first` are tried before all others. A ratio of None is a candidate that does not run. Raises
    ExperimentError, which says what to install, without Optuna.
    """
    optuna = load_optuna()

    def objective(trial: Suggesting) -> float:
        ratio = ratio_of({knob: _suggested(trial, knob, its) for knob, its in space.items()})
        if ratio is None:
            raise optuna.TrialPruned
        return math.log(ratio)

    with _quiet(optuna):
        study = optuna.create_study(
            direction="maximize", sampler=_sampler(optuna, sampler, space, seed)
        )
        for point in first:
            study.enqueue_trial({knob: _rung(value, space[knob]) for knob, value in point.items()})
        study.optimize(objective, timeout=max(0.1, timeout_s))


def load_optuna() -> Any:
    """The package; raises ExperimentError, which says what to install."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its progress bar misses widgets, which nobody draws
            import optuna
    except ModuleNotFoundError as missing:
        text = "a search needs Optuna, of the extra [lab]: pip install 'perfkit[lab]'"
        raise ExperimentError(text) from missing
    return optuna


def _sampler(optuna: Any, name: Sampler, space: Space, seed: int) -> BaseSampler:
    if name == "grid":
        rungs = {knob: [_rung(value, its) for value in its] for knob, its in space.items()}
        grid: BaseSampler = optuna.samplers.GridSampler(rungs, seed=seed)
        return grid
    tpe: BaseSampler = optuna.samplers.TPESampler(
        seed=seed, multivariate=True, n_startup_trials=DRAWN
    )
    return tpe


def _suggested(trial: Suggesting, knob: str, values: tuple[Any, ...]) -> Any:
    """The value that a trial tries: a part by its name, a number by its rung."""
    if isinstance(values[0], str):
        return trial.suggest_categorical(knob, values)
    return values[trial.suggest_int(knob, 0, len(values) - 1)]


def _rung(value: Any, values: tuple[Any, ...]) -> Any:
    return value if isinstance(value, str) else values.index(value)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Progress has lines of its own, and what Optuna warns of here is that it may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
