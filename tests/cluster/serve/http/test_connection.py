"""A connection of this API's, between a client and an application in the same loop."""

import asyncio
import gc
import sys
from types import SimpleNamespace

import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from cluster.serve.http.connection import Connection, check_deadlines


async def ok(scope, receive, send):
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def listen(state, app=ok):
    config = Config(app, http=Connection, ws="none", lifespan="off", timeout_keep_alive=5)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)


def test_an_idle_connection_is_closed_in_the_end_and_an_answer_to_head_has_no_body():
    async def ask():
        state = ServerState()
        listener = await listen(state)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        ends = [b"\r\n\r\n", b"\r\n\r\nok"]
        for method, end in zip(("HEAD", "GET"), ends, strict=True):
            writer.write(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert (await reader.readuntil(end)).startswith(b"HTTP/1.1 200 OK\r\n")
        now_s = asyncio.get_running_loop().time()
        check_deadlines(state.connections, now_s + 4)
        assert not next(iter(state.connections)).transport.is_closing()
        check_deadlines(state.connections, now_s + 6)
        assert await reader.read() == b""
        writer.close()
        listener.close()

    asyncio.run(ask())


def test_a_connection_that_has_ended_leaves_nothing_for_the_garbage_collector():
    """Collecting what thousands of them would leave stops everybody for a tenth of a second."""
    requests = {
        "answered": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "refused": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "no HTTP": b"\x16\x03\x01\r\n\r\n",
    }

    async def left_by(request):
        state = ServerState()
        listener = await listen(state)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(request)
        assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
        listener.close()
        await listener.wait_closed()
        gc.collect()
        return [one for one in gc.garbage if isinstance(one, Connection)]

    try:
        left = {name: uvloop.run(left_by(request)) for name, request in requests.items()}
        assert left == {name: [] for name in requests}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def echo(scope, receive, send):
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_a_client_that_offers_http_2_or_a_websocket_is_answered_by_http_1_1_with_its_body_read():
    """Java's HttpClient offers HTTP/2 with each request unless it is told not to."""
    offers = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    )
    bodies = (
        (b"Content-Length: 5\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b"hello\r\n0\r\n\r\n"),
    )

    async def ask():
        listener = await listen(ServerState(), echo)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        for offer in offers:
            for length, body in bodies:
                for _ in range(2):  # at once, and the body later
                    writer.write(b"POST /a HTTP/1.1\r\nHost: a\r\n" + offer + length)
                    await asyncio.sleep(0)
                    writer.write(body)
                    assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n" + offers[1] + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.close()
        listener.close()

    asyncio.run(asyncio.wait_for(ask(), 10))


def test_a_small_request_takes_the_connection_few_calls():
    """Times depend on the machine, calls of functions of Python do not."""
    calls = []

    async def ask():
        answers = []
        transport = SimpleNamespace(
            write=lambda data: answers.pop().set_result(data),
            is_closing=bool,
            get_extra_info=lambda *_: None,
        )
        connection = Connection(Config(ok, http=Connection), ServerState(), {})
        connection.connection_made(transport)
        headers = b"Host: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        for number in range(11):
            answers = [answer := asyncio.get_running_loop().create_future()]
            if number:  # the first one fills caches
                sys.setprofile(lambda frame, event, _: event == "call" and calls.append(frame))
            connection.data_received(b"POST / HTTP/1.1\r\n" + headers + b"\r\nok")
            assert (await answer).startswith(b"HTTP/1.1 200")
            sys.setprofile(None)

    uvloop.run(ask())
    assert len(calls) / 10 <= 36
