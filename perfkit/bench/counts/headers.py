"""What a spec's codec costs a task on each hop, without sockets.

A task crosses the wire four times: submitted, assigned, finished, delivered. Each time one side
encodes it and the other decodes it, in a message with as many other tasks as the spec allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.protocol.codec import Codec
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary.actions import Assign, Deliver
from cluster.vocabulary.events import TasksFinished, TasksSubmitted
from perfkit.bench.bare.processes import TASKS_PER_FRAME, pack, unpack_jobs
from perfkit.bench.workloads.load import Work, WrongResult

HOPS = 4
#: About the size of a large lease of tasks that take no time.
LEASE_TASKS = 1_000


def codec_us(spec: ClusterSpec, work: Work) -> float:
    """Microseconds to encode and decode one task for one hop, with the spec's codec.

    The mean over four hops of all the work, in messages of the spec's burst, at most a lease.
    Raises WrongResult if a message is decoded to something else.
    """
    codec: Codec = load_part(spec.codec)()
    per_message = min(spec.burst, LEASE_TASKS)
    took_s = 0.0
    for start in range(0, len(work), per_message):
        column = work.payloads[start : start + per_message]
        hops: Sequence[tuple[Any, Callable[[Sequence[bytes]], Sequence[Any]]]] = (
            (TasksSubmitted("client", start, work.kind, column), codec.events),
            (Assign("worker", 1, start, work.kind, 0, column), codec.actions),
            (TasksFinished("worker", 1, start, 0, column), codec.events),
            (Deliver("client", start, 0, column), codec.actions),
        )
        for message, decode in hops:
            began_s = time.perf_counter()
            read = [one for frames in codec.encode([message]) for one in decode(frames)]
            took_s += time.perf_counter() - began_s
            if read != [message]:
                raise WrongResult(f"codec {spec.codec!r} did not read what it wrote")
    return took_s * 1e6 / (len(work) * HOPS)


def packing_us(work: Work) -> float:
    """The same for the bare packed broker's messages: the cost of msgspec alone."""
    took_s = 0.0
    for start in range(0, len(work), TASKS_PER_FRAME):
        column = work.payloads[start : start + TASKS_PER_FRAME]
        jobs = [(number, work.kind, payload) for number, payload in enumerate(column, start)]
        began_s = time.perf_counter()
        read = unpack_jobs(pack(jobs))
        took_s += time.perf_counter() - began_s
        if read != jobs:
            raise WrongResult("the bare packing did not read what it wrote")
    return took_s * 1e6 / len(work)
