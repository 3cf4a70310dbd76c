"""The load generator against the bare server: right answers counted, wrong ones found."""

import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from perfkit.bench.serving.asking import Generator
from perfkit.bench.serving.exchange import Job, Questions, mistake_of, request_bytes
from perfkit.bench.serving.material import material
from perfkit.bench.serving.servers import Server, bare
from perfkit.bench.workloads.load import ExperimentError, WrongResult

BLOCK_S = 0.3


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with Generator() as running:
        yield running


@pytest.fixture(scope="module", params=[64, 1], ids=["batched", "unbatched"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with bare(material("digits"), batch_max=request.param) as running:
        yield running


@pytest.mark.parametrize("connections", [1, 32])
def test_a_closed_loop_counts_right_answers(
    generator: Generator, server: Server, connections: int
) -> None:
    report = generator.ask("bare", server.port, server.questions, connections, BLOCK_S)
    assert report.statuses == {200: report.answers}
    assert report.answers >= connections
    assert len(report.latencies_ms) == report.answers
    assert all(latency_ms > 0 for latency_ms in report.latencies_ms)
    # The latencies of all add up to the time it took, times the number in flight.
    assert sum(report.latencies_ms) <= connections * report.took_s * 1e3
    assert report.per_s == report.answers / report.took_s
    assert 0 < report.cpu_share < 1.5


def test_an_open_loop_sends_at_its_rate_whatever_is_answered(
    generator: Generator, server: Server
) -> None:
    report = generator.ask("bare", server.port, server.questions, 1, 1.0, rate_per_s=100.0, seed=3)
    again = generator.ask("bare", server.port, server.questions, 1, 1.0, rate_per_s=100.0, seed=3)
    assert report.answers == again.answers, "the seed decides when requests are due"
    assert 60 < report.answers < 140


def test_an_open_loop_counts_from_the_time_a_request_was_due(generator: Generator) -> None:
    """A server that answers one request only keeps all others waiting until the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        job = Job(
            port=listening.getsockname()[1], requests=[request_bytes("/", b"{}")],
            expected=[[1.0]], compared="class", cosine_min=0.999, connections=1,
            duration_s=0.2, rate_per_s=50.0, timeout_s=0.5,
        )  # fmt: skip
        report = generator.run(job)
    assert report.answers == 0
    assert report.broken > 1
    assert report.mistake == "no answer within 0.5 s"


def test_a_wrong_answer_ends_the_run(generator: Generator, server: Server) -> None:
    right = server.questions
    swapped = msgspec.structs.replace(right, expected=right.expected[1:] + right.expected[:1])
    with pytest.raises(WrongResult, match=r"bare gave [\d,]+ wrong answers of .*class \d came"):
        generator.ask("bare", server.port, swapped, 4, BLOCK_S)


def test_a_refusal_ends_the_run(generator: Generator, server: Server) -> None:
    broken = msgspec.structs.replace(server.questions, bodies=[b"{"])
    with pytest.raises(ExperimentError, match=r"bare failed .* requests: status 400: .*truncated"):
        generator.ask("bare", server.port, broken, 4, BLOCK_S)


def test_a_dead_server_is_reported(generator: Generator) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        questions = Questions("/", [b"{}"], [[1.0]], "class")
        with pytest.raises(ExperimentError, match=f"nothing listens at 127.0.0.1:{port}"):
            generator.ask("dead", port, questions, 2, BLOCK_S)


def test_a_server_that_dies_meanwhile_is_reported(generator: Generator) -> None:
    """It accepts, reads, and closes without a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(64)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        questions = Questions("/", [b"{}"], [[1.0]], "class")
        port = listening.getsockname()[1]
        with pytest.raises(ExperimentError, match="the server closed the connection"):
            generator.ask("dying", port, questions, 2, BLOCK_S)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    "body",
    [
        b'{"outputs":[{"name":"a","data":[9]},{"name":"b","data":[0.1,0.7,0.2]}]}',
        b'{"outputs":[{"data":[[0.1,0.7,0.2]]}]}',
        b'{"data":[{"embedding":[0.1,0.7,0.2]}]}',
        b'{"output":[0.1,0.7,0.2]}',
        b"[[0.1,0.7,0.2]]",
    ],
)
def test_answers_are_read_in_every_format_of_the_peers(body: bytes) -> None:
    assert mistake_of(body, [0.0, 1.0, 0.0], "class") is None
    assert mistake_of(body, [1.0, 0.0, 0.0], "class") == "class 1 came instead of 0"
    assert mistake_of(body, [0.1, 0.7, 0.2], "cosine") is None
    wrong = mistake_of(body, [0.7, 0.1, 0.2], "cosine")
    assert wrong == "the cosine to the right vector is 0.3333"


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        (b"[1,2]", "2 numbers came instead of 3"),
        (b"{}", "is not an answer"),
        (b'{"outputs":[{"name":"a"}]}', "is not an answer"),
        (b"hello", "is not an answer"),
        (b'["a","b","c"]', "is not an answer: there are no numbers in it"),
    ],
)
def test_what_is_no_answer_is_wrong(body: bytes, mistake: str) -> None:
    assert mistake in str(mistake_of(body, [1.0, 2.0, 3.0], "class"))


def test_a_connection_that_the_server_closed_while_idle_is_not_asked(generator: Generator) -> None:
    """It closes every connection at once but the last, so all but one are lost while idle."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1.0,0]"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(7):
                listening.accept()[0].close()
            connection, _ = listening.accept()
            with connection:
                while connection.recv(4096):
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        job = Job(
            port=listening.getsockname()[1], requests=[request_bytes("/", b"{}")],
            expected=[[1.0, 0.0]], compared="class", cosine_min=0.999, connections=8,
            duration_s=0.5, rate_per_s=30.0, timeout_s=30.0,
        )  # fmt: skip
        report = generator.run(job)
    thread.join(5)
    assert (report.broken, report.wrong, report.mistake) == (0, 0, "")
    assert report.statuses == {200: report.answers}
    assert report.answers > 1
