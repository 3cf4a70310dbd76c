"""Requests that no client should send, each of which the API has to refuse with a clear 4xx.

Each is written by hand, because a client library would refuse to send it. They are made before any
clock starts. RFC 9112, sections 6.3 and 7.1, says how lengths and chunks can contradict each other.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from perfkit.bench.serving.exchange import Questions, request_bytes

CHUNKS = 100_000
MIB = 1 << 20
CHUNKED = "Transfer-Encoding: chunked"


class _Maker:
    """Writes requests with the path and the headers of the right questions, tokens above all."""

    def __init__(self, about: Questions) -> None:
        self.path, self.headers = about.path, about.headers
        (self.port,) = msgspec.json.decode(about.bodies[0])["inputs"]
        self.rows = len(self.port["data"])

    def post(self, body: bytes, to: str | None = None, **more: str) -> bytes:
        """A body, with more headers."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return request_bytes(to or self.path, body, {**self.headers, **named})

    def infer(self, **changed: Any) -> bytes:
        """The right input with something changed."""
        return self.post(msgspec.json.encode({"inputs": [{**self.port, **changed}]}))

    def data(self, text: bytes, datatype: bytes = b"FP32", count: int = MIB) -> bytes:
        """An input whose data are that text, in as many rows as the model wants for the count."""
        shape = -(-count // self.rows), self.rows
        return self.post(
            b'{"inputs":[{"name":"%s","shape":[%d,%d],"datatype":"%s","data":%s}]}'
            % (self.port["name"].encode(), *shape, datatype, text)
        )

    def head(self, *lines: str, method: str = "POST", to: str | None = None) -> bytes:
        """A request without a body, with these header lines."""
        told = [f"{name}: {value}" for name, value in self.headers.items()]
        first = f"{method} {to or self.path} HTTP/1.1"
        return "\r\n".join((first, "Host: x", *told, *lines, "", "")).encode()


def hostile_requests(about: Questions) -> Mapping[str, bytes]:
    """Each kind of hostile request to a model with one input, as bytes for a connection."""
    make = _Maker(about)
    return {**_tensors(make), **_bodies(make), **_framing(make)}


def _tensors(make: _Maker) -> dict[str, bytes]:
    """Shapes, types and data that contradict each other or the model."""
    rows, port = make.rows, make.port
    told = {name: value for name, value in port.items() if name != "data"}
    told["parameters"] = {"binary_data_size": 4 * rows}
    binary = msgspec.json.encode({"inputs": [told]})
    cut = {"Inference_Header_Content_Length": str(len(binary))}
    return {
        "a shape that contradicts the data": make.infer(shape=[1, rows + 1]),
        "a shape that would take exabytes": make.infer(shape=[1 << 40, 1 << 20]),
        "a negative shape": make.infer(shape=[-1, rows]),
        "a hundred axes": make.infer(shape=[1] * 100),
        "a hundred thousand axes": make.infer(shape=[1] * 100_000),
        "data of another type": make.infer(data=["x"] * rows),
        "an unknown datatype": make.infer(datatype="FP128"),
        "an input the model does not have": make.infer(name="nothing"),
        "no inputs": make.post(b'{"inputs": []}'),
        "truncated binary": make.post(binary + bytes(4 * rows - 1), **cut),
        "a header length beyond the body": make.post(
            b"{}", Inference_Header_Content_Length="99999999999"
        ),
        "a header length that is no number": make.post(b"{}", Inference_Header_Content_Length="-1"),
        "a model there is not": make.post(b"{}", "/v2/models/nothing/infer"),
        "numbers, the last of them a text": make.data(
            b"[" + b"1," * 399_999 + b'"x"]', count=400_000
        ),
        "two hundred thousand texts": make.data(
            b"[" + b'"a",' * 200_000 + b'"a"]', b"BYTES", 200_001
        ),
        "rows of which the last is a text": make.data(b"[" + b"[1,2,3]," * 100_000 + b'"x"]'),
        "a number of 200,000 digits": make.data(b"[%s]" % (b"9" * 200_000), b"INT64", 1),
    }


def _bodies(make: _Maker) -> dict[str, bytes]:
    """Bodies that cost more to read than to send."""
    noise = random.Random(0)
    # It grows 30-fold, to 10 MB, as a tensor may.
    grown = gzip.compress(b"".join(noise.randbytes(60) + b" " * 1_900 for _ in range(5_000)))
    tiny = b'{"name":"a","shape":1,"datatype":""},'
    return {
        "ten thousand inputs": make.post(msgspec.json.encode({"inputs": [make.port] * 10_000})),
        "twenty thousand tiny inputs": make.post(b'{"inputs":[%s{}]}' % (tiny * 20_000)),
        "twenty thousand outputs": make.post(
            b'{"inputs":[],"outputs":[%s{}]}' % (b'{"name":"a"},' * 20_000)
        ),
        "fifty thousand texts to embed": make.post(
            b'{"model":"m","input":[%s"a"]}' % (b'"a",' * 50_000), "/v1/embeddings"
        ),
        "not JSON": make.post(b"\xff\x00 not JSON"),
        "a megabyte of blanks": make.post(b" " * MIB),
        "JSON nested deeply": make.post(b'{"inputs":' + b"[" * 100_000),
        "a list of empty lists": make.post(b'{"x":[%s[]]}' % (b"[]," * 300_000)),
        "gzip that is none": make.post(b"nothing", Content_Encoding="gzip"),
        "a gzip bomb": make.post(gzip.compress(bytes(256 * MIB)), Content_Encoding="gzip"),
        "a deflate bomb": make.post(zlib.compress(bytes(200 * MIB)), Content_Encoding="deflate"),
        "gzip that grows 30-fold": make.post(grown, Content_Encoding="gzip"),
        "an unknown encoding": make.post(b"{}", Content_Encoding="br"),
    }


def _framing(make: _Maker) -> dict[str, bytes]:
    """What HTTP itself forbids, and what the server bounds of it."""
    head, stranger = make.head, {"Authorization": "Bearer wrong"}
    return {
        "a hundred thousand chunks": head(CHUNKED) + b"1\r\n \r\n" * CHUNKS + b"0\r\n\r\n",
        "a size of a chunk that is no number": head(CHUNKED) + b"zz\r\n",
        "chunks and a length": head(CHUNKED, "Content-Length: 5") + b"0\r\n\r\n",
        "a trailer of 300 KB": head(CHUNKED) + b"0\r\nX: %s\r\n\r\n" % (b"x" * 300_000),
        "a body of a terabyte": head(f"Content-Length: {1 << 40}"),
        "a terabyte, expecting 100": head("Expect: 100-continue", f"Content-Length: {1 << 40}"),
        "a length that is no number": head("Content-Length: many"),
        "two lengths": head("Content-Length: 2", "Content-Length: 3") + b"{}",
        "headers of a megabyte": head(f"X-Long: {'x' * MIB}", "Content-Length: 0"),
        "five thousand headers": head(*(f"X-{number}: x" for number in range(5_000))),
        "a target of 100 KB": head("Content-Length: 0", to="/" + "a" * 100_000),
        "a target of escapes": head("Content-Length: 0", to="/v2/models/" + "%41" * 20_000),
        "a NUL in the target": head("Content-Length: 0", to="/v2/models/\0/infer"),
        "an escaped NUL in the target": head("Content-Length: 0", to="/v2/models/%00/infer"),
        "a thousand requests at once": make.post(b"{}") * 1_000,
        "another method": head("Content-Length: 0", method="GET"),
        "a wrong token": request_bytes(make.path, b"{}", stranger),
        "a wrong token and a megabyte": request_bytes(make.path, b" " * MIB, stranger),
        "not HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    }
