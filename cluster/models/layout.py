"""How many sessions of how many threads suit a model on this machine: measured once, remembered.

A run by several threads answers one request sooner; several runs at once answer more of them. Which
is worth more depends on the model and the machine, so each way to share out the cores is tried, in
turns, with a batch of made-up inputs.

``python -m cluster.models.layout NAME CORES`` prints the layout as JSON, from a process of its own:
the sessions that are tried take memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from cluster.models.inference import ModelRepository
from cluster.models.kinds.adapter import Question
from cluster.models.kinds.named_tensors import frame_of
from cluster.models.loaded import Model
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.cache import Cache, sha256_hex
from cluster.models.runtime.session import CPU, load_runtime
from cluster.models.runtime.sharing import processor
from cluster.models.runtime.trial import made_up
from cluster.vocabulary.cards import CARD

#: Raised with every change of how a layout is measured.
VERSION = 1
FILE = "layout.json"
ROUNDS, ROUND_S = 3, 0.25
BATCH_ITEMS = 8
#: fewer sessions are taken if they come this near to the best: each takes memory
NEARLY = 0.97


class Layout(msgspec.Struct, frozen=True):
    """``sessions`` at once, of ``threads`` each. ``items_per_s`` has what was measured, the median
    of the rounds by ``"sessions x threads"``; it is empty where there was nothing to choose.
    """

    sessions: int
    threads: int
    items_per_s: dict[str, float] = {}


def choose_layout(name: str, cores: int, cache: Cache | None = None) -> Layout:
    """The layout of a model of the user's repository, or of that path, on ``cores`` cores.

    On a card there is one session. A model that refuses made-up inputs gets a session a core.

    Raises:
        ModelError: the model can't be loaded.
        OSError: the cache can't be used.
    """
    alone = Layout(cores, 1)
    if cores < 2:
        return alone
    repository, cache = ModelRepository(), cache or Cache()
    found = repository.find(name)
    manifest, runtime = found.manifest, load_runtime(name)
    depends_on = (
        VERSION, cache.sha256(found.files[found.served()[-1]]), manifest.precision,
        manifest.provider, os.environ.get(CARD), cores, processor(), runtime.__version__,
    )  # fmt: skip

    def build(folder: Path) -> None:
        layout = measure(repository, name, cores) or alone
        (folder / FILE).write_bytes(msgspec.json.encode(layout))

    entry = cache.entry(
        f"{manifest.name}-layout-{sha256_hex(repr(depends_on).encode())[:16]}", build
    )
    return msgspec.json.decode((entry.folder / FILE).read_bytes(), type=Layout)


def layout_of(name: str, cores: int | None = None) -> Layout:
    """`choose_layout` in a process of its own, by default for the cores that this one may use.

    Raises:
        ModelError: the model can't be loaded.
    """
    cores = cores or len(os.sched_getaffinity(0))
    command = [sys.executable, "-P", "-m", "cluster.models.layout", name, str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelError((done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1])
    return msgspec.json.decode(done.stdout, type=Layout)


def measure(repository: ModelRepository, name: str, cores: int) -> Layout | None:
    """The best layout, as measured now; None for a model that refuses made-up inputs.

    Raises:
        ModelError: the model can't be loaded.
    """
    ways = [n for n in range(1, cores + 1) if cores % n == 0]
    models = {n: repository.load(name, threads=cores // n) for n in ways}
    if models[1].provider != CPU:
        return Layout(1, 1)
    question = made_up_question(models[1])
    if question is None:
        return None
    rates: dict[int, list[float]] = {n: [] for n in ways}
    for turn in range(ROUNDS):
        for n in ways if turn % 2 else reversed(ways):
            rates[n].append(items_per_s(models[n], question, n))
    medians = {n: median(found) for n, found in rates.items()}
    sessions = min(n for n in ways if medians[n] >= NEARLY * max(medians.values()))
    told = {f"{n} x {cores // n}": round(rate, 1) for n, rate in medians.items()}
    return Layout(sessions, cores // sessions, told)


def made_up_question(model: Model) -> Question | None:
    """A batch of made-up inputs; None if the model refuses it."""
    info = model.describe()
    ports = {port.name: port for port in info.inputs}
    rows = min(BATCH_ITEMS, info.batch_items_max)
    question = model.prepare(frame_of(ports, made_up(ports, rows)))
    if not isinstance(question, Question) or isinstance(model.run([question])[0], Exception):
        return None
    return question


def items_per_s(model: Model, question: Question, sessions: int) -> float:
    """Items a second of that many threads that run the question at once."""
    counts: Sequence[list[int]] = [[0] for _ in range(sessions)]
    start = time.perf_counter()
    end = start + ROUND_S

    def run(count: list[int]) -> None:
        while time.perf_counter() < end:
            model.run([question])
            count[0] += 1

    threads = [threading.Thread(target=run, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = sum(count[0] for count in counts)
    return runs * question.items / (time.perf_counter() - start)


if __name__ == "__main__":
    try:
        print(msgspec.json.encode(choose_layout(sys.argv[1], int(sys.argv[2]))).decode())
    except ModelError as error:
        sys.exit(str(error))
