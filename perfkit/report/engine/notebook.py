"""A notebook before it runs: read from its file once, then passed along."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cluster.vocabulary.errors import did_you_mean
from perfkit.report.engine.outcome import ReportError
from perfkit.report.engine.parameters import Parameter, parse_parameters

#: The tag of the cell that papermill adds with this run's parameters.
INJECTED = "injected-parameters"
#: Kernels of other languages, for a notebook that names only its kernel.
_KERNELS = re.compile(
    r"(ir|julia|bash|javascript|typescript|deno|jslab|xcpp|scala|almond|octave|matlab|java|ijava"
    r"|rust|evcxr|gophernotes|gonb|ruby|iruby|sas|stata|ihaskell|kotlin|\.net|coq|sos)\b.*|xcpp\d+",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook file; `code_cells` counts the cells that hold code.

    `title` is its first heading, else its name. `parameters` are those it declares, by name.
    """

    path: Path
    title: str
    parameters: Mapping[str, Parameter]
    code_cells: int

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def html(self) -> str:
        """The file name of its page."""
        return f"{self.name}.html"


def import_jsonschema() -> None:
    """Import what checks notebooks, if it is there, without the second that a grammar takes.

    jsonschema compiles that of RFC 3987 when it is imported, for a kind of address that notebooks
    do not have.
    """
    name = "rfc3987_syntax"
    if name not in sys.modules and find_spec("jsonschema"):
        sys.modules[name] = None  # type: ignore[assignment]
        import_module("jsonschema")
        del sys.modules[name]


def read_notebook(path: Path) -> Notebook:
    """The notebook at `path`; it declares no parameters without a cell tagged `parameters`.

    Raises ReportError when the file is missing, no JSON or not a notebook of format 4, and
    ParameterError when its parameter cell can't be read or a default breaks its own rule.
    """
    cells = _cells(path)
    prose = "\n\n".join(_source(cell) for cell in cells if cell.get("cell_type") == "markdown")
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    declarations = (_source(cell) for cell in code if "parameters" in tags(cell))
    return Notebook(
        path,
        next(iter(headings(prose)), path.stem),
        parse_parameters(next(declarations, ""), path.name),
        sum(bool(_source(cell).strip()) and INJECTED not in tags(cell) for cell in code),
    )


def headings(markdown: str) -> list[str]:
    """The headings of a cell, without emphasis, code marks and link targets."""
    unlinked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return [re.sub(r"[*`]+", "", heading).strip() for heading in _HEADING.findall(unlinked)]


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell, as JSON or as nbformat has it."""
    found = cell.get("metadata", {}).get("tags", [])
    return found if isinstance(found, list) else []


def shortened(text: str, limit: int, hint: str = "") -> str:
    """`text`, or its beginning and its end if it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out{hint} …\n{text[-half:]}"


def shown_path(path: Path) -> str:
    """`path` relative to the working directory if it lies below it, else unchanged."""
    absolute, here = path.absolute(), Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else path).as_posix()


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"there is no notebook {path}{_nearby(path)}") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} can't be read as a notebook: {error}") from error
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or content.get("nbformat") != 4:
        raise ReportError(f"{path} is not a notebook of format 4; save it in JupyterLab first")
    if language := _other_language(content.get("metadata")):
        raise ReportError(
            f"{path} is a notebook of {language}; a report runs Python notebooks only: leave it out"
        )
    return cells


def _other_language(metadata: Any) -> str:
    """The language of a notebook that is not Python; empty if it is, or does not say."""
    metadata = metadata if isinstance(metadata, dict) else {}
    infos = [metadata.get(key) for key in ("kernelspec", "language_info")]
    spec, info = ({} if not isinstance(found, dict) else found for found in infos)
    named = info.get("name") or spec.get("language")
    if not named:  # a kernel's name may be that of any environment
        found = _KERNELS.match(str(spec.get("name", "")))
        named = found[0] if found else ""
    return "" if re.match(r"i?python", str(named), re.IGNORECASE) else str(named)


def _source(cell: Mapping[str, Any]) -> str:
    """The text of a cell, which a file holds as one string or as a list of lines."""
    return "".join(cell.get("source", ""))


def _nearby(path: Path) -> str:
    names = sorted(other.name for other in path.parent.glob("*.ipynb"))
    hint = did_you_mean(path.name, names)
    return hint or (f" (in {path.parent}: {', '.join(names)})" if names else "")
