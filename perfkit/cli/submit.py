"""Gives a running cluster work and prints each result with its time.

It asks for the status first: a task for a model that no worker offers would wait forever without a
word. A file that cannot be read is reported and does not stop the others.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import msgspec
from rich.text import Text

from cluster.models.inference import PayloadError, file_payload
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, TaskTimedOut, did_you_mean
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Priority, Requirements
from perfkit.cli.status import ask_status, find_coordinator
from perfkit.cli.terminal.config import SettingError
from perfkit.cli.terminal.output import complain, out, write_json
from perfkit.evidence.text import measured, quantity

#: How long after a task's own limit its coordinator may take to say so.
GRACE_S = 5.0
ROW_NUMBERS = 64
NUMBERS_SHOWN = 6
NAME_WIDTH_MIN = 16
NAME_WIDTH_MAX = 48


@dataclass(frozen=True, slots=True)
class Request:
    """What to submit: files, or one payload for a handler or for a model of texts."""

    model: str | None
    kind: str | None
    files: tuple[Path, ...]
    payload: str | None
    priority: str
    timeout_s: float
    repeat: int

    @property
    def name(self) -> str:
        """The model or the handler: both are called by name."""
        return self.model or self.kind or ""

    def check(self) -> None:
        """Raises SettingError unless the arguments go together."""
        if (self.model is None) == (self.kind is None):
            raise SettingError("give one of --model NAME FILE… and --kind NAME")
        if self.payload is not None and (self.files or self.model not in (None, *TEXT_MODELS)):
            texts = " or ".join(f"--model {name}" for name in sorted(TEXT_MODELS))
            raise SettingError(f"--payload goes with --kind or {texts}, and no files")
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
        outcomes = []
        longest = max((len(str(path)) for path in request.files), default=0)
        width = max(NAME_WIDTH_MIN, min(NAME_WIDTH_MAX, longest))
        for outcome in submit_all(client, request, at_once):
            outcomes.append(outcome)
            if as_json is None:
                _print(outcome, width)
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
    offered = {w.worker: set(w.models if request.model else w.kinds) for w in status.workers}
    able = [w.capacity for w in status.workers if request.name in offered[w.worker]]
    if not able:
        known = sorted(set().union(*offered.values()))
        start = f"; start one with `perfkit cluster worker --model {request.name}`"
        raise ClusterError(
            f"no worker offers the {what} {request.name!r}; offered: {', '.join(known) or 'none'}"
            + (did_you_mean(request.name, known) or (start if request.model else ""))
        )
    return sum(able)


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
        requirements=Requirements(model=request.model) if request.model else None,
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
            outcome.result = _decoded(content, request)
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
    read = READERS.get(request.model or "", Path.read_bytes)
    for path in request.files:
        try:
            yield Outcome(str(path), read(path))
        except ClusterError as error:
            yield Outcome(str(path), error=str(error))
        except OSError as error:
            yield Outcome(str(path), error=f"cannot read {path}: {error.strerror}")


def row_payload(path: Path) -> bytes:
    """The tensor float32[64] or float32[N, 64] in a file: a .npy array, or text as in `_text_rows`.

    Raises:
        PayloadError: it holds anything else. OSError: it cannot be read.
    """
    from cluster.models.frames.tensor import pack_tensor

    try:
        import numpy as np
    except ModuleNotFoundError:
        raise PayloadError("digits needs the extra [infer]: pip install 'perfkit[infer]'") from None
    try:
        rows = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _text_rows(path)
        array = np.asarray(rows, np.float32)
    except (ValueError, TypeError, EOFError) as error:
        raise PayloadError(f"{path} is not a .npy array of numbers: {error}") from None
    return pack_tensor(array[0] if array.ndim == 2 and len(array) == 1 else array)


def _text_rows(path: Path) -> list[list[float]]:
    """A row per line, its numbers separated by commas or blanks; # begins a comment line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise PayloadError(f"{path} is neither text nor named .npy") from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            raise PayloadError(f"{path}, line {number}: {error}") from None
        if len(words) != ROW_NUMBERS:
            raise PayloadError(
                f"{path}, line {number}: {len(words)} numbers; a digit has {ROW_NUMBERS}"
            )
    if not rows:
        raise PayloadError(f"{path} holds no numbers; a line of {ROW_NUMBERS} is a digit")
    return rows


