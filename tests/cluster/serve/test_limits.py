"""Who may ask, how often, how much and how slowly, each at a real server's socket."""

import gzip
import json
import signal
import socket
import ssl
import threading
import zlib
from http.client import HTTPConnection, HTTPSConnection
from urllib.request import Request, urlopen

import pytest

from cluster.serve.__main__ import main
from cluster.serve.http.process import ApiProcess
from cluster.serve.http.tokens import Role, TokenFileError, Tokens, make_token

INFER = "/v2/models/digits/infer"
BODY = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
).encode()


def ask(api, method="POST", path=INFER, body=BODY, *, token=None, **headers):
    """One request on a connection of its own: the status, the headers, the answer."""
    connection = HTTPConnection(api.host, api.port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


# Tokens


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    secrets = {role: make_token(path, role.name.lower(), role) for role in Role}
    return path, secrets


@pytest.fixture(scope="module")
def guarded(served, start_api, token_file):
    with start_api("--endpoint", served.endpoint, "--tokens", token_file[0]) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/v2", Role.READ),
        ("GET", "/v2/models/digits", Role.READ),
        ("GET", "/v1/models", Role.READ),
        ("POST", "/v2/repository/index", Role.READ),
        ("POST", INFER, Role.SUBMIT),
        ("POST", "/v1/embeddings", Role.SUBMIT),
        ("POST", "/v2/repository/models/digits/load", Role.ADMIN),
        ("POST", "/v2/repository/models/digits/unload", Role.ADMIN),
    ],
)
def test_each_path_takes_its_role_or_a_higher_one(guarded, token_file, method, path, least):
    secrets = token_file[1]
    for role in Role:
        if role < least:
            status, _, body = ask(guarded, method, path, token=secrets[role])
            assert status == 403
            assert least.name.lower() in json.dumps(json.loads(body)["error"])
    for token in (None, "wrong", secrets[Role.ADMIN][:-1], ""):
        status, headers, body = ask(guarded, method, path, token=token)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        said = "knows no such token" if token else "wants a token"
        assert said in json.dumps(json.loads(body)["error"])
    if least is not Role.ADMIN:
        assert ask(guarded, method, path, token=secrets[least])[0] in (200, 400)


def test_health_takes_no_token(guarded):
    assert ask(guarded, "GET", "/v2/health/live")[0] == 200
    assert ask(guarded, "GET", "/v2/health/ready")[0] == 200


def test_a_file_holds_only_hashes_and_is_its_owners(tmp_path):
    path = tmp_path / "tokens"
    secret = make_token(path, "laptop", Role.SUBMIT)
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert Tokens(path).find(secret) == ("laptop", Role.SUBMIT)
    assert Tokens(path).find(secret.swapcase()) is None
    with pytest.raises(TokenFileError, match="has a token named 'laptop'"):
        make_token(path, "laptop", Role.READ)


def test_a_token_is_revoked_by_removing_its_line(tmp_path, until):
    path = tmp_path / "tokens"
    gone, kept = make_token(path, "gone", Role.READ), make_token(path, "kept", Role.READ)
    tokens = Tokens(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    until(lambda: tokens.find(gone) is None)
    assert tokens.find(kept)
    path.write_text("# nobody\n")
    until(lambda: tokens.find(kept) is None)
    assert make_token(path, "kept", Role.READ)


def test_while_its_file_is_torn_a_server_keeps_its_tokens_and_says_so(served, tmp_path, until):
    path, told = tmp_path / "tokens", []
    secret = make_token(path, "laptop", Role.READ)
    flags = ["--endpoint", served.endpoint, "--bind", "127.0.0.1:0", "--tokens", str(path)]
    with ApiProcess(flags, tmp_path) as running:
        path.write_text("torn")
        asked = Request(f"{running.url}/v2", headers={"Authorization": f"Bearer {secret}"})

        def is_told():
            with urlopen(asked, timeout=20) as answer:
                assert answer.status == 200
            running.check(told.append)
            return told

        until(is_told)
    assert "line 1: expected 'sha256hex role name'" in told[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no token"),
        (b"\xff", "can't be read"),
        ("# only this\n", "holds no token"),
        ("abc read me\n", "line 1"),
        (f"{'0' * 64} read ok\n{'0' * 64} root me\n", "line 2"),
        (f"{'z' * 64} read me\n", "line 1"),
    ],
)
def test_a_broken_file_names_its_line(tmp_path, text, words):
    path = tmp_path / "tokens"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TokenFileError, match=words):
        Tokens(path)


