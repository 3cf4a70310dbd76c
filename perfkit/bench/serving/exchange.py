"""What the load generator is told and what it reports, and how an answer is judged.

A job and its report cross a pipe as MessagePack. A request is prepared as the bytes of HTTP/1.1
that go to the socket, so that the generator spends its time on sockets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from cluster.vocabulary.printable import count_of

#: Two vectors are those of the same text if the cosine of their angle is at least this; in another
#: precision, the second. Those of different questions have 0.86 at most. This tells whose answer it
#: is; what a precision loses is measured apart (`cluster.models.runtime.loss`).
COSINE_MIN, COARSE_COSINE_MIN = 0.999, 0.95

#: How an answer is compared: by the place of its largest number, or by its direction.
Comparison = Literal["class", "cosine"]


class Questions(msgspec.Struct, frozen=True):
    """Requests to one path, each with the vector that the model itself gives for it."""

    path: str
    bodies: list[bytes]
    expected: list[list[float]]
    compared: Comparison
    headers: dict[str, str] = {}
    cosine_min: float = COSINE_MIN


class Job(msgspec.Struct, frozen=True):
    """A block of load: `connections` at once for `duration_s` seconds.

    Without `rate_per_s` each connection asks again once it has its answer: a closed loop. With it
    requests are due at random times of that rate, whether or not others are done, and a latency
    counts from the time at which its request was due: an open loop.
    """

    port: int
    requests: list[bytes]
    expected: list[list[float]]
    compared: Comparison
    cosine_min: float
    connections: int
    duration_s: float
    rate_per_s: float | None = None
    seed: int = 0
    timeout_s: float = 30.0


class Report(msgspec.Struct, frozen=True):
    """What came back, the last answer `took_s` after the first request.

    `statuses` counts HTTP status codes, `wrong` right statuses with a wrong answer, and `broken`
    connections that ended or gave no answer; `mistake` describes the first of these. `cpu_share`
    is the part of one core that the generator itself used.
    """

    answers: int
    took_s: float
    latencies_ms: list[float]
    statuses: dict[int, int]
    wrong: int
    broken: int
    mistake: str
    cpu_share: float

    @property
    def per_s(self) -> float:
        """Answers per second, those included that were open when the time was over."""
        return self.answers / self.took_s if self.took_s else 0.0


def request_bytes(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A POST of JSON on a connection that is kept open."""
    lines = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def answered_vector(body: bytes) -> list[float]:
    """The numbers in an answer, in any of the formats of the servers here.

    They are those of the Open Inference Protocol (``outputs``, of which the last counts), of
    OpenAI's embeddings (``data``), a bare list, and ``{"output": …}``. Raises ValueError for
    anything else.
    """
    found: Any = msgspec.json.decode(body)
    if isinstance(found, dict):
        if found.get("outputs"):
            found = found["outputs"][-1]["data"]
        elif found.get("data"):
            found = found["data"][0]["embedding"]
        else:
            found = found.get("output")
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, list) or not all(isinstance(n, int | float) for n in found):
        raise ValueError("there are no numbers in it")
    return found


def mistake_of(
    body: bytes,
    expected: Sequence[float],
    compared: Comparison,
    cosine_min: float = COSINE_MIN,
) -> str | None:
    """What is wrong with an answer; None if it is right."""
    try:
        vector = answered_vector(body)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"{body[:80]!r} is not an answer: {error}"
    if len(vector) != len(expected):
        return f"{count_of(len(vector), 'number')} came instead of {len(expected)}"
    if compared == "class":
        found, right = (max(range(len(v)), key=v.__getitem__) for v in (vector, expected))
        return None if found == right else f"class {found} came instead of {right}"
    length = math.sqrt(_product(vector, vector) * _product(expected, expected))
    cosine = _product(vector, expected) / length if length else 0.0
    return None if cosine >= cosine_min else f"the cosine to the right vector is {cosine:.4f}"


def _product(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