def text_payload(path: Path) -> bytes:
    """The text in a file; several words that name no file are the text themselves.

    Raises:
        PayloadError: a single word, probably a misspelt file. OSError: the file cannot be read.
    """
    words = str(path)
    if os.path.exists(words):  # Path.exists refuses very long text
        return path.read_bytes()
    if not any(map(str.isspace, words)):
        raise PayloadError(f"there is no file {words}; a text of one word goes with --payload")
    return words.encode("utf-8", "surrogateescape")


#: Makes a file the payload of a model; other models get its bytes.
READERS: Mapping[str, Callable[[Path], bytes]] = {
    "magika": file_payload,
    "digits": row_payload,
    "minilm": text_payload,
}
#: Models that take text from the command line.
TEXT_MODELS = frozenset({"minilm"})


def _decoded(content: bytes, request: Request) -> Any:
    """A result as plain values or text, a tensor with its numbers in lists, or else hex digits."""
    from cluster.models.frames.tensor import TensorError, unpack_tensor

    try:
        if request.model is None:
            return content.decode()
        return msgspec.msgpack.decode(content)
    except UnicodeDecodeError:
        return content.hex()
    except msgspec.DecodeError:
        pass
    try:
        array = unpack_tensor(content)
    except TensorError:
        return content.hex()
    return {"dtype": array.dtype.name, "shape": array.shape, "values": array.tolist()}


# From outcomes to lines


def _as_json(outcome: Outcome) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": outcome.name, "ok": outcome.error is None}
    if outcome.error is not None:
        return {**facts, "error": outcome.error}
    return {**facts, "result": outcome.result, "times_ms": outcome.times_ms}


def _print(outcome: Outcome, width: int) -> None:
    if outcome.error is not None:
        name = "" if outcome.name in outcome.error else f"{outcome.name}: "
        complain(f"{name}{outcome.error}")
        return
    results = outcome.result if isinstance(outcome.result, list) else [outcome.result]
    for number, result in enumerate(results, 1):
        name = outcome.name if len(results) == 1 else f"{outcome.name}:{number}"
        time_text = _time(outcome.times_ms) if number == 1 else ""
        line = Text(f"{name:<{width}}  ")
        line.append(f"{time_text:>10}  ", "dim").append_text(_result(result))
        out().print(line)


def _time(times_ms: list[float]) -> str:
    middle = statistics.median(times_ms)
    if len(times_ms) == 1:
        return quantity(middle, "ms")
    spread = measured(middle, "ms", min(times_ms), max(times_ms))
    return f"{spread}, median of {len(times_ms):,}"


def _result(result: Any) -> Text:
    """A class with its score and description, or the first numbers of a vector; else as it is."""
    if isinstance(result, dict) and len(result.get("shape", ())) == 1:
        (length,) = result["shape"]
        numbers = " ".join(map(quantity, result["values"][:NUMBERS_SHOWN]))
        more = " …" if length > NUMBERS_SHOWN else ""
        return Text(f"{result['dtype']}[{length}]", "bold").append(f"  {numbers}{more}", "not bold")
    if not isinstance(result, dict) or "label" not in result:
        return Text(str(result))
    line = Text(str(result.get("description", result["label"])), "bold")
    about = [str(result["label"])] if "description" in result else []
    about += [str(result["mime_type"])] if "mime_type" in result else []
    about += [quantity(result["score"])] if "score" in result else []
    return line.append(f"  {', '.join(about)}", "not bold")
