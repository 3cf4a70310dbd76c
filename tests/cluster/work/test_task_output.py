"""What a handler prints, marked with its task, whole lines at a time."""

import io
import threading

from cluster.work.task_output import LINE_LENGTH_MAX, TaskOutput


def test_each_whole_line_has_the_task_of_its_thread():
    kept = io.BytesIO()
    stream, tasks = TaskOutput(kept), {}
    stream.task = lambda: tasks.get(threading.get_ident(), "")

    def handler():
        tasks[threading.get_ident()] = "7.1"
        print("a", "line\nand the beginning", file=stream, end=" ")
        begun.set()
        go_on.wait(10)
        print("of another \udce9", file=stream)

    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=handler)
    thread.start()
    begun.wait(10)
    print("between", file=stream)
    go_on.set()
    thread.join()
    stream.write("x" * (LINE_LENGTH_MAX + 1))
    *lines, long = kept.getvalue().decode().splitlines()
    assert lines == [
        "[7.1] a line",
        "between",
        "[7.1] and the beginning of another \\udce9",
    ]
    assert len(long) == LINE_LENGTH_MAX + 1
