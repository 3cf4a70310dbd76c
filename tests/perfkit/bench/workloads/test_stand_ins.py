"""Stand-ins are workers of a real coordinator, and processor time is counted by thread."""

import os
import threading
import time
from itertools import pairwise
from pathlib import Path

from cluster import BASELINE, LocalCluster
from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.stand_ins import KIND, StandIns
from perfkit.bench.workloads.thread_times import thread_times


def test_stand_ins_work_at_their_speeds(tmp_path: Path) -> None:
    payloads = [waiting_payload(0.02, number) for number in range(40)]
    with LocalCluster(0, BASELINE) as cluster, cluster.client() as client:
        stand_ins = StandIns(cluster.endpoint, BASELINE, tmp_path)
        try:
            stand_ins.grow_to(2, [1.0, 4.0])
            names = {worker.worker for worker in client.status().workers}
            assert names == {"stand-in-0", "stand-in-1"}
            assert list(client.map(KIND, payloads)) == payloads
            slow, fast = stand_ins.starts()
            assert len(slow) + len(fast) == len(payloads)
            assert len(fast) > len(slow)
            assert min(later - start for start, later in pairwise(slow)) >= 0.02
            assert stand_ins.starts() == [[], []]
            bare = stand_ins.bare_starts(3, 0.01, 0.1)
            assert [len(starts) > 2 for starts in bare] == [True] * 3
            pid = stand_ins.pid
        finally:
            stand_ins.end()
    assert not Path(f"/proc/{pid}").exists()


def test_time_is_counted_apart_for_the_main_thread() -> None:
    def compute() -> None:
        end_s = time.thread_time() + 0.05
        while time.thread_time() < end_s:
            pass
        done.set()
        is_seen.wait(10)

    done, is_seen = threading.Event(), threading.Event()
    before = thread_times(os.getpid())
    other = threading.Thread(target=compute)
    other.start()
    done.wait(10)
    used = thread_times(os.getpid()).since(before)
    is_seen.set()
    other.join()
    assert used.others.busy_s >= 0.045
    assert used.main.waits >= 1
    assert used.busy_s == used.main.busy_s + used.others.busy_s
