"""Requests that mean harm: each gets a clear 4xx, memory stays bounded, others are served on.

Raw sockets, as no client library would send these.
"""

import gzip
import itertools
import json
import random
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.cluster.serve.wire import raw_exchange

INFER = b"/v2/models/digits/infer"
ONE = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
GOOD = json.dumps({"inputs": [ONE]}).encode()


def request(body=GOOD, *, method=b"POST", path=INFER, headers=(), length=None, version=b"1.1"):
    lines = [b"%s %s HTTP/%s" % (method, path, version), b"Host: here"]
    if length is not False:
        lines.append(b"Content-Length: %s" % (b"%d" % len(body) if length is None else length))
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


def chunked(parts, headers=()):
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return request(body, length=False, headers=[b"Transfer-Encoding: chunked", *headers])


def inputs(**changed):
    return json.dumps({"inputs": [{**ONE, **changed}]}).encode()


def binary(tensor, data, told=None, header=None):
    one = {**{k: v for k, v in ONE.items() if k != "data"}, **tensor}
    one["parameters"] = {"binary_data_size": len(data) if told is None else told}
    text = json.dumps({"inputs": [one]}).encode()
    length = b"%d" % len(text) if header is None else header
    return request(text + data, headers=[b"Inference-Header-Content-Length: " + length])


