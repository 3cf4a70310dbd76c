"""A script that is run as ``python SCRIPT ARGS`` runs it, once or again and again.

A script's functions exist only while it runs. So that their lines can be looked at, each has a
stand-in with the same code object. Readers of lines may exchange it, and the script runs with what
the stand-ins have then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import CO_NEWLOCALS, CO_OPTIMIZED
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Self

from cluster.vocabulary.errors import did_you_mean
from perfkit.optimized.knobs import SettingError


@dataclass(frozen=True)
class Script:
    """A script with its arguments; `main` stands for its own lines."""

    name: str
    path: Path
    folder: str
    arguments: Sequence[str]
    main: FunctionType = field(repr=False)
    #: by the code object as it was compiled
    _parts: dict[CodeType, FunctionType] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path, arguments: Sequence[str]) -> Self:
        """Compile a script; SettingError if there is none, or if it is not Python."""
        if not path.is_file():
            raise SettingError(f"there is no script at {path}")
        try:
            # Its whole path: a script may change the folder that it is in.
            code = compile(path.read_bytes(), str(path.absolute()), "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError) as error:
            raise SettingError(f"{path} can't be read: {type(error).__name__}: {error}") from None
        folder = str(path.resolve().parent)
        return cls(path.name, path, folder, arguments, _stand_in(code, path.name))

    def run(self) -> None:
        """Run it; what it raises passes, also SystemExit if it tells that it failed."""
        main = self.main
        if self._parts:
            main.__code__ = _exchanged(main.__code__, self._parts)
        module = ModuleType("__main__")
        module.__file__ = main.__code__.co_filename
        before = sys.argv, sys.path, sys.modules["__main__"]
        sys.argv = [str(self.path), *self.arguments]
        sys.path = [self.folder, *sys.path]
        sys.modules["__main__"] = module
        try:
            exec(main.__code__, module.__dict__)
        except SystemExit as ended:
            if ended.code not in (None, 0):
                raise
        finally:
            sys.argv, sys.path, sys.modules["__main__"] = before

    def functions(self, others: Sequence[str]) -> list[Callable[..., Any]]:
        """Stand-ins for its own lines and for some of its functions, or for all of them.

        Functions inside functions count for the line that calls them. Raises SettingError for a
        name that the script does not define.
        """
        codes = {code.co_qualname: code for code in _inner(self.main.__code__)}
        for name in others:
            if name not in codes:
                hint = did_you_mean(name, codes)
                raise SettingError(f"there is no function {name!r} in {self.path}{hint}")
        for name in others or codes:
            self._parts[codes[name]] = _stand_in(codes[name], name)
        return [self.main, *self._parts.values()]


def _inner(code: CodeType) -> Iterator[CodeType]:
    """The code of functions that a module or a class defines, and of methods."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & CO_OPTIMIZED and part.co_flags & CO_NEWLOCALS:
                if not part.co_name.startswith("<"):  # lambdas and comprehensions
                    yield part
            else:
                yield from _inner(part)


def _stand_in(code: CodeType, name: str) -> FunctionType:
    """A function with this code, which is never called."""
    cells = tuple(CellType() for _ in code.co_freevars)
    made = FunctionType(code, {}, name, None, cells)
    made.__qualname__ = name
    return made


def _exchanged(code: CodeType, parts: Mapping[CodeType, FunctionType]) -> CodeType:
    """Code with what the stand-ins of its parts have now."""

    def now(part: Any) -> Any:
        if not isinstance(part, CodeType):
            return part
        return parts[part].__code__ if part in parts else _exchanged(part, parts)

    consts = tuple(map(now, code.co_consts))
    is_same = all(one is other for one, other in zip(consts, code.co_consts, strict=True))
    return code if is_same else code.replace(co_consts=consts)
