"""``perfkit serve`` from the shell: what it starts, what it refuses, and that it goes away."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from cluster.serve.http.tokens import Role, make_token

QUESTION = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
)


def started(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "perfkit", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def ask(url, method="POST", path="/v2/models/digits/infer", body=QUESTION):
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("engine", ["zmq", "local"])
def test_one_command_serves_a_model_until_it_is_told_to_stop(engine):
    words = ("serve", "--model", "digits", "--workers", 1, "--port", 0, "--engine", engine)
    with started(*words, "--json") as process:
        told = json.loads(process.stdout.readline())
        assert told["models"] == ["digits"]
        status, answer = ask(told["url"])
        assert (status, answer["outputs"][0]["shape"]) == (200, [1, 10])
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopping" in err
    with pytest.raises(OSError, match="refused"):
        ask(told["url"])


def test_an_api_that_dies_is_started_again_at_its_address():
    with started("serve", "--model", "digits", "--workers", 1, "--port", 0, "--json") as process:
        told = json.loads(process.stdout.readline())
        _, config = ask(told["url"], "GET", "/cluster/config", None)
        assert config["spec"]["limits"]["overrun_s"] == 30, "no client's timeout kills a worker"
        os.kill(told["pid"], signal.SIGKILL)

        def answers():
            try:
                return ask(told["url"])[0] == 200
            except OSError:
                return False

        end_s, pause = time.monotonic() + 30, threading.Event()
        while not answers():
            assert time.monotonic() < end_s
            pause.wait(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"the API (pid {told['pid']}) has died and is started again" in err


def test_what_it_says_to_try_works_with_tokens_too(tmp_path):
    secret = make_token(tmp_path / "tokens", "me", Role.READ)
    words = ("--engine", "local", "--workers", 1, "--port", 0, "--tokens", tmp_path / "tokens")
    with started("serve", "--model", "digits", *words) as process:
        lines = [process.stdout.readline() for _ in range(4)]
        found = [
            subprocess.run(shlex.split(line.replace("TOKEN", secret)), capture_output=True).stdout
            for line in lines[2:]
        ]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert [json.loads(one).get("name") for one in found] == [None, "digits"]


def test_a_body_of_almost_64_mib_gets_through_its_cluster():
    rows = 240_000  # of 64 numbers
    one = {"name": "pixels", "shape": [rows, 64], "datatype": "FP32"}
    one["parameters"] = {"binary_data_size": rows * 256}
    text = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    with started("serve", "--model", "digits", "--workers", 1, "--port", 0, "--json") as process:
        parts = urlsplit(json.loads(process.stdout.readline())["url"])
        connection = HTTPConnection(parts.hostname, parts.port, timeout=60)
        length = {"Inference-Header-Content-Length": str(len(text))}
        connection.request("POST", "/v2/models/digits/infer", text + bytes(rows * 256), length)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert answer.status == 200, body[:300]
    assert len(body) > rows * 40


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "without tokens anyone there could use this server"),
        (["--cert", "a"], 2, "both a certificate (--cert) and its key"),
        (["--tokens", "nowhere"], 2, "can't be read"),
        (["--engine", "local"], 2, "name the models to serve by --model"),
        (["--engine", "local", "--model", "digits", "--workers", 0], 2, "takes 1 or more"),
        (["--rate", "inf"], 2, "'--rate'"),
        (["--timeout", "1e10"], 2, "'--timeout'"),
        (["--engine", "local", "--model", "digits", "--address", "x"], 2, "--address is not for"),
        (["--engine", "dask", "--model", "digits", "--spec", "baseline"], 2, "--spec is not for"),
        (
            ["--endpoint", "tcp://127.0.0.1:1", "--model", "digits"],
            2,
            "--model is for a new cluster",
        ),
        (["--endpoint", "tcp://127.0.0.1:1"], 1, "no coordinator answers at tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(perfkit, words, code, said):
    refused = perfkit("serve", *words)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert said in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


def test_a_token_is_printed_once_and_kept_as_a_hash(perfkit, tmp_path):
    file = tmp_path / "tokens"
    made = perfkit("serve", "token", "laptop", "--role", "submit", "--tokens", file)
    code, out = made.exit_code, made.stdout
    assert (code, len(out.strip())) == (0, 43)
    assert out.strip() not in file.read_text()
    assert file.read_text().split()[1:] == ["submit", "laptop"]
    again = perfkit("serve", "token", "laptop", "--tokens", file)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "has a token named 'laptop'" in again.stderr


def test_help_shows_examples_of_both(perfkit):
    assert "perfkit serve --model digits" in perfkit("serve", "--help").stdout
    assert "perfkit serve token laptop" in perfkit("serve", "token", "--help").stdout