def test_a_file_that_anybody_can_write_is_refused_and_a_folder_too(tmp_path):
    path = tmp_path / "tokens"
    make_token(path, "laptop", Role.READ)
    path.chmod(0o602)
    with pytest.raises(TokenFileError, match="chmod o-w"):
        Tokens(path)
    with pytest.raises(TokenFileError, match="can't be read"):
        make_token(tmp_path, "laptop", Role.READ)


# Where it listens


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bind", "0.0.0.0:0"], "without tokens anyone there could use this server"),
        (["--bind", "[::]:0"], "without tokens anyone there"),
        (["--bind", "8000"], "write it as 127.0.0.1:8000"),
        (["--bind", "127.0.0.1:99999"], "write it as 127.0.0.1:8000"),
        (["--cert", "cert.pem"], "both a certificate"),
        (["--cert", "no.pem", "--key", "no.pem"], "TLS can't use no.pem"),
        (["--tokens", "nowhere"], "can't be read"),
        (["--bind", "127.0.0.1:0", "--endpoint", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1"),
    ],
)
def test_a_server_that_cannot_begin_says_why_and_ends_with_2(options, words, capsys):
    if "--endpoint" not in options:
        options = [*options, "--endpoint", "tcp://127.0.0.1:1"]
    assert main(options) == 2
    assert words in capsys.readouterr().err


def test_a_taken_port_is_named(api, capsys):
    assert main(["--endpoint", "tcp://127.0.0.1:1", "--bind", api.address]) == 2
    assert f"cannot listen at {api.address}" in capsys.readouterr().err


def test_tls_serves_what_plain_http_does(served, start_api, tmp_path):
    certificates = pytest.importorskip("distributed.security")
    made = certificates.Security.temporary()
    for name in ("cert", "key"):
        value = made.tls_scheduler_cert if name == "cert" else made.tls_scheduler_key
        (tmp_path / name).write_text(value)
    files = ["--cert", tmp_path / "cert", "--key", tmp_path / "key"]
    with start_api("--endpoint", served.endpoint, *files) as running:
        context = ssl.create_default_context(cadata=made.tls_ca_file)
        context.check_hostname = False
        connection = HTTPSConnection("127.0.0.1", running.port, timeout=20, context=context)
        connection.request("POST", INFER, BODY)
        assert connection.getresponse().status == 200
        connection.close()


# How often, how much, how slowly


def test_a_client_over_its_rate_gets_429_and_when_to_return(served, start_api):
    with start_api("--endpoint", served.endpoint, "--rate", 0.01, "--burst", 3) as running:
        assert [ask(running)[0] for _ in range(3)] == [200, 200, 200]
        status, headers, body = ask(running)
        assert (status, headers["connection"]) == (429, "close")
        assert 60 < int(headers["retry-after"]) <= 100
        assert "requests a second" in json.loads(body)["error"]
        status, _, body = ask(running, path="/v1/embeddings")
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        assert ask(running, "GET", "/v2/health/live")[0] == 200


@pytest.fixture(scope="module")
def narrow(served, start_api):
    """A server with small bounds."""
    with start_api(
        "--endpoint", served.endpoint, "--body-mib", 1, "--header-deadline", 0.5,
        "--body-deadline", 1, "--connections", 20,
    ) as running:  # fmt: skip
        yield running


