"""What `profile_cpu` and `track_memory` share: a `with` block that is a decorator as well.

They measure programs that do real work. An instrument that is switched off costs an attribute
check; one that is on never loses the program's result or exception.
"""

from __future__ import annotations

import functools
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

from perfkit.evidence.showing import Showable

R = TypeVar("R", bound=Showable)
F = TypeVar("F", bound=Callable[..., Any])
#: Ends a measurement. It takes the exception that ended the block, or None.
Finish: TypeAlias = Callable[[BaseException | None], None]


class Switch:
    """Whether the instruments of this process measure; `on` may be set at any time.

    The environment variable PERFKIT_PROFILE, read once, turns them off with 0, false, no or off.
    """

    __slots__ = ("on",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        setting = environment.get("PERFKIT_PROFILE", "1").strip().lower()
        self.on = setting not in {"0", "false", "no", "off"}


#: The switch of all instruments.
switch = Switch(os.environ)


def ends_early(func: object) -> bool:
    """Whether a call of the function ends before its work: coroutine and generator functions."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(func) for is_kind in kinds)


def name_of(call: object) -> str:
    """What a function is called in a table or an error: never an address."""
    if isinstance(call, functools.partial):
        return f"partial({name_of(call.func)})"
    return str(getattr(call, "__qualname__", type(call).__qualname__))


def as_written(function: Any) -> Any:
    """The function in the source: without what decorators, caches and partials put around it."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


class Instrument(ABC, Generic[R]):
    """Measures a `with` block, or each call of a decorated function; `result` is the last one."""

    def __init__(self, name: str | None) -> None:
        kind = type(self).__name__
        if not isinstance(name, str | None):
            raise TypeError(
                f"{kind} takes a name, not {name_of(name)}; to decorate, write @{kind}()."
            )
        if name is not None and not name.strip():
            raise ValueError(f"The name of a {kind} must not be empty.")
        self.name = name
        self.result: R | None = None
        # A tuple, because changing it calls no function that a profiler would see.
        self._blocks: tuple[Finish | None, ...] = ()

    @abstractmethod
    def _begin(self, name: str) -> Finish:
        """Start to measure; the function returned ends it and sets `result`."""

    def _is_covered(self) -> bool:
        """Whether a measurement that is open here includes a decorated call already."""
        return False

    def __repr__(self) -> str:
        return str(self.result or f"{type(self).__name__}: nothing is measured yet")

    def _repr_html_(self) -> str | None:
        return None if self.result is None else self.result._repr_html_()

    def __enter__(self) -> Self:
        finish = self._begin(self.name or type(self).__name__) if switch.on else None
        self._blocks = (*self._blocks, finish)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        finish, self._blocks = self._blocks[-1], self._blocks[:-1]
        if finish is not None:
            finish(error)

    def __call__(self, func: F) -> F:
        """Decorate a function.

        Raises TypeError for classes, coroutine functions and generator functions, whose call ends
        before their work does.
        """
        kind = type(self).__name__
        if inspect.isclass(func) or not callable(func):
            raise TypeError(f"{kind} decorates functions, and {name_of(func)} is not one.")
        if ends_early(func):
            raise TypeError(
                f"{kind} cannot decorate {name_of(func)}, whose call ends before its work: "
                "put a `with` block around the work."
            )
        name = self.name or name_of(func)

        @functools.wraps(func)
        def measured(*args: Any, **kwargs: Any) -> Any:
            if not switch.on or self._is_covered():
                return func(*args, **kwargs)
            finish, ended_by = self._begin(name), None
            try:
                return func(*args, **kwargs)
            except BaseException as error:
                ended_by = error
                raise
            finally:
                finish(ended_by)

        return cast(F, measured)
