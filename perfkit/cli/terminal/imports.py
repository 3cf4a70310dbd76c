"""What a command line names as ``MODULE:NAME`` or ``FILE.py:NAME``, loaded as Python loads it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.vocabulary.errors import did_you_mean
from perfkit.optimized.knobs import SettingError


def load_named(text: str) -> Any:
    """What ``MODULE:NAME`` or ``FILE.py:NAME`` stands for.

    Raises SettingError for another form, and as `load_module` and `find_named` do.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise SettingError(f"{text}: name it as MODULE:NAME or FILE.py:NAME")
    return find_named(load_module(place), name)


def load_module(place: str) -> ModuleType:
    """The module of this name, or in this file; SettingError if it can't be imported."""
    path = Path(place)
    try:
        if path.suffix != ".py":
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(place)
        if not path.is_file():
            raise SettingError(f"there is no file {place}")
        sys.path.insert(0, str(path.resolve().parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except SettingError:
        raise
    except Exception as error:  # importing runs the user's own code
        raise SettingError(f"{place} can't be imported: {type(error).__name__}: {error}") from error
    return module


def find_named(module: ModuleType, name: str) -> Any:
    """What a dotted name stands for in a module; SettingError if nothing has it."""
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = did_you_mean(part, dir(found))
            raise SettingError(f"there is no {name!r} in {module.__name__}{hint}") from None
    return found


def find_function(module: ModuleType, name: str) -> Callable[..., Any]:
    """A function of a module; SettingError if the name stands for something else."""
    found = find_named(module, name)
    if not callable(found):
        raise SettingError(f"{name} in {module.__name__} is no function but {found!r:.60}")
    return found  # type: ignore[no-any-return]
