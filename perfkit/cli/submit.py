"""Gives a running cluster work and prints each result with its time.

It asks for the status first: a task for a model that no worker offers would wait forever without a
word. A file that cannot be read is reported and does not stop the others.
"""

from __future__ import annotations

import os.path
import statistics
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import msgspec
from rich.text import Text

from cluster.models.frames.tensors import DESCRIBE
from cluster.models.inference import ModelInfo, model_name
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, TaskTimedOut, did_you_mean
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Priority, Requirements
from perfkit.cli.models.answers import decoded, line, parts
from perfkit.cli.models.payloads import TEXT_EMBEDDING, reader
from perfkit.cli.status import ask_status, find_coordinator
from perfkit.cli.terminal.output import complain, out, write_json
from perfkit.evidence.text import measured, quantity
from perfkit.optimized.knobs import SettingError

#: How long after a task's own limit its coordinator may take to say so.
GRACE_S = 5.0
NAME_WIDTH_MIN = 16
NAME_WIDTH_MAX = 48


@dataclass(frozen=True, slots=True)
class Request:
    """What to submit: files, or one payload for a handler or for a model of texts.

    ``info`` is what the model says of itself, once it was asked.
    """

    model: str | None
    kind: str | None
    files: tuple[Path, ...]
    payload: str | None
    priority: str
    timeout_s: float
    repeat: int
    info: ModelInfo | None = None

    @property
    def name(self) -> str:
        """The model or the handler: both are called by name. A model may be given by the path that
        its worker has it from, or with a version, NAME/2.
        """
        model = self.model or ""
        if model.endswith(".onnx") or os.path.isdir(model):
            return model_name(os.path.abspath(model))
        return model or self.kind or ""

    @property
    def model_name(self) -> str:
        """The model's name without its version; empty for a handler."""
        return self.name.partition("/")[0] if self.model else ""

    def check(self) -> None:
        """Raises SettingError unless the arguments go together."""
        if (self.model is None) == (self.kind is None):
            raise SettingError("give one of --model NAME FILE… and --kind NAME")
        is_text = self.info is None or self.info.kind == TEXT_EMBEDDING
        if self.payload is not None and (self.files or not is_text):
            raise SettingError("--payload goes with --kind, or a model of texts, and no files")
        if self.model is not None and not self.files and self.payload is None:
            raise SettingError(f"name the files to ask the model {self.model!r} about")


@dataclass(slots=True)
class _Submission:
    """One task; the client's thread sets ``ended_s`` when its result arrives, then ``ended``."""

    future: Future[bytes]
    submitted_s: float
    ended_s: float = 0.0
    ended: Event = field(default_factory=Event)


@dataclass(slots=True)
class Outcome:
    """The result or the error of one file or payload; ``times_ms`` has one time per repetition."""

    name: str
    payload: bytes = b""
    result: Any = None
    error: str | None = None
    times_ms: list[float] = field(default_factory=list)
    submissions: list[_Submission] = field(default_factory=list)


def run_submit(
    endpoint: str, spec: ClusterSpec | None, request: Request, *, as_json: Path | None
) -> bool:
    """Submit and print the results in order; True if nothing failed.

    Raises:
        ClusterError: no coordinator answers, or no worker offers the model or handler.
    """
    with find_coordinator(endpoint, spec) as client:
        at_once = check_offered(ask_status(client), request)
        if request.model:
            request = replace(request, info=ask_model(client, request))
            request.check()
        outcomes = []
        longest = max((len(str(path)) for path in request.files), default=0)
        width = max(NAME_WIDTH_MIN, min(NAME_WIDTH_MAX, longest))
        for outcome in submit_all(client, request, at_once):
            outcomes.append(outcome)
            if as_json is None:
                _print(outcome, width, request.info)
    if as_json is not None:
        results = [_as_json(outcome) for outcome in outcomes]
        asked = {"endpoint": endpoint, "model": request.model, "kind": request.name}
        write_json({**asked, "results": results}, as_json)
    return all(outcome.error is None for outcome in outcomes)


def check_offered(status: Status, request: Request) -> int:
    """How many such tasks the workers can run at once.

    Raises:
        ClusterError: none of them offers the model or the handler.
    """
    if not status.workers:
        raise ClusterError("the cluster has no workers; start one with `perfkit cluster worker`")
    what = "model" if request.model else "kind"
    able = [w.capacity for w in status.workers if request.name in w.kinds]
    if not able:
        offered = (w.models if request.model else w.kinds for w in status.workers)
        known = sorted(set().union(*offered))
        start = f"; start one with `perfkit cluster worker --model {request.name}`"
        raise ClusterError(
            f"no worker offers the {what} {request.name!r}; offered: {', '.join(known) or 'none'}"
            + (did_you_mean(request.name, known) or (start if request.model else ""))
        )
    return sum(able)