BOTH = [b"Transfer-Encoding: chunked"]
ZIPPED = gzip.compress(bytes(80 << 20), 1)
#: name → the bytes sent, and the statuses that answer them
HOSTILE = {
    # Two ways to read one request: RFC 9112, section 6.3
    "both lengths": (request(b"0\r\n\r\n", headers=BOTH), {400}),
    "two lengths": (request(headers=[b"Content-Length: 3"]), {400}),
    "list of lengths": (request(length=b"5, 6"), {400}),
    "negative length": (request(length=b"-1"), {400}),
    "signed length": (request(length=b"+5"), {400}),
    "hex length": (request(length=b"0x10"), {400}),
    "huge length": (request(length=b"9" * 30), {400, 413}),
    "length over the bound": (request(length=b"999999999"), {413}),
    "chunked last but one": (
        request(b"", length=False, headers=[b"Transfer-Encoding: chunked, gzip"]), {400},
    ),
    "chunked misspelt": (
        request(b"0\r\n\r\n", length=False, headers=[b"Transfer-Encoding: xchunked"]), {400},
    ),
    "blank before colon": (request(headers=[b"Content-Length : 5"]), {400}),
    "folded header": (request(headers=[b"X: a", b" b"]), {400}),
    "bare line feed": (request().replace(b"\r\n", b"\n", 3), {400}),
    "nul in header": (request(headers=[b"X: a\0b"]), {400}),
    "no host": (b"GET /v2 HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (request(headers=[b"Host: there"]), {400}),
    "chunk size nonsense": (request(b"zz\r\n", length=False, headers=BOTH), {400}),
    "chunk size huge": (request(b"f" * 17 + b"\r\n", length=False, headers=BOTH), {400}),
    "chunk without its end": (request(b"3\r\nabcd\r\n", length=False, headers=BOTH), {400}),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    "http 0.9": (b"GET /\r\n\r\n", {400, 505}),
    "unknown method": (request(method=b"BREW"), {400}),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", {400, 404, 405}),
    "trace": (request(b"", method=b"TRACE", path=b"/v2"), {405}),
    # Sizes
    "long target": (request(path=b"/" + b"a" * 9_000), {414}),
    "long header": (request(headers=[b"X: " + b"a" * 70_000]), {431}),
    "many headers": (request(headers=[b"X%d: a" % n for n in range(200)]), {431}),
    "many tiny chunks": (chunked([b"a"] * 20_000), {413}),
    "zip bomb": (
        request(ZIPPED, headers=[b"Content-Encoding: gzip"]), {413},
    ),
    "bomb of bombs": (
        request(gzip.compress(ZIPPED),
                headers=[b"Content-Encoding: gzip, gzip"]), {415},
    ),
    # JSON
    "deep json": (request(b'{"inputs":' * 10_000), {413}),
    "deep lists": (request(b'{"inputs":' + b"[" * 200_000), {400}),
    "deep data": (request(inputs(data=0).replace(b": 0}", b": " + b"[" * 99_999)), {400}),
    "not json": (request(b"\xff\xfe\0"), {400}),
    "empty": (request(b""), {400}),
    "half": (request(GOOD[:100]), {400}),
    "twice": (request(GOOD + GOOD), {400}),
    "long number": (request(inputs().replace(b"[0.0", b"[" + b"9" * 100_000)), {400}),
    "nan": (request(inputs(data=[float("nan")] * 64)), {400}),
    "many inputs": (request(json.dumps({"inputs": [ONE] * 300}).encode()), {400, 413}),
    "many dimensions": (request(inputs(shape=[1] * 100_000)), {400}),
    "huge shape": (request(inputs(shape=[1 << 62, 64])), {400}),
    "large shape": (request(inputs(shape=[1 << 30, 1 << 30])), {400, 413}),
    "shape of none": (request(inputs(shape=[0, 1 << 30], data=[])), {400}),
    "negative shape": (request(inputs(shape=[-1, 64])), {400}),
    "fraction of a shape": (request(inputs(shape=[1.5, 64])), {400}),
    "other count": (request(inputs(shape=[2, 64])), {400}),
    # Binary data
    "binary too short": (binary({}, bytes(255), 256), {400}),
    "binary too long": (binary({}, bytes(257), 256), {400}),
    "binary of another shape": (binary({"shape": [1 << 20, 1 << 20]}, bytes(256)), {400}),
    "binary told negative": (binary({}, bytes(256), -5), {400}),
    "binary told huge": (binary({}, bytes(256), 1 << 62), {400}),
    "header told huge": (binary({}, bytes(256), header=b"9" * 12), {400}),
    "header told negative": (binary({}, bytes(256), header=b"-1"), {400}),
    "header told within the json": (binary({}, bytes(256), header=b"7"), {400}),
    "texts that overrun": (
        binary({"datatype": "BYTES", "shape": [4]}, b"\xff\xff\xff\xff" * 4), {400},
    ),
    "a million texts": (
        binary({"datatype": "BYTES", "shape": [1 << 20]}, bytes(4 << 20)), {400, 413},
    ),
    "texts beyond the shape": (
        request(inputs(datatype="BYTES", shape=[5], data=["a"] * 60_000)), {400},
    ),
    "lists beyond the shape": (request(inputs(data=[[0.0, 0.0]] * 40_000)), {400}),
    # Names
    "traversal": (request(path=b"/v2/models/../../etc/passwd/infer"), {404}),
    "encoded name": (request(path=b"/v2/models/%00%2e%2e/infer"), {404}),
    "long name": (request(path=b"/v2/models/" + b"a" * 8_000 + b"/infer"), {404}),
    "no name": (request(path=b"/v2/models//infer"), {404}),
}  # fmt: skip

#: the larger ones, sent less often
HEAVY = {"zip bomb", "bomb of bombs", "a million texts", "many tiny chunks"}


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_a_clear_4xx(exchange, name):
    data, statuses = HOSTILE[name]
    answer = exchange(data)
    assert status_of(answer) in statuses, answer[:300]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert len(json.loads(body)["error"]) > 10
    assert b"Traceback" not in body


def test_what_follows_a_contradictory_request_is_not_answered(exchange):
    """The second request of a smuggler must not reach the server as one of its own."""
    smuggled = b"0\r\n\r\nGET /v2/models HTTP/1.1\r\nHost: here\r\n\r\n"
    answer = exchange(request(smuggled, headers=BOTH))
    assert answer.lower().count(b"content-length:") == 1
    assert status_of(answer) == 400


def test_what_never_ends_is_refused_without_being_kept(api):
    """The parser tells of a header, a trailer or a chunk's size only when it has all of it."""
    for start in (
        request()[:20],
        request(headers=[b"X: "])[:-4],
        request(b"0\r\nX: ", length=False, headers=BOTH),
        request(b"1;", length=False, headers=BOTH),
    ):
        answer = raw_exchange(api, start + b"a" * (1 << 20))
        assert status_of(answer) in (400, 414, 431), (start, answer[:300])


def test_a_request_that_its_client_cuts_off_gets_a_400(api):
    with socket.create_connection((api.host, api.port), 20) as peer:
        peer.sendall(request()[:-9])
        peer.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: peer.recv(1 << 16), b""))
    assert status_of(answer) == 400
    assert b"closed within the request" in answer


