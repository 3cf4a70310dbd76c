"""The client for asyncio: the same calls as the plain client, awaited."""

import asyncio
import threading

import pytest

from cluster import Priority
from cluster.vocabulary.errors import ClusterError, TaskFailed


def awaited(local, use):
    async def run():
        async with local.async_client() as client:
            return await asyncio.wait_for(use(client), 20)

    return asyncio.run(run())


async def status(client, condition):
    """Ask again until the status is as it should be."""
    while not condition(await client.status()):
        pass


def test_tasks_are_awaited_together(local):
    async def use(client):
        return await asyncio.gather(
            *(client.submit("echo", b"%d" % n, priority=Priority.HIGH) for n in range(100))
        )

    assert awaited(local, use) == [b"%d" % n for n in range(100)]


def test_a_failure_is_raised(local):
    async def use(client):
        with pytest.raises(TaskFailed, match="RuntimeError: on purpose"):
            await client.submit("fail", b"on purpose")
        with pytest.raises(ClusterError, match="timeout_s"):
            await client.submit("echo", timeout_s=-1.0)

    awaited(local, use)


def test_a_map_gives_results_in_order(local):
    async def use(client):
        payloads = (b"%d" % n for n in range(600))
        return [result async for result in client.map("echo", payloads)]

    assert awaited(local, use) == [b"%d" % n for n in range(600)]


def test_a_source_may_wait_while_results_come_and_the_loop_goes_on(local):
    release = threading.Event()

    def source():
        yield b"first"
        assert release.wait(20)
        yield b"second"
        raise KeyError("third")

    async def use(client):
        results = client.map("echo", source())
        assert await anext(results) == b"first"
        release.set()
        assert await anext(results) == b"second"
        with pytest.raises(KeyError, match="third"):
            await anext(results)

    awaited(local, use)


def test_a_map_that_is_left_early_cancels_the_rest(local, until):
    async def use(client):
        results = client.map("sleep", [b"0.01"] * 200)
        assert await anext(results) == b"0.01"
        await results.aclose()
        await status(client, lambda status: not status.runs)

    awaited(local, use)


def test_cancelling_the_one_who_waits_cancels_the_task(local):
    async def use(client):
        before = (await client.status()).counters["cancelled"]
        waiting = asyncio.create_task(client.submit("nobody offers this"))
        await status(client, lambda status: any(status.queued.values()))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await status(client, lambda status: status.counters["cancelled"] > before)

    awaited(local, use)


def test_the_loop_goes_on_while_a_task_runs(local):
    async def use(client):
        ticks = 0
        task = asyncio.create_task(client.submit("sleep", b"0.1"))
        while not task.done():
            await asyncio.sleep(0)
            ticks += 1
        return await task, ticks

    result, ticks = awaited(local, use)
    assert result == b"0.1"
    assert ticks > 10


def test_the_status_and_the_policy_until_it_is_closed(local):
    async def use(client):
        assert len((await client.status()).workers) == 2
        assert (await client.change_policy("round-robin")).policy == "round-robin"
        assert (await client.change_policy("least-loaded")).policy == "least-loaded"
        with pytest.raises(ClusterError, match="no policy 'chaos'"):
            await client.change_policy("chaos")
        await client.close()
        with pytest.raises(ClusterError, match="closed"):
            await client.submit("echo")

    awaited(local, use)
