"""Running a vendor's tool so that it can do no harm: bounded in time, in output, and alone.

The tools hang when the driver does, warn on either stream, end with an error although they
answered, and leave children behind that hold their pipes open.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.vocabulary.printable import printable

TIMEOUT_S = 5.0
#: An answer about cards is shorter.
OUTPUT_BYTES = 16 << 20
#: Kept of what a tool complains of.
ERROR_BYTES = 4096
#: Where ROCm's packages put the tools; its releases may stand side by side as /opt/rocm-6.2.0.
ROCM_BIN = "/opt/rocm/bin"
_READ_BYTES = 1 << 16
_LOOK_S = 0.05


class ToolError(Exception):
    """A tool gave no answer that can be read; the message says what happened."""


def find(name: str) -> str:
    """The tool's file, from PATH, then ROCM_PATH, then /opt/rocm; raises ToolError.

    A name with a folder in it is a file already.
    """
    if os.sep in name:
        return name
    folders = [os.environ.get("PATH", os.defpath)]
    if root := os.environ.get("ROCM_PATH"):
        folders.append(f"{root}/bin")
    folders += [ROCM_BIN, *map(str, sorted(Path("/opt").glob("rocm-*/bin"), reverse=True))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise ToolError(f"{name} is neither in PATH nor in {ROCM_BIN}")
    return found


def run(
    command: Sequence[str], is_answer: Callable[[str], bool] = bool, timeout_s: float = TIMEOUT_S
) -> str:
    """What a tool prints; raises ToolError if it is missing, or has no answer when it ends.

    A tool that is too slow, prints too much or fails is forgiven if what it printed is an answer.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(
            [find(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{name}: {error.strerror}") from None
    try:
        output, complaint, trouble = _listen(process, timeout_s)
    finally:
        with suppress(ProcessLookupError):  # with the children it may have left
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    text = output.decode("utf-8", "replace")
    trouble = trouble or (f"ended with {code}" if code else "")
    if trouble and not is_answer(text):
        lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines()]
        said = next((f": {printable(line)[:200]}" for line in reversed(lines) if line), "")
        raise ToolError(f"{name} {trouble}{said}")
    return text


def _listen(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes, str]:
    """Its output, its complaints, and what was wrong, until the tool ends or has to be ended."""
    until_s = time.monotonic() + timeout_s
    slow = f"gave no answer within {timeout_s:g} s"
    output, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe, kept in ((process.stdout, output), (process.stderr, complaint)):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, kept)
        while selector.get_map():
            has_ended = process.poll() is not None
            ready = selector.select(0 if has_ended else _LOOK_S)
            if has_ended and not ready:  # a child of it holds the streams open
                break
            for key, _ in ready:
                chunk = os.read(key.fd, _READ_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data is output or len(complaint) < ERROR_BYTES:
                    key.data.extend(chunk)
            if len(output) > OUTPUT_BYTES:
                return bytes(output), bytes(complaint), f"printed over {OUTPUT_BYTES >> 20} MiB"
            if time.monotonic() >= until_s:
                return bytes(output), bytes(complaint), slow
    try:
        process.wait(max(0.0, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return bytes(output), bytes(complaint), slow
    return bytes(output), bytes(complaint), ""
