"""What a large result costs each role in memory, in real processes.

With streaming the two ends hold one copy of a result and the coordinator none. The kernel keeps the
peak RSS of a process (VmHWM, proc(5)) and resets it on request (`/proc/<pid>/clear_refs`), so the
growth at the peak can be read exactly, from outside.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, decode_spec, encode_spec
from cluster.work.workloads import PATTERN
from perfkit.bench.workloads.load import WrongResult
from perfkit.bench.workloads.rounds import run_module
from perfkit.profile.watch import status_bytes

RESULT_BYTES = 256 << 20
TIMEOUT_S = 120.0
ROLES = ("coordinator", "worker", "client")


def stream_growth_bytes(
    spec: ClusterSpec, result_bytes: int = RESULT_BYTES
) -> dict[str, int | None]:
    """What one result adds to the memory of each role at its peak; unknown values are None.

    Each role is a process. Raises WrongResult unless every byte is right, ExperimentError if the
    client fails.
    """
    with LocalCluster(n_workers=1, spec=spec) as local:
        with local.client() as client:  # the first task has costs of its own
            client.submit("pattern", b"1").result(TIMEOUT_S)
        pids = local.coordinator.pid, local.workers[0].pid
        before = [_reset_peak(pid) for pid in pids]
        at_client = _fetch_afresh(local.endpoint, spec, result_bytes)
        growth = [_growth_bytes(pid, held) for pid, held in zip(pids, before, strict=True)]
    return dict(zip(ROLES, [*growth, at_client], strict=True))


def _fetch_afresh(endpoint: str, spec: ClusterSpec, result_bytes: int) -> int | None:
    """Fetch in a fresh process: freed memory of this one could hide what a result takes."""
    arguments = (endpoint, encode_spec(spec), str(result_bytes))
    printed = run_module(__name__, *arguments, what="the client process", timeout_s=2 * TIMEOUT_S)
    return msgspec.json.decode(printed, type=int | None)


def _fetch(endpoint: str, spec: ClusterSpec, result_bytes: int) -> int | None:
    with Client(endpoint, spec=spec) as client:
        client.submit("pattern", b"1").result(TIMEOUT_S)
        held = _reset_peak("self")
        result = client.submit("pattern", b"%d" % result_bytes).result(TIMEOUT_S)
        growth = _growth_bytes("self", held)
    check_pattern(result, result_bytes)
    return growth


def check_pattern(result: bytes, size_bytes: int) -> None:
    """Raise WrongResult unless a result is that of the workload `pattern`."""
    if len(result) != size_bytes:
        raise WrongResult(f"a result of {len(result)} bytes instead of {size_bytes}")
    block = PATTERN * 4_096
    for start in range(0, size_bytes, len(block)):
        if not result.startswith(block[: size_bytes - start], start):
            raise WrongResult(f"wrong bytes after byte {start}")


def _reset_peak(pid: int | str) -> int | None:
    """Have the kernel reset a process's peak RSS; its RSS now, None if it is unknown."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return None
    return status_bytes(pid, "VmRSS")


def _growth_bytes(pid: int | str, held_bytes: int | None) -> int | None:
    highest = status_bytes(pid, "VmHWM")
    return None if held_bytes is None or highest is None else max(0, highest - held_bytes)


if __name__ == "__main__":
    endpoint, spec, size_bytes = sys.argv[1:]
    growth = _fetch(endpoint, decode_spec(spec), int(size_bytes))
    sys.stdout.write(msgspec.json.encode(growth).decode())
