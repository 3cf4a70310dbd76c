"""Gives a running cluster work and prints what comes back, each with the time it took.

Asked first is how the cluster is: a task for a model that nobody offers would wait for ever, and
silence is the worst error message. A file that cannot be read is told of and does not stop the
others.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from typing import Any

import msgspec
from rich.text import Text

from cluster.models.inference import PayloadError, file_payload
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, TaskTimedOut, did_you_mean
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import Priority, Requirements
from perfkit.cli.config import SettingError
from perfkit.cli.output import complain, out, write_json
from perfkit.cli.status import ask_status

#: How long after a task's own limit its coordinator may take to say so.
GRACE_S = 5.0
ROW_NUMBERS = 64
NUMBERS_SHOWN = 6
NAME_WIDTH_MIN = 16
NAME_WIDTH_MAX = 48


@dataclass(frozen=True, slots=True)
class Request:
    """What to submit: files for a model or a handler, or one payload for a handler or a model of
    texts.
    """

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
            raise SettingError("say what to run: --model NAME FILE… or --kind NAME, one of the two")
        if self.payload is not None and (self.files or self.model not in (None, *TEXT_MODELS)):
            texts = " or ".join(f"--model {name}" for name in sorted(TEXT_MODELS))
            raise SettingError(f"--payload goes with --kind or {texts}, and no files")
        if self.model is not None and not self.files and self.payload is None:
            raise SettingError(f"name the files to ask the model {self.model!r} about")


@dataclass(slots=True)
class Outcome:
    """What became of one file or payload; ``times_ms`` has the time of each repetition."""

    name: str
    payload: bytes | None = None
    result: Any = None
    error: str | None = None
    times_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Flight:
    """One task under way; the client's thread notes when its result arrives."""

    future: Future[bytes]
    submitted_s: float
    ended_s: float = 0.0


def run_submit(endpoint: str, spec: ClusterSpec, request: Request, *, as_json: bool) -> bool:
    """Submit, print in the order asked for; True if nothing failed.

    Raises:
        ClusterError: no coordinator answers, or no worker offers what is asked for.
    """
    with Client(endpoint, spec=spec) as client:
        at_once = check_offered(ask_status(client), request)
        outcomes = []
        longest = max((len(str(path)) for path in request.files), default=0)
        width = max(NAME_WIDTH_MIN, min(NAME_WIDTH_MAX, longest))
        for outcome in submit_all(client, request, at_once):
            outcomes.append(outcome)
            if not as_json:
                _print(outcome, width)
    if as_json:
        write_json(
            {
                "endpoint": endpoint,
                "model": request.model,
                "kind": request.name,
                "results": [_as_json(outcome) for outcome in outcomes],
            }
        )
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
    """Each outcome in order, with at most ``at_once`` tasks in flight, so that a time is the
    task's own and not that of those before it.
    """
    free = Semaphore(at_once)
    under_way: list[tuple[Outcome, list[_Flight]]] = []
    for outcome in _read(request):
        flights: list[_Flight] = []
        under_way.append((outcome, flights))
        for _ in range(request.repeat if outcome.payload is not None else 0):
            if not free.acquire(timeout=request.timeout_s + GRACE_S):
                raise ClusterError(f"the coordinator at {client.endpoint} has stopped answering")
            flights.append(_take_off(client, request, outcome.payload or b"", free))
        while under_way and all(flight.future.done() for flight in under_way[0][1]):
            yield _landed(*under_way.pop(0), request)
    for outcome, flights in under_way:
        yield _landed(outcome, flights, request)


def _take_off(client: Client, request: Request, payload: bytes, free: Semaphore) -> _Flight:
    submitted_s = time.perf_counter()
    future = client.submit(
        request.name,
        payload,
        priority=Priority[request.priority.upper()],
        requirements=Requirements(model=request.model) if request.model else None,
        timeout_s=request.timeout_s,
    )
    flight = _Flight(future, submitted_s)

    def land(done: Future[bytes]) -> None:
        flight.ended_s = time.perf_counter()
        free.release()

    future.add_done_callback(land)
    return flight


def _landed(outcome: Outcome, flights: list[_Flight], request: Request) -> Outcome:
    """The outcome with its result and times; the first failure of several repetitions counts."""
    for flight in flights:
        try:
            content = flight.future.result(timeout=request.timeout_s + GRACE_S)
        except TaskTimedOut:
            outcome.error = f"not done within {request.timeout_s:g} s (--timeout)"
        except TimeoutError:
            outcome.error = "the coordinator has stopped answering"
        except (ClusterError, CancelledError) as error:
            outcome.error = str(error)
        else:
            outcome.result = _decoded(content, request)
            outcome.times_ms.append((flight.ended_s - flight.submitted_s) * 1e3)
        if outcome.error is not None:
            break
    return outcome


