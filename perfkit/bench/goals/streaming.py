"""What a large result costs each role in memory, in real processes.

Streaming promises that the two ends hold one copy of a result and the coordinator none. The kernel
keeps the highest RSS a process has had (VmHWM, proc(5)), and forgets it when told to
(`/proc/<pid>/clear_refs`), so what one result adds at its worst moment can be read exactly, from
outside.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, decode_spec, encode_spec
from cluster.work.workloads import PATTERN
from perfkit.bench.workloads.load import ExperimentError, WrongResult

RESULT_BYTES = 256 << 20
TIMEOUT_S = 120.0
CHILD_TIMEOUT_S = 2 * TIMEOUT_S
ROLES = ("coordinator", "worker", "client")


@dataclass(frozen=True)
class StreamUse:
    """What one result added to the memory of one role at its worst moment; None where the kernel
    does not say.

    `copies` is that in results. `took_s` is from submission to result, the same for each role.
    """

    role: str
    result_bytes: int
    peak_growth_bytes: int | None
    took_s: float

    @property
    def copies(self) -> float | None:
        """How many times the result fits into what it added."""
        growth = self.peak_growth_bytes
        return None if growth is None else growth / self.result_bytes


class Fetched(msgspec.Struct, frozen=True):
    """What a client process says of the result it fetched."""

    took_s: float
    peak_growth_bytes: int | None


def stream_use(spec: ClusterSpec, result_bytes: int = RESULT_BYTES) -> list[StreamUse]:
    """Fetch one result of so many bytes from one worker, each role in a process of its own.

    Raises WrongResult unless every byte is right, ExperimentError when the client fails.
    """
    with LocalCluster(n_workers=1, spec=spec) as local:
        with local.client() as client:  # what a first task costs is nobody's result
            client.submit("pattern", b"1").result(TIMEOUT_S)
        pids = local.coordinator.pid, local.workers[0].pid
        before = [_forget_peak(pid) for pid in pids]
        fetched = _fetch_afresh(local.endpoint, spec, result_bytes)
        growth = [_growth_bytes(pid, held) for pid, held in zip(pids, before, strict=True)]
    return [
        StreamUse(role, result_bytes, bytes, fetched.took_s)
        for role, bytes in zip(ROLES, [*growth, fetched.peak_growth_bytes], strict=True)
    ]


def _fetch_afresh(endpoint: str, spec: ClusterSpec, result_bytes: int) -> Fetched:
    """Fetch in a fresh process: this one may hold freed memory that hides what a result takes."""
    command = [sys.executable, "-m", __name__, endpoint, encode_spec(spec), str(result_bytes)]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"no result within {CHILD_TIMEOUT_S} s") from error
    if child.returncode:
        reason = (child.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise ExperimentError(f"the client process failed: {reason}")
    return msgspec.json.decode(child.stdout, type=Fetched)


def _fetch(endpoint: str, spec: ClusterSpec, result_bytes: int) -> Fetched:
    with Client(endpoint, spec=spec) as client:
        client.submit("pattern", b"1").result(TIMEOUT_S)
        held = _forget_peak("self")
        began = time.monotonic()
        result = client.submit("pattern", b"%d" % result_bytes).result(TIMEOUT_S)
        took_s = time.monotonic() - began
        growth = _growth_bytes("self", held)
    check_pattern(result, result_bytes)
    return Fetched(took_s, growth)


def check_pattern(result: bytes, size_bytes: int) -> None:
    """Raise WrongResult unless a result is what the workload `pattern` gives."""
    if len(result) != size_bytes:
        raise WrongResult(f"a result of {len(result)} bytes instead of {size_bytes}")
    block = PATTERN * 4_096
    for start in range(0, size_bytes, len(block)):
        if not result.startswith(block[: size_bytes - start], start):
            raise WrongResult(f"wrong bytes after byte {start}")


def _forget_peak(pid: int | str) -> int | None:
    """Have the kernel forget a process's highest RSS; what it holds now, None if it can't be
    told.
    """
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory_bytes(pid, "VmRSS")


def _growth_bytes(pid: int | str, held_bytes: int | None) -> int | None:
    highest = _memory_bytes(pid, "VmHWM")
    return None if held_bytes is None or highest is None else max(0, highest - held_bytes)


def _memory_bytes(pid: int | str, field: str) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(f"{field}:")), None)
    return None if found is None else int(found[1]) * 1024


if __name__ == "__main__":
    endpoint, spec, size_bytes = sys.argv[1:]
    fetched = _fetch(endpoint, decode_spec(spec), int(size_bytes))
    sys.stdout.write(msgspec.json.encode(fetched).decode())
