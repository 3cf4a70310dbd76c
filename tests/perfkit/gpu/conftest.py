"""A kernel that can be told to refuse."""

import pytest

from tests.perfkit.gpu.trees import Kernel


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)
