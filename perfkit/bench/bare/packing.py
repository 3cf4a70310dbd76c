"""Messages between the packed broker and its peers: many tasks in one MessagePack frame.

Payloads are inline, because frames and sends cost more than bytes. Everything is typed, so that a
decoder checks what it reads, as the cluster's does.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

#: Tasks in a frame, from a client to the broker and from the broker to a worker.
TASKS_PER_FRAME = 100

#: The client's own number of a task, its priority, its kind and its payload.
Task: TypeAlias = tuple[int, int, str, bytes]
#: The broker's number of a task, its kind and its payload.
Job: TypeAlias = tuple[int, str, bytes]
#: A task's number (the client's or the broker's) and its result.
Outcome: TypeAlias = tuple[int, bytes]

pack = msgspec.msgpack.Encoder().encode
unpack_tasks = msgspec.msgpack.Decoder(list[Task]).decode
unpack_jobs = msgspec.msgpack.Decoder(list[Job]).decode
unpack_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
