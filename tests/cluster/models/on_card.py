"""What processes on a card do for the tests: handlers of workers, and answers to questions."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cluster.models.inference import BUILT_IN, ModelRepository
from cluster.models.providers import webgpu
from cluster.models.providers.vulkan import vulkan_devices
from cluster.models.providers.webgpu import WEBGPU, claim_card
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.cache import default_folder
from cluster.models.runtime.candidates import (
    REQUEST,
    TOLD,
    Candidate,
    Request,
    Row,
    main,
    try_candidates,
)
from cluster.models.runtime.choice import Choice, Wish
from cluster.models.runtime.golden import write_tensors
from cluster.models.runtime.session import OpenSession, load_runtime, open_session
from cluster.models.samples import held_out_digits
from cluster.vocabulary.cards import CARD
from cluster.work.handlers import Handlers

DIGITS = BUILT_IN / "digits" / "model.onnx"

ROUNDS = 20
HANDLERS = Handlers()


@HANDLERS.register("lose")
def lose(payload: bytes) -> bytes:
    """Echo, where there is no card; on one whose driver has none behind it, lose it."""
    if CARD in os.environ:
        open_digits().run(None, {"pixels": np.ones((1, 64), np.float32)})
    return payload


def open_digits() -> Any:
    """A session for digits on the card of this process, without any trial."""
    runtime = load_runtime("digits")
    claim_card(runtime, default_folder() / "shaders")
    return open_session("digits", DIGITS, preference=(WEBGPU,)).session


def devices() -> list[Any]:
    return [device._asdict() for device in vulkan_devices()]


def load(name: str, provider: str, precision: str = "fp32", root: str = "") -> Any:
    """The description of a model, or why it is refused."""
    try:
        model = ModelRepository(root or None).load(name, wish=Wish(provider, precision))
    except ModelError as error:
        return str(error)
    info = model.describe()
    return {name: getattr(info, name) for name in ("provider", "device", "precision", "notes")}


def load_without_extra(provider: str) -> Any:
    sys.modules["onnxruntime_ep_webgpu"] = None  # type: ignore[assignment]
    return load("digits", provider)


def try_file(path: str) -> Any:
    """What a trial says of a graph on the card."""
    candidates = (Candidate("fp32", "webgpu", path),)
    request = Request("mine", path, candidates, str(default_folder() / "shaders"))
    with tempfile.TemporaryDirectory() as folder:
        (row,) = try_candidates(request, Path(folder))
    return msgspec.to_builtins(row)


def try_unseen() -> Any:
    """What a trial says of a card whose work the kernel does not count."""
    open_digits()
    webgpu._claimed[0] = webgpu._claimed[0]._replace(kind="discrete GPU", pci="0000:03:00.0")
    some = (Candidate("fp32", "webgpu", str(DIGITS)),)
    request = Request("digits", str(DIGITS), some, str(default_folder() / "shaders"))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / REQUEST).write_bytes(msgspec.json.encode(request))
        main(Path(name), [0])
        return json.loads((Path(name) / TOLD).read_bytes().splitlines()[-1])["row"]


def refused_answers(session: Any, rows: Any, wanted: Any) -> str:
    """What is said of a session that answers otherwise than in its trial."""
    row = Row("fp32", "webgpu", 1)
    opened = OpenSession(session, WEBGPU, None, "the card")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        write_tensors(files[0], {"pixels": rows})
        write_tensors(files[1], {"probabilities": wanted})
        Choice("digits", "fp32", row=row, inputs=files[0], outputs=files[1]).accept(opened)
        write_tensors(files[1], {"probabilities": wanted[::-1]})
        try:
            Choice("digits", "fp32", row=row, inputs=files[0], outputs=files[1]).accept(opened)
        except ModelError as error:
            return str(error)
    return ""


def guards() -> dict[str, Any]:
    """What a session on a card does with what it can't take, and with two threads at once."""
    session, other = open_digits(), open_digits()
    rows, _ = held_out_digits()
    told: dict[str, Any] = {}
    try:
        session.run(None, {"pixels": rows[:0]})
    except ModelError as error:
        told["empty"] = str(error)
    (wanted,) = session.run(None, {"pixels": rows[:8]})
    apart = []

    def compare(one: Any) -> None:
        for _ in range(ROUNDS):
            (found,) = one.run(None, {"pixels": rows[:8]})
            apart.append(float(np.abs(found - wanted).max()))

    def open_and_close() -> None:
        for _ in range(3):
            compare(open_digits())

    threads = [threading.Thread(target=compare, args=[one]) for one in (session, other)]
    threads.append(threading.Thread(target=open_and_close))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told["runs"], told["apart"] = len(apart), max(apart)
    told["other_answers"] = refused_answers(other, rows[:8], wanted)
    told["claimed_again"] = str(claim_card(load_runtime("digits"), Path("unused")))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            session.run(None, {"pixels": rows[:1]})
        except ModelError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    told["forked"] = os.read(read, 1000).decode()
    return told


if __name__ == "__main__":
    QUESTIONS: dict[str, Callable[..., Any]] = {
        it.__name__: it for it in (devices, load, load_without_extra, try_file, try_unseen, guards)
    }
    print(json.dumps(QUESTIONS[sys.argv[1]](*sys.argv[2:])))
