"""What is kept of results that nobody waited for, within bounds."""

import asyncio

from cluster.serve.operations.tasks import BYTES_MAX, TASKS_MAX, Kept
from cluster.shells.futures import TaskFuture
from cluster.vocabulary.task import TaskId


def keep(sizes, error=None):
    """Which of the tasks with results of these sizes are kept in the end."""

    async def run():
        kept = Kept()
        for number, size in enumerate(sizes):
            future = TaskFuture(lambda _: None, lambda *_: None)
            kept.add(TaskId(number, 0), future)
            future.set_exception(error) if error else future.set_result(bytes(size))
        await asyncio.sleep(0)
        return [n for n in range(len(sizes)) if kept.get(TaskId(n, 0)) is not None]

    return asyncio.run(run())


def test_the_newest_tasks_are_kept_and_the_oldest_forgotten():
    assert keep([1] * (TASKS_MAX + 10)) == [*range(10, TASKS_MAX + 10)]


def test_results_over_the_bound_push_out_the_oldest():
    third = BYTES_MAX // 3
    assert keep([third] * 5) == [2, 3, 4]
    assert keep([1, BYTES_MAX + 1]) == []


def test_failures_are_kept_too():
    assert keep([0, 0], ValueError("no")) == [0, 1]