def ask_model(client: Client, request: Request) -> ModelInfo:
    """What a model says of itself.

    Raises:
        ClusterError: it does not answer.
    """
    needs = Requirements(model=request.model_name)
    timeout_s = request.timeout_s
    asked = client.submit(request.name, DESCRIBE, requirements=needs, timeout_s=timeout_s)
    try:
        answer = asked.result(timeout=timeout_s + GRACE_S)
        return msgspec.json.decode(answer, type=ModelInfo)
    except TaskTimedOut:
        raise ClusterError(
            f"{request.name} was not free to say what it takes within {timeout_s:g} s (--timeout)"
        ) from None
    except TimeoutError:
        raise ClusterError(f"the coordinator at {client.endpoint} has stopped answering") from None
    except msgspec.DecodeError as error:
        raise ClusterError(f"{request.name} does not say what it takes: {error}") from error


def submit_all(client: Client, request: Request, at_once: int) -> Iterator[Outcome]:
    """Each outcome in order.

    At most ``at_once`` tasks are in flight, so that no time includes waiting for another task.
    """
    free = Semaphore(at_once)
    under_way: deque[Outcome] = deque()
    for outcome in _read(request):
        under_way.append(outcome)
        for _ in range(request.repeat if outcome.error is None else 0):
            if not free.acquire(timeout=request.timeout_s + GRACE_S):
                raise ClusterError(f"the coordinator at {client.endpoint} has stopped answering")
            outcome.submissions.append(_submit(client, request, outcome.payload, free))
        while under_way and all(one.future.done() for one in under_way[0].submissions):
            yield _finished(under_way.popleft(), request)
    for outcome in under_way:
        yield _finished(outcome, request)


def _submit(client: Client, request: Request, payload: bytes, free: Semaphore) -> _Submission:
    submitted_s = time.perf_counter()
    future = client.submit(
        request.name,
        payload,
        priority=Priority[request.priority.upper()],
        requirements=Requirements(model=request.model_name) if request.model else None,
        timeout_s=request.timeout_s,
    )
    submission = _Submission(future, submitted_s)

    def end(done: Future[bytes]) -> None:
        submission.ended_s = time.perf_counter()
        submission.ended.set()
        free.release()

    future.add_done_callback(end)
    return submission


def _finished(outcome: Outcome, request: Request) -> Outcome:
    """The outcome with its result and times, or with the first error of its repetitions."""
    for one in outcome.submissions:
        try:
            content = one.future.result(timeout=request.timeout_s + GRACE_S)
        except TaskTimedOut:
            outcome.error = f"not done within {request.timeout_s:g} s (--timeout)"
        except TimeoutError:
            outcome.error = "the coordinator has stopped answering"
        except (ClusterError, CancelledError) as error:
            outcome.error = str(error)
        else:
            outcome.result = decoded(content, request.info)
            one.ended.wait()  # a future wakes its waiter before it runs its callbacks
            outcome.times_ms.append((one.ended_s - one.submitted_s) * 1e3)
        if outcome.error is not None:
            break
    return outcome


# From files to payloads, from results to values


def _read(request: Request) -> Iterator[Outcome]:
    """An outcome for each file, so far with its payload or with the error of reading it."""
    if not request.files:
        yield Outcome(request.name, (request.payload or "").encode("utf-8", "surrogateescape"))
    read = reader(request.info)
    for path in request.files:
        try:
            yield Outcome(str(path), read(path))
        except ClusterError as error:
            yield Outcome(str(path), error=str(error))
        except OSError as error:
            yield Outcome(str(path), error=f"cannot read {path}: {error.strerror}")


# From outcomes to lines


def _as_json(outcome: Outcome) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": outcome.name, "ok": outcome.error is None}
    if outcome.error is not None:
        return {**facts, "error": outcome.error}
    return {**facts, "result": outcome.result, "times_ms": outcome.times_ms}


def _print(outcome: Outcome, width: int, info: ModelInfo | None) -> None:
    if outcome.error is not None:
        name = "" if outcome.name in outcome.error else f"{outcome.name}: "
        complain(f"{name}{outcome.error}")
        return
    results = parts(outcome.result, info)
    for number, result in enumerate(results, 1):
        name = outcome.name if len(results) == 1 else f"{outcome.name}:{number}"
        time_text = _time(outcome.times_ms) if number == 1 else ""
        shown = Text(f"{name:<{width}}  ")
        shown.append(f"{time_text:>10}  ", "dim").append_text(line(result, info))
        out().print(shown)


def _time(times_ms: list[float]) -> str:
    middle = statistics.median(times_ms)
    if len(times_ms) == 1:
        return quantity(middle, "ms")
    spread = measured(middle, "ms", min(times_ms), max(times_ms))
    return f"{spread}, median of {len(times_ms):,}"