# From files to payloads, from results to values


def _read(request: Request) -> Iterator[Outcome]:
    """An outcome to be for each file: with its payload, or with the error that it can't be read."""
    if not request.files:
        yield Outcome(request.name, (request.payload or "").encode())
    read = READERS.get(request.model or "", Path.read_bytes)
    for path in request.files:
        try:
            yield Outcome(str(path), read(path))
        except ClusterError as error:
            yield Outcome(str(path), error=str(error))
        except OSError as error:
            yield Outcome(str(path), error=f"cannot read {path}: {error.strerror}")


def row_payload(path: Path) -> bytes:
    """The tensor float32[64] or float32[N, 64] in a file: a .npy array, or a line of numbers for
    each row, apart by commas or blanks; empty lines and those that begin with # are none.

    Raises:
        PayloadError: it holds anything else. OSError: it cannot be read.
    """
    from cluster.models.tensor import pack_tensor

    if path.suffix == ".npy":
        return pack_tensor(_npy_rows(path))
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
    return pack_tensor(_float32(rows))


def text_payload(path: Path) -> bytes:
    """The text in a file, or the words themselves where they are several and no file's name.

    Raises:
        PayloadError: it is one word, more likely a slip than a text. OSError: it cannot be read.
    """
    words = str(path)
    if os.path.exists(words):  # unlike the path's own method it takes words of any length
        return path.read_bytes()
    if not any(map(str.isspace, words)):
        raise PayloadError(f"there is no file {words}; a text of one word goes with --payload")
    return words.encode()


def _npy_rows(path: Path) -> Any:
    np = _numpy()
    try:
        array = np.load(path, allow_pickle=False)
        return _float32(array)
    except (ValueError, TypeError, EOFError) as error:
        raise PayloadError(f"{path} is no .npy array of numbers: {error}") from None


def _float32(rows: Any) -> Any:
    np = _numpy()
    array = np.asarray(rows, dtype=np.float32)
    return array[0] if array.ndim == 2 and len(array) == 1 else array


def _numpy() -> Any:
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise PayloadError("digits needs the extra [infer]: pip install 'perfkit[infer]'") from None
    return np


#: How a file becomes the payload of a model; any other model is sent the bytes.
READERS: Mapping[str, Callable[[Path], bytes]] = {
    "magika": file_payload,
    "digits": row_payload,
    "minilm": text_payload,
}
#: Those to which a text itself can be sent.
TEXT_MODELS = frozenset({"minilm"})


def _decoded(content: bytes, request: Request) -> Any:
    """A model's result as plain values, a handler's as text, or as hex digits if it is none."""
    if request.model is not None:
        try:
            return msgspec.msgpack.decode(content)
        except msgspec.DecodeError:
            return _tensor(content)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.hex()


def _tensor(content: bytes) -> Any:
    """A tensor with its numbers in nested lists, or hex digits if it is none."""
    from cluster.models.tensor import TensorError, unpack_tensor

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
        line.append(f"{time_text:>9}  ", "dim").append_text(_result(result))
        out().print(line)


def _time(times_ms: list[float]) -> str:
    middle = f"{statistics.median(times_ms):.1f} ms"
    if len(times_ms) == 1:
        return middle
    spread = f"{min(times_ms):.1f}–{max(times_ms):.1f}"
    return f"{middle} (median of {len(times_ms):,}, {spread})"


def _result(result: Any) -> Text:
    """A class with its score and what else is known of it, the first numbers of a vector; any other
    value as it is.
    """
    if isinstance(result, dict) and len(result.get("shape", ())) == 1:
        (length,) = result["shape"]
        numbers = " ".join(f"{value:.4f}" for value in result["values"][:NUMBERS_SHOWN])
        more = " …" if length > NUMBERS_SHOWN else ""
        return Text(f"{result['dtype']}[{length}]", "bold").append(f"  {numbers}{more}", "not bold")
    if not isinstance(result, dict) or "label" not in result:
        return Text(str(result))
    line = Text(str(result.get("description", result["label"])), "bold")
    about = [str(result["label"])] if "description" in result else []
    about += [str(result["mime_type"])] if "mime_type" in result else []
    about += [f"{result['score']:.2f}"] if "score" in result else []
    return line.append(f"  {', '.join(about)}", "not bold")