def test_a_body_over_the_bound_is_413_however_it_comes(narrow):
    large = bytes((1 << 20) + 1)
    for data, headers in (
        (large, {}),
        (iter([large[:1000]] * 1100), {}),
        (gzip.compress(bytes(1 << 26)), {"Content_Encoding": "gzip"}),
        (zlib.compress(bytes((1 << 20) + 1)), {"Content_Encoding": "deflate"}),
    ):
        status, answer_headers, body = ask(narrow, body=data, **headers)
        assert (status, answer_headers["connection"]) == (413, "close")
        assert "over the bound of 1 MiB" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "words"),
    [
        (b"x", "br", 415, "gzip, deflate and identity can be read"),
        (b"x", "gzip, gzip", 415, "'gzip, gzip'"),
        (b"not gzip", "gzip", 400, "no valid gzip"),
        (gzip.compress(BODY, mtime=0)[:-9], "gzip", 400, "ends within"),
        (gzip.compress(BODY, mtime=0) + b"more", "gzip", 400, "goes on after the end"),
        (zlib.compress(BODY)[:-5], "deflate", 400, "ends within"),
        (b"", "gzip", 400, "ends within"),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(api, body, encoding, status, words):
    found, _, answer = ask(api, body=body, Content_Encoding=encoding)
    assert found == status
    assert words in json.loads(answer)["error"]


def test_a_body_that_grows_as_only_a_bomb_does_is_413_and_a_small_one_is_read(api):
    bomb, zeros = (gzip.compress(bytes(size), mtime=0) for size in (32 << 20, 1 << 20))
    status, _, answer = ask(api, body=bomb, Content_Encoding="gzip")
    assert status == 413
    assert "over 32 times its size" in json.loads(answer)["error"]
    status, _, answer = ask(api, body=zeros, Content_Encoding="gzip")
    assert (status, "times its size" in json.loads(answer)["error"]) == (400, False)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "headers did not come"),
        (b"\r\n", "headers did not come"),
        (b"POST ", "headers did not come"),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-Slow: ", "headers did not come"),
        (f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1".encode(), "body did"),
        (
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
            "body did not come",
        ),
    ],
)
def test_a_request_that_does_not_come_in_time_is_408(narrow, sent, words):
    with socket.create_connection((narrow.host, narrow.port), 20) as peer:
        peer.sendall(sent)
        answer = b"".join(iter(lambda: peer.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert words.encode() in answer


def test_an_idle_connection_is_not_a_slow_one(narrow):
    connection = HTTPConnection(narrow.host, narrow.port, timeout=20)
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().read()
    threading.Event().wait(1.5)  # longer than both deadlines
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_connections_over_the_cap_get_503_and_room_comes_back(narrow, until):
    idle = []
    try:
        while len(idle) < 40:
            idle.append(socket.create_connection((narrow.host, narrow.port), 20))
            idle[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = idle[-1].recv(1 << 16)
            if answer.startswith(b"HTTP/1.1 503"):
                break
        assert 10 < len(idle) <= 21
        assert b"20 connections" in answer
    finally:
        for one in idle:
            one.close()
    until(lambda: ask(narrow, "GET", "/v2/health/live", None)[0] == 200)


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_is_open_and_refuses_what_comes(served, start_api, number):
    with start_api("--endpoint", served.endpoint) as running:
        waiting = HTTPConnection(running.host, running.port, timeout=20)
        other = HTTPConnection(running.host, running.port, timeout=20)
        for one in (other, waiting):  # both are accepted
            one.request("GET", "/v2/health/ready")
            assert one.getresponse().read()
        waiting.putrequest("POST", INFER)
        waiting.putheader("Content-Length", str(len(BODY)))
        waiting.endheaders(BODY[:10])
        other.request("GET", "/v2")  # answered only once the request before is read
        assert other.getresponse().read()
        running.process.send_signal(number)
        refused = []
        while not refused:
            other.request("POST", INFER, BODY)
            answer = other.getresponse()
            if answer.status == 503:
                refused.append((answer.getheader("retry-after"), json.loads(answer.read())))
            else:
                assert answer.status == 200
                answer.read()
        assert "about to stop" in refused[0][1]["error"]
        waiting.send(BODY[10:])
        assert waiting.getresponse().status == 200
        assert running.process.wait(20) == 0
        for one in (waiting, other):
            one.close()


def test_it_ends_with_its_parents_pipe(served, start_api):
    with start_api("--endpoint", served.endpoint) as running:
        running.process.stdin.close()
        assert running.process.wait(20) == 0
