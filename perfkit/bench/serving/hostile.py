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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from perfkit.bench.serving.exchange import Questions, request_bytes

ANSWER_S = 60.0
CHUNKS = 100_000
MIB = 1 << 20
#: Connections that attack at once, and those whose headers never end.
ATTACKERS, SLOW = 4, 8


@dataclass
class Hostility:
    """What became of hostile requests: how many were sent, and those without a clear 4xx."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unclear: list[str] = field(default_factory=list)

    def add(self, other: Hostility) -> None:
        """Count what became of others too."""
        self.sent += other.sent
        self.statuses += other.statuses
        self.unclear += other.unclear


def hostile_requests(about: Questions) -> Mapping[str, bytes]:
    """Each kind of hostile request to a model with one input, as bytes for a connection.

    They carry the headers of the right questions, tokens above all: all but those with a wrong one.
    """
    right = msgspec.json.decode(about.bodies[0])
    path, (port,), headers = about.path, right["inputs"], about.headers
    rows = len(port["data"])

    def post(body: bytes, to: str = path, **more: str) -> bytes:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return request_bytes(to, body, {**headers, **named})

    def infer(**changed: object) -> bytes:
        return post(msgspec.json.encode({"inputs": [{**port, **changed}]}))

    def head(*lines: str, method: str = "POST") -> bytes:
        told = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *told, *lines, "", "")).encode()

    told = {name: value for name, value in port.items() if name != "data"}
    told["parameters"] = {"binary_data_size": 4 * rows}
    binary = msgspec.json.encode({"inputs": [told]})
    bomb = gzip.compress(bytes(256 * MIB))
    chunks = b"1\r\n \r\n" * CHUNKS + b"0\r\n\r\n"
    return {
        "a shape that contradicts the data": infer(shape=[1, rows + 1]),
        "a shape that would take exabytes": infer(shape=[1 << 40, 1 << 20]),
        "a negative shape": infer(shape=[-1, rows]),
        "a hundred axes": infer(shape=[1] * 100),
        "data of another type": infer(data=["x"] * rows),
        "an unknown datatype": infer(datatype="FP128"),
        "an input the model does not have": infer(name="nothing"),
        "ten thousand inputs": post(
            msgspec.json.encode({"inputs": [port] * 10_000})
        ),
        "no inputs": post(b'{"inputs": []}'),
        "not JSON": post(b"\xff\x00 not JSON"),
        "JSON nested deeply": post(b"[" * 100_000),
        "a model there is not": post(b"{}", "/v2/models/nothing/infer"),
        "truncated binary": post(
            binary + bytes(4 * rows - 1), Inference_Header_Content_Length=str(len(binary))
        ),
        "a header length beyond the body": post(
            b"{}", Inference_Header_Content_Length="99999999999"
        ),
        "a header length that is no number": post(b"{}", Inference_Header_Content_Length="-1"),
        "a hundred thousand chunks": head("Transfer-Encoding: chunked") + chunks,
        "a body of a terabyte": head(f"Content-Length: {1 << 40}"),
        "a length that is no number": head("Content-Length: many"),
        "two lengths": head("Content-Length: 2", "Content-Length: 3") + b"{}",
        "gzip that is none": post(b"nothing", Content_Encoding="gzip"),
        "a gzip bomb": post(bomb, Content_Encoding="gzip"),
        "an unknown encoding": post(b"{}", Content_Encoding="br"),
        "headers of a megabyte": head(f"X-Long: {'x' * MIB}", "Content-Length: 0"),
        "another method": head("Content-Length: 0", method="GET"),
        **(
            {"a wrong token": post(b"{}", Authorization="Bearer wrong")} if headers else {}
        ),
        "not HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    }  # fmt: skip


async def _send(port: int, name: str, request: bytes, found: Hostility) -> None:
    """Send one request on a connection of its own, and judge the answer."""
    found.sent += 1
    try:
        async with asyncio.timeout(ANSWER_S):
            status, body = await _exchange(port, request)
    except (OSError, TimeoutError, ValueError) as error:
        found.unclear.append(f"{name}: {type(error).__name__} {error}")
        return
    found.statuses[status] += 1
    if not (400 <= status < 500 and body.strip()):
        found.unclear.append(f"{name}: status {status}, {body[:120]!r}")


async def _exchange(port: int, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
    try:
        writer.write(request)
        # The server may answer and close before it has read everything.
        answer = asyncio.ensure_future(_read(reader))
        drained = asyncio.ensure_future(_drain(writer))
        await answer
        drained.cancel()
        return answer.result()
    finally:
        writer.close()


async def _drain(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = next(
        (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")),
        None,
    )
    body = await (reader.read(MIB) if length is None else reader.readexactly(length))
    return int(lines[0].split()[1]), body


async def _attack(
    port: int, about: Questions, count: int, rate_per_s: float, seed: int
) -> Hostility:
    found, kinds = Hostility(), list(hostile_requests(about).items())
    order = iter(random.Random(seed).choices(kinds, k=count))
    began_s = time.monotonic()

    async def attacker() -> None:
        for name, request in order:
            due_s = began_s + found.sent / rate_per_s
            await asyncio.sleep(due_s - time.monotonic())
            await _send(port, name, request, found)

    slow = [_never_end(port, found) for _ in range(SLOW)]
    await asyncio.gather(*(attacker() for _ in range(ATTACKERS)), *slow)
    return found


async def _never_end(port: int, found: Hostility) -> None:
    """Send headers of which a line comes each second, without end."""
    found.sent += 1
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.read(MIB))
    with suppress(OSError):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
        until_s = time.monotonic() + ANSWER_S
        while not answer.done() and time.monotonic() < until_s:
            writer.write(b"X-Slow: yes\r\n")
            await asyncio.wait([answer], timeout=1.0)
    writer.close()
    with suppress(OSError):
        if answer.done() and (head := answer.result().split(b"\r\n")[0]):
            found.statuses[int(head.split()[1])] += 1
            return
    if not answer.done():
        found.unclear.append(f"headers that never end: open after {ANSWER_S:.0f} s")


def attack(port: int, about: Questions, count: int, rate_per_s: float, seed: int) -> Hostility:
    """Send `count` hostile requests at a steady rate, and SLOW that never end their headers."""
    return asyncio.run(_attack(port, about, count, rate_per_s, seed))