def test_pipelined_requests_are_answered_in_order_and_too_many_end_the_connection(api):
    several = [request(b"", method=b"GET", path=b"/v2/models/nope%d" % n) for n in range(20)]
    answers = b""
    with socket.create_connection((api.host, api.port), 10) as peer:
        peer.sendall(b"".join(several))
        while b"nope19'" not in answers:
            answers += peer.recv(1 << 16)
    assert answers.count(b"HTTP/1.1 404") == 20
    places = [answers.index(b"nope%d'" % n) for n in range(20)]
    assert places == sorted(places)
    assert status_of(raw_exchange(api, b"".join(several * 50))) in (400, 404)
    assert raw_exchange(api, request()).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_whose_client_is_refused_or_leaves_are_no_fault(served, start_api):
    with start_api("--endpoint", served.endpoint) as api:
        for _ in range(20):
            with socket.create_connection((api.host, api.port), 20) as peer:
                peer.sendall(request() * 3)
            raw_exchange(api, request() * 40)
        assert raw_exchange(api, request()).startswith(b"HTTP/1.1 200")
        assert api.process.last_words() == ""


def pss_bytes(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) << 10


def test_thousands_of_them_leave_memory_bounded_and_others_served(served, start_api):
    """Answers are as each gets alone, and a well-behaved client is answered meanwhile."""
    light = [name for name in HOSTILE if name not in HEAVY]
    names = list(itertools.islice(itertools.cycle(light), 3_000)) + sorted(HEAVY) * 5
    random.Random(14).shuffle(names)
    with start_api("--endpoint", served.endpoint) as api:
        good = HTTPConnection(api.host, api.port, timeout=60)

        def ask():
            began_s = time.perf_counter()
            good.request("POST", INFER.decode(), GOOD)
            answer = good.getresponse()
            assert (answer.status, len(json.loads(answer.read())["outputs"])) == (200, 1)
            return time.perf_counter() - began_s

        alone = [ask() for _ in range(100)]
        before = pss_bytes(api.process.pid)
        wrong = []

        def attack(name):
            answer = raw_exchange(api, HOSTILE[name][0], quiet_s=60)
            if status_of(answer) not in HOSTILE[name][1]:
                wrong.append((name, answer[:200]))

        with ThreadPoolExecutor(8) as pool:
            attacks = [pool.submit(attack, name) for name in names]
            meanwhile = []
            while not all(one.done() for one in attacks):
                meanwhile.append(ask())
            for one in attacks:
                one.result()
        assert not wrong
        assert pss_bytes(api.process.pid) - before < 200 << 20
        assert len(meanwhile) > 10
        after = [ask() for _ in range(100)]
        assert len(after) == 100
        print(
            f"alone p50 {statistics.median(alone) * 1e3:.2f} ms, "
            f"meanwhile {statistics.median(meanwhile) * 1e3:.2f} ms (n={len(meanwhile)}, max "
            f"{max(meanwhile) * 1e3:.0f} ms), PSS {before >> 20} MiB, then "
            f"{pss_bytes(api.process.pid) >> 20}"
        )
