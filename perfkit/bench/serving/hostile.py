"""Requests that no client should send, and what the API has to say to each: a clear 4xx.

Each is written by hand, because a client library would refuse to send it. An answer counts as clear
if its status is 400 to 499 and its body names the error. A connection that the server closes
without an answer is a refusal only where nothing was asked yet: for headers that never end.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from perfkit.bench.serving.exchange import request_bytes
from perfkit.bench.serving.material import Material

ANSWER_S = 60.0
CHUNKS = 100_000
MIB = 1 << 20
#: Connections that attack at once.
ATTACKERS = 8


@dataclass
class Hostility:
    """What became of hostile requests: how many were sent, and those without a clear 4xx."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unclear: list[str] = field(default_factory=list)


def hostile_requests(about: Material) -> Mapping[str, bytes]:
    """Each kind of hostile request, as bytes for a connection."""
    right = msgspec.json.decode(about.oip().bodies[0])
    path, (port,) = about.oip().path, right["inputs"]
    rows = len(port["data"])

    def infer(**changed: object) -> bytes:
        return request_bytes(path, msgspec.json.encode({"inputs": [{**port, **changed}]}))

    def head(*lines: str, method: str = "POST") -> bytes:
        return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()

    def zipped(body: bytes) -> bytes:
        return request_bytes(path, gzip.compress(body), {"Content-Encoding": "gzip"})

    chunks = b"1\r\n \r\n" * CHUNKS + b"0\r\n\r\n"
    return {
        "a shape that contradicts the data": infer(shape=[1, rows + 1]),
        "a shape that would take exabytes": infer(shape=[1 << 40, 1 << 20]),
        "a negative shape": infer(shape=[-1, rows]),
        "a hundred axes": infer(shape=[1] * 100),
        "data of another type": infer(data=["x"] * rows),
        "an unknown datatype": infer(datatype="FP128"),
        "an input the model does not have": infer(name="nothing"),
        "ten thousand inputs": request_bytes(
            path, msgspec.json.encode({"inputs": [port] * 10_000})
        ),
        "no inputs": request_bytes(path, b'{"inputs": []}'),
        "not JSON": request_bytes(path, b"\xff\x00 not JSON"),
        "JSON nested deeply": request_bytes(path, b"[" * 100_000),
        "a model there is not": request_bytes("/v2/models/nothing/infer", b"{}"),
        "truncated binary": request_bytes(
            path,
            msgspec.json.encode(
                {"inputs": [_binary(port, 4 * rows)]}
            ) + bytes(4 * rows - 1),
            {"Inference-Header-Content-Length": str(len(
                msgspec.json.encode({"inputs": [_binary(port, 4 * rows)]})
            ))},
        ),
        "a header length beyond the body": request_bytes(
            path, b"{}", {"Inference-Header-Content-Length": "99999999999"}
        ),
        "a header length that is no number": request_bytes(
            path, b"{}", {"Inference-Header-Content-Length": "-1"}
        ),
        "a hundred thousand chunks": head("Transfer-Encoding: chunked") + chunks,
        "a body of a terabyte": head(f"Content-Length: {1 << 40}"),
        "a length that is no number": head("Content-Length: many"),
        "two lengths": head("Content-Length: 2", "Content-Length: 3") + b"{}",
        "gzip that is none": request_bytes(path, b"nothing", {"Content-Encoding": "gzip"}),
        "a gzip bomb": zipped(bytes(256 * MIB)),
        "an unknown encoding": request_bytes(path, b"{}", {"Content-Encoding": "br"}),
        "headers of a megabyte": head(f"X-Long: {'x' * MIB}", "Content-Length: 0"),
        "another method": head("Content-Length: 0", method="GET"),
        "not HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    }  # fmt: skip


def _binary(port: Mapping[str, object], size_bytes: int) -> dict[str, object]:
    tensor = {name: value for name, value in port.items() if name != "data"}
    return {**tensor, "parameters": {"binary_data_size": size_bytes}}
