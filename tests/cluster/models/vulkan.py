"""Vulkan drivers without a card, as environments of processes that tests start.

SwiftShader computes on the CPU and comes with Chromium. Mesa's RADV can be told to take a card for
granted: it shows the features of that card, and dies once work is sent to it.
"""

import json
import os
import subprocess
import sys
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cluster.models.providers.webgpu import ALLOW_SOFTWARE
from cluster.vocabulary.cards import ANY_CARD, CARD

CHROMIUM = Path("/usr/lib/chromium")
SWIFTSHADER = CHROMIUM / "vk_swiftshader_icd.json"
ICDS = Path(os.environ.get("PERFKIT_TEST_ICDS", "/usr/share/vulkan/icd.d"))
PATHS = "LD_LIBRARY_PATH"


@cache
def _loader() -> dict[str, str]:
    """Where the loader is: the system's, or the one that comes with Chromium."""
    pytest.importorskip("onnxruntime_ep_webgpu")
    if find_library("vulkan"):
        return {}
    if not (CHROMIUM / "libvulkan.so.1").exists():
        pytest.skip("there is no Vulkan loader; .ci/run installs one")
    return {PATHS: os.pathsep.join([str(CHROMIUM), os.environ.get(PATHS, "")]).strip(os.pathsep)}


def software(*, allowed: bool = True, card: str = ANY_CARD) -> dict[str, str]:
    """A process bound to a card, where there is only SwiftShader."""
    if not SWIFTSHADER.exists():
        pytest.skip("there is no SwiftShader; .ci/run installs it with Chromium")
    permission = {ALLOW_SOFTWARE: "1" if allowed else "0"}
    return {**_loader(), **permission, CARD: card, "VK_ICD_FILENAMES": str(SWIFTSHADER)}


def radv(family: str = "polaris10") -> dict[str, str]:
    """A process whose driver takes a card of that family for granted."""
    found = sorted(ICDS.glob("radeon_icd*.json"))
    if not found:
        pytest.skip("Mesa's driver for AMD cards is not installed (mesa-vulkan-drivers)")
    driver = {"VK_ICD_FILENAMES": str(found[0]), "RADV_FORCE_FAMILY": family}
    return {**_loader(), **driver, ALLOW_SOFTWARE: "1", CARD: ANY_CARD}


def ask(question: str, environment: dict[str, str], *arguments: object) -> Any:
    """What a function of `on_card` answers in a process with these variables."""
    command = [sys.executable, "-m", "tests.cluster.models.on_card", question]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
