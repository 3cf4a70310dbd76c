"""The attacker judges each answer, and the sink swallows the same requests as the control."""

import asyncio

import pytest

from perfkit.bench.serving.attacker import Attacker, Hostility, Job, attack, sink
from perfkit.bench.serving.exchange import Questions
from perfkit.bench.serving.hostile import hostile_requests
from perfkit.bench.workloads.load import ExperimentError

ABOUT = Questions(
    "/v2/models/digits/infer",
    [b'{"inputs":[{"name":"pixels","shape":[1,2],"datatype":"FP32","data":[0,1]}]}'],
    [[1.0]],
    "class",
    {"Authorization": "Bearer right"},
)
#: What a server says, and how the attacker judges it.
ANSWERS = {
    b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge": None,
    b"HTTP/1.1 408 Late\r\n\r\nclosed without a length": None,
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}": "one: status 200, b'{}'",
    b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy": "one: status 503, b'busy'",
    b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n": "one: status 400, b''",
    b"HTTP/1.1 400 Bad\r\ncontent-length: 9\r\n\r\nshort": "one: IncompleteReadError",
    b"what": "one: IncompleteReadError",
    b"": "one: IncompleteReadError",
}


@pytest.mark.parametrize(("answer", "judged"), ANSWERS.items())
def test_only_a_4xx_with_a_reason_is_clear(answer: bytes, judged: str | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(9)
        writer.write(answer)
        writer.close()

    async def attacked() -> Hostility:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await attack({"one": b"POST"}, Job(port, 9, 1_000.0, 0))

    found = asyncio.run(attacked())
    assert found.sent == 9
    judgements = [text for text in found.unclear if text.startswith("one")]
    assert [text.startswith(judged or "?") for text in judgements] == [True] * bool(judged)
    assert len(found.unclear) == (9 if judged else 0)


def test_the_sink_swallows_every_kind_at_a_steady_rate() -> None:
    requests = hostile_requests(ABOUT)
    assert len(requests) > 40
    with sink() as (_, port), Attacker(requests) as attacker:
        found = attacker.run(Job(port, 60, 200.0, 7))
        found.add(attacker.run(Job(port, 0, 200.0, 7)))
        assert (found.sent, found.statuses, found.unclear) == (60, {400: 60}, [])
        # The last of 52, after those that never end. The first may be late; no other is early.
        assert found.took_s >= 0.8 * 51 / 200.0
        attacker._process.kill()
        with pytest.raises(ExperimentError, match="the attacker ended with -9"):
            attacker.run(Job(port, 1, 200.0, 7))
