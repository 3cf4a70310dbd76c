"""A cell's or a line's code, ready to run as the notebook would run it, but under an instrument."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from perfkit.bench.calls.arguments import EARLY, missing_arguments
from perfkit.profile.instrument import ends_early

Call = Callable[[], object]


def compiled(shell: InteractiveShell, cell: str) -> Call:
    """The cell as a function without arguments, which returns the value of its last expression.

    Raises UsageError for what is not Python, for an empty cell and for ``await`` outside a
    function, which only the notebook's own loop can run.
    """
    with as_said():
        code = shell.transform_cell(cell)
        name = shell.compile.cache(code, shell.execution_count, raw_code=cell)
        tree = shell.transform_ast(shell.compile.ast_parse(code, filename=name))
    if not tree.body:
        raise UsageError("there is nothing to run: the cell is empty")
    *first, last = tree.body
    begin, end = tree.body, ast.Expression(ast.Constant(None))
    if isinstance(last, ast.Expr):
        begin, end = first, ast.Expression(last.value)
    statements = _code(shell, ast.Module(begin, []), name, "exec")
    value = _code(shell, ast.fix_missing_locations(end), name, "eval")
    namespace = shell.user_ns

    def run() -> object:
        __tracebackhide__ = True
        exec(statements, namespace)
        return eval(value, namespace)  # noqa: S307 -- the user's own cell

    return run


def as_call(shell: InteractiveShell, statement: str, place: str = "") -> Call:
    """A statement as a function without arguments.

    The name of a function, such as ``f`` or ``model.predict``, stands for its call. Raises
    UsageError for a name that does not exist, and for a function that takes arguments, with the
    `place` for its call.
    """
    tree = None
    with suppress(SyntaxError):  # it is no expression
        tree = ast.parse(statement.strip(), mode="eval")
    if tree is None:
        return compiled(shell, statement)
    if isinstance(tree.body, ast.Name | ast.Attribute):
        value = named(shell, statement.strip())
        if callable(value):
            return called(value, statement.strip(), place)
    source = f"lambda: ({statement.strip()}\n)"
    name = shell.compile.cache(source, shell.execution_count)  # so that an error shows the line
    code = _code(shell, ast.parse(source, mode="eval"), name, "eval")
    made: Call = eval(code, shell.user_ns)  # noqa: S307 -- the user's own statement
    return made


def called(function: Call, name: str, place: str = "") -> Call:
    """The function, to be called without arguments; UsageError if it takes some, and for one whose
    call is no work.
    """
    if ends_early(function):
        raise UsageError(f"{name} {EARLY}: write a call that does that")
    if missing := missing_arguments(function):
        raise UsageError(f"{name} takes arguments ({missing}): write its call, {place}{name}(…)")
    return function


def named(shell: InteractiveShell, name: str) -> Any:
    """What a dotted name stands for in the notebook; UsageError if nothing has it."""
    first, *rest = name.split(".")
    try:
        value = shell.ev(first)
        for part in rest:
            value = getattr(value, part)
    except (NameError, AttributeError, SyntaxError):
        raise UsageError(f"there is no {name!r} in this notebook: run its cell first") from None
    return value


def _code(shell: InteractiveShell, tree: ast.AST, name: str, mode: str) -> CodeType:
    compiler: Any = shell.compile
    with as_said():
        code: CodeType = compiler(tree, name, mode)
    return code


@contextmanager
def as_said() -> Iterator[None]:
    """Turn a SyntaxError into one line: its traceback would be that of the magic, not of a cell."""
    try:
        yield
    except SyntaxError as error:
        if "outside" in str(error) and ("await" in str(error) or "async" in str(error)):
            raise UsageError(
                "`await` at the top of a cell runs in the notebook's own loop and can't be "
                "measured: put it into a function that asyncio.run calls in a thread"
            ) from None
        line = (error.text or "").strip()
        raise UsageError(
            f"{type(error).__name__} in line {error.lineno}: {error.msg}{line and f': {line}'}"
        ) from None
