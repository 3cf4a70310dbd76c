"""What holds for the tests of engines."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_imports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep child processes from importing rfc3987_syntax, as the test process does.

    Each process of Ray's imports jsonschema and, where Jupyter is installed, that: of 2.2 s of CPU
    it takes 1.6, and a dozen processes at once exceed the 30 s that Ray gives its head.
    """
    folder = tmp_path_factory.mktemp("imports")
    (folder / "rfc3987_syntax.py").write_text("raise ImportError\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield
