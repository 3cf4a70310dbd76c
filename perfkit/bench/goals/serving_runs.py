"""The measurements behind the serving goals: servers under load, in turns.

Each model has its own contest: this project's API, the bare servers and the peers are started with
that model, stay up, and are loaded one after another in every round. A second block of the API in
each round, the A/A arm, shows how much it differs from itself. An open loop runs at a rate that is
the same for all: half of what the bare unbatched server answers, which no arm's speed changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from statistics import median
from typing import TypeAlias

from cluster.models.inference import ModelInfo
from cluster.scratch import ScratchFolder
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError
from perfkit.bench.goals.memory_runs import MB, settled
from perfkit.bench.goals.table import OPTIMIZED, Contest
from perfkit.bench.serving.asking import Generator
from perfkit.bench.serving.attacker import Attacker, Hostility, Job, sink
from perfkit.bench.serving.exchange import Report
from perfkit.bench.serving.hostile import hostile_requests
from perfkit.bench.serving.material import Material, material
from perfkit.bench.serving.servers import Server, bare, ours, ours_automatic, ours_local, peer
from perfkit.bench.workloads.rounds import Arm, ArmSamples
from perfkit.evidence.samples import percentile
from perfkit.evidence.text import quantity
from perfkit.profile.watch import process_memory

#: The arms beside OPTIMIZED and the peers.
AGAIN, LOCAL, BARE, UNBATCHED = "A/A", "engine=local", "bare", "unbatched"
#: The API with the fastest precision that loses at most half a point.
AUTOMATIC = "precision auto"
#: The API while nobody attacks, and while the same hostile requests go to a server beside it that
#: swallows them: what the attacker's own processor time and his network cost others on one machine.
QUIET, SWALLOWED = "without hostile requests", "swallowed by a sink"
#: The most requests in flight, and the figures' names of them.
MANY = 32
#: A model that takes milliseconds needs longer blocks.
SLOW = ("minilm", "texts")
SAMPLE_EVERY_S = 0.05
#: Hostile requests per second, and those of others meanwhile.
HOSTILE_PER_S, OTHERS_PER_S = 100.0, 200.0


@dataclass(frozen=True)
class ServingSizes:
    """How much is measured: rounds, the seconds of each load, and hostile requests.

    `load_s` is of a closed loop, three times that for the slow models; `open_s` of an open loop.
    """

    rounds: int
    load_s: float
    open_s: float
    memory_rounds: int = 3
    hostile: int = 1_000
    models: tuple[str, ...] = ("digits", "minilm", "texts", "magika")
    connections: tuple[int, ...] = (1, 8, MANY)


ServingContest: TypeAlias = Contest[ServingSizes]


@dataclass
class Field:
    """The contest with its generator and its peers; `missing` has the reason for each left out.

    `cpu_shares` has the generator's own use, `rates_per_s` the rate of each open loop, and
    `automatic` each model in the precision that was chosen for it.
    """

    contest: ServingContest
    generator: Generator
    peers: dict[str, Path]
    missing: dict[str, str]
    cpu_shares: list[float] = field(default_factory=list)
    rates_per_s: dict[str, float] = field(default_factory=dict)
    automatic: dict[str, ModelInfo] = field(default_factory=dict)

    def closed(self, server: Server, connections: int, duration_s: float) -> Report:
        """A closed loop; WrongResult or ExperimentError if an answer was not right."""
        report = self.generator.ask(
            server.name, server.port, server.questions, connections, duration_s
        )
        self.cpu_shares.append(report.cpu_share)
        return report

    def open(self, server: Server, rate_per_s: float, duration_s: float) -> Report:
        """An open loop."""
        return self.generator.ask(
            server.name, server.port, server.questions, MANY, duration_s,
            rate_per_s=rate_per_s, seed=self.contest.seed,
        )  # fmt: skip


def contests(field: Field) -> ArmSamples:
    """Every model's contest."""
    sizes, samples = field.contest.sizes, ArmSamples()
    for name in sizes.models:
        about = material(name)
        with servers(field, about) as running:
            samples |= _contest(field, about, running)
            if AUTOMATIC in running and (info := running[AUTOMATIC].model) is not None:
                field.automatic[name] = info
    return samples


@contextmanager
def servers(field: Field, about: Material) -> Iterator[Mapping[str, Server]]:
    """The servers of a contest by arm; a peer that does not come up is left out, with its reason.

    `magika` gains nothing from batches, so its contest is with the unbatched server alone.
    """
    with ExitStack() as stack:
        running = {OPTIMIZED: stack.enter_context(ours(about, field.contest.optimized))}
        if about.name != "texts":
            automatic = ours_automatic(about, field.contest.optimized)
            running[AUTOMATIC] = stack.enter_context(automatic)
        running[UNBATCHED] = stack.enter_context(bare(about, batch_max=1))
        if about.name != "magika":
            running[BARE] = stack.enter_context(bare(about))
        others = {name: partial(peer, name, python, about) for name, python in field.peers.items()}
        if about.name == "digits":
            others[LOCAL] = partial(ours_local, about)
        for name, start in others.items() if about.name != "magika" else ():
            try:
                running[name] = stack.enter_context(start())
            except ClusterError as error:
                field.missing[f"{name} with {about.name}"] = str(error).splitlines()[0]
                field.contest.say(f"{name} with {about.name}: {error}")
        yield running


