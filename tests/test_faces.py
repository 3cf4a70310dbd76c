"""The two packages' faces: each name is there, documented, and known to type checkers."""

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import cluster
import perfkit

each_face = pytest.mark.parametrize("face", [cluster, perfkit], ids=lambda face: face.__name__)


@each_face
def test_every_name_is_importable_and_documented(face: ModuleType) -> None:
    assert set(face.__all__) <= set(dir(face))
    assert all(inspect.getdoc(getattr(face, name)) for name in face.__all__)
    with pytest.raises(AttributeError, match=f"'{face.__name__}' has no attribute 'Nothing'"):
        _ = face.Nothing


@each_face
def test_a_type_checker_finds_the_same_names_in_the_same_modules(face: ModuleType) -> None:
    assert face.__file__ is not None
    nodes = ast.walk(ast.parse(Path(face.__file__).read_text()))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names if alias.asname}
    assert typed == face._HOME
