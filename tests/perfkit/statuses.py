"""Statuses made up for what shows them: of a few workers, of many, with cards, hostile."""

import random
from typing import Any

from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad, Load

#: Text that would retitle a terminal, turn its direction, and be markup to rich and to a browser.
HOSTILE = "\x1b]0;owned\x07\x9b2J\u202ew[/red][link=http://x]<script src=//x.example>&"


def worker(name: str, **facts: Any) -> WorkerStatus:
    usual: dict[str, Any] = {
        "epoch": 1, "host": "h", "pid": 7, "capacity": 1, "credit": 2, "held": 1, "leases": 1,
        "finished": 1_234, "draining": False, "silent_s": 0.12, "kinds": ["digits", "echo"],
        "models": ["digits"], "gpus": [],
    }  # fmt: skip
    return WorkerStatus(worker=name, **{**usual, **facts})


def status(*workers: WorkerStatus, **facts: Any) -> Status:
    usual: dict[str, Any] = {
        "policy": "least-loaded", "clients": 1, "runs": 0, "queued": {"high": 0, "normal": 0},
        "assigned": 0, "delayed": 0, "payload_bytes": 0, "retained_bytes": 0, "counters": {},
    }  # fmt: skip
    return Status(workers=list(workers), **{**usual, **facts})


def workers_with_cards(hosts: int, workers: int, cards: int = 1) -> list[WorkerStatus]:
    """On each host workers with cards of two families, each with figures of its own; one card of
    each host's last worker tells nothing.
    """
    chance = random.Random(7)
    found = []
    for host in range(hosts):
        for number in range(workers):
            family = ("polaris", "vega")[number % 2]
            loads = [
                GpuLoad(
                    free_bytes=chance.randrange(8 << 30),
                    busy_pct=chance.uniform(0, 100),
                    temperature_c=chance.uniform(35, 90),
                    power_w=chance.uniform(8, 180),
                )
                for _ in range(cards)
            ]
            if number == workers - 1 and cards:
                loads[-1] = GpuLoad()
            found.append(
                worker(
                    f"gpu-{host}-{number}",
                    host=f"host-{host}",
                    held=chance.randrange(5),
                    credit=4,
                    silent_s=chance.uniform(0, 0.5),
                    gpus=[Gpu(family, 8 << 30)] * cards,
                    load=Load(rss_bytes=300 << 20, gpus=tuple(loads)),
                    service_s_p50=chance.uniform(1e-3, 5e-3),
                    service_s_p99=chance.uniform(5e-3, 5e-2),
                )
            )
    return found