def _contest(field: Field, about: Material, running: Mapping[str, Server]) -> ArmSamples:
    sizes = field.contest.sizes
    slow = about.name in SLOW
    duration_s = sizes.load_s * (3 if slow else 1)
    connections = sizes.connections if about.name == "digits" else (MANY,)
    rate_per_s = None
    if slow and sizes.open_s:
        report = field.closed(running[UNBATCHED], MANY, duration_s)
        rate_per_s = report.per_s / 2
        field.rates_per_s[about.name] = rate_per_s
    arms: dict[str, Arm] = {
        name: partial(_block, field, about.name, server, connections, duration_s, rate_per_s)
        for name, server in (*running.items(), (AGAIN, running[OPTIMIZED]))
    }
    return field.contest.take_turns(arms, sizes.rounds, f"{about.name} requests/s")


def _block(
    field: Field,
    model: str,
    server: Server,
    connections: tuple[int, ...],
    duration_s: float,
    rate_per_s: float | None,
) -> Mapping[str, float]:
    """Requests per second at each concurrency, a p99, and, with the most in flight, the time and
    the processor time of one request in ms.
    """
    found = {}
    with server.its_turn():
        for count in reversed(connections):
            cpu_s = server.cpu_s()
            report = field.closed(server, count, duration_s)
            found[f"{model}_{count}"] = report.per_s
            if count == MANY:
                found[f"{model}_time"] = median(report.latencies_ms)
                found[f"{model}_cpu"] = (server.cpu_s() - cpu_s) / report.answers * 1e3
        if rate_per_s is not None:
            report = field.open(server, rate_per_s, field.contest.sizes.open_s)
            found[f"{model}_p99"] = percentile(report.latencies_ms, 99) or 0.0
    return found


def memory(field: Field) -> ArmSamples:
    """PSS in MB of the API's process, idle and at its highest under load, in fresh processes."""
    about, samples = material("digits"), ArmSamples()
    for number in range(field.contest.sizes.memory_rounds):
        with ours(about, field.contest.optimized) as server:
            found = {"api_idle": _pss_mb(server.process.pid, settle=True)}
            with _watched(partial(_pss_mb, server.process.pid)) as seen:
                field.closed(server, MANY, field.contest.sizes.load_s)
            found["api_loaded"] = max((mb for mb in seen if mb is not None), default=None)
        for figure, mb in found.items():
            if mb is not None:
                samples.setdefault(figure, {}).setdefault(OPTIMIZED, []).append(mb)
        idle = quantity(found["api_idle"], "MB")
        field.contest.say(f"memory of the API, process {number + 1}: {idle} idle")
    return samples


def hostility(field: Field) -> tuple[ArmSamples, Hostility]:
    """p99 of others and the API's memory, and what became of the hostile requests.

    In one arm they go to the API, in one to a sink at the same pace, and in one there are none.
    """
    sizes, about, found = field.contest.sizes, material("digits"), Hostility()
    if not sizes.hostile:
        return {}, found
    each = -(-sizes.hostile // (sizes.rounds + 1))  # the warm-up counts too
    with ExitStack() as stack:
        server = stack.enter_context(_guarded_by_tokens(field.contest.optimized, about))
        attacker = stack.enter_context(Attacker(hostile_requests(server.questions)))
        _, sink_port = stack.enter_context(sink())
        pool = stack.enter_context(ThreadPoolExecutor(1))
        duration_s, read_mb = each / HOSTILE_PER_S, partial(_pss_mb, server.process.pid)

        def others(port: int | None) -> Mapping[str, float]:
            with _watched(read_mb) as mb:
                job = Job(port or 0, each if port else 0, HOSTILE_PER_S, found.sent)
                attacking = pool.submit(attacker.run, job)
                report = field.open(server, OTHERS_PER_S, duration_s)
                became = attacking.result()
            if port == server.port:
                found.add(became)
            known = [one for one in mb if one is not None]
            memory = {"hostile_memory": max(known)} if known else {}
            return {"others_p99": percentile(report.latencies_ms, 99) or 0.0, **memory}

        ports = {OPTIMIZED: server.port, SWALLOWED: sink_port, QUIET: None}
        arms: dict[str, Arm] = {name: partial(others, port) for name, port in ports.items()}
        samples = field.contest.take_turns(arms, sizes.rounds, "ms p99 of others")
    return samples, found


@contextmanager
def _guarded_by_tokens(spec: ClusterSpec, about: Material) -> Iterator[Server]:
    """The API with tokens; its questions carry a right one."""
    secret = token_urlsafe(32)
    with ScratchFolder("tokens-") as folder:
        file = Path(folder, "tokens")
        file.write_text(f"{sha256(secret.encode()).hexdigest()} submit bench\n")
        headers = {"Authorization": f"Bearer {secret}"}
        options = ["--tokens", str(file), "--header-deadline", "3"]
        with ours(about, spec, options, headers=headers) as server:
            yield server


@contextmanager
def _watched(read: Callable[[], float | None]) -> Iterator[list[float | None]]:
    """What `read` says again and again meanwhile."""
    seen: list[float | None] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            seen.append(read())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _pss_mb(pid: int, settle: bool = False) -> float | None:
    """A process's PSS in MB; None where the system does not tell."""
    found = settled(pid) if settle else process_memory(pid)
    return None if found is None or found.pss_bytes is None else found.pss_bytes / MB
