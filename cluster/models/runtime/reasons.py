"""Why ONNX Runtime refuses a file, in a sentence that says what to do.

The runtime's own messages hold a function of C++, a line and a lecture. Those of common mistakes
are told apart here by their words; any other is passed on.
"""

from __future__ import annotations

import re
from pathlib import Path

from cluster.models.repository.manifest import ModelError

_REASONS = (
    (
        r"Opset (\d+) is under development.*?till opset (\d+)",
        "it is of opset {0}, and this runtime knows none above {1}; export it with a lower one",
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "its format is of IR version {0}, and this runtime knows none above {1}; write it with an "
        "older onnx, or set model.ir_version",
    ),
    (
        r"([\w.:]+)\(-?\d+\) is not a registered function/op",
        "it uses the custom operator {0}, which needs a library that is not loaded here; export it "
        "with ONNX's own operators",
    ),
    (
        r"No Op registered for (\S+) with domain_version of (\d+)",
        "it uses the operator {0}, which is unknown in opset {1}",
    ),
    (
        r"External data path does not exist: \"(.*?)\"",
        "its weights are missing: {0}; put the file there, which was written with the graph",
    ),
    (
        r"Failed to construct locale with name:(\S+?):",
        "it reads texts by the locale {0}, which this machine does not have; install it (Debian: "
        "locales, then locale-gen {0}), or name another at export, in skl2onnx by "
        "options={{TfidfVectorizer: {{'locale': 'C'}}}}",
    ),
    (
        r"[Pp]rotobuf parsing failed|No graph was found in the protobuf",
        "it is no ONNX file, or a torn one",
    ),
)


def explained(name: str, path: Path, error: ModelError) -> ModelError:
    """The error of a model that could not be opened, in plain words where they are known."""
    for pattern, reason in _REASONS:
        if found := re.search(pattern, str(error)):
            why = reason.format(*found.groups())
            return ModelError(f"model {name!r}: onnxruntime cannot run {path}: {why}")
    return error
