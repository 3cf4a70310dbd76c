"""``perfkit serve``: models behind an HTTP API that existing clients speak.

The API is a process of its own beside the cluster, started again if it dies.
"""

from __future__ import annotations

import json
import os
import threading
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cluster.scratch import ScratchFolder
from cluster.vocabulary.cards import card_environment
from cluster.vocabulary.errors import ClusterError
from perfkit.cli.cluster import cards_for, gpu_probe
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.command import Subgroup, add_command, examples, prose
from perfkit.cli.terminal.config import Settings, user_file
from perfkit.cli.terminal.output import complain, err, errors_as_lines, note, out, write_json
from perfkit.optimized.knobs import SettingError, build_spec

if TYPE_CHECKING:
    from cluster.local import LocalCluster

LOOK_EVERY_S = 0.5
#: what makes the API's backend, if that is not a client of a cluster
LOCAL = "cluster.serve.backends.local:make_backend"
ANOTHER = "perfkit.engines.backend:make_backend"
#: a task carries half of a message: a request's whole body, and a little more for its header
MESSAGE_BYTES = (64 << 20) + (1 << 20)
#: A run of a model ends, so it may outlast a client's patience: the next ones need not load anew.
OVERRUN_S = 30.0
NEEDS = ("starlette", "uvicorn", "httptools", "uvloop")


class EngineName(StrEnum):
    """What runs the tasks."""

    ZMQ = "zmq"
    LOCAL = "local"
    DASK = "dask"
    RAY = "ray"


class RoleName(StrEnum):
    """What a token allows; each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


TokenFile = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE", help="Who may ask; see `perfkit serve token`."),
]

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="rich",
    epilog=examples(
        ("a model, with as many workers as pay, at http://127.0.0.1:8000",
         "perfkit serve --model digits"),
        ("a cluster that runs already", "perfkit serve --endpoint tcp://10.0.0.5:5577"),
        ("on this machine's AMD cards, without ROCm", "perfkit serve --model minilm --gpu"),
        ("in the API's own process, without a coordinator",
         "perfkit serve --model digits --engine local"),
        ("a Dask cluster that exists",
         "perfkit serve --model digits --engine dask --address tcp://10.0.0.7:8786"),
        ("a Ray cluster that exists",
         "perfkit serve --model digits --engine ray --address 10.0.0.8:6379"),
        ("for other machines: a token first …",
         "perfkit serve token laptop --role submit --tokens tokens"),
        ("… then", "perfkit serve --model digits --host 0.0.0.0 --tokens tokens"),
        ("ask", "curl http://127.0.0.1:8000/v2/models/digits"),
    ),
)  # fmt: skip


def serve(
    context: typer.Context,
    model: opt.Models = None,
    repository: opt.Repository = None,
    workers: Annotated[
        int | None, opt.setting("How many worker processes.", default="as measured")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="ENDPOINT", help="Serve the cluster there instead of a new one."),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="What runs the tasks: this cluster, or something else.")
    ] = EngineName.ZMQ,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where that engine runs already: tcp://… or tls://… of Dask, HOST:PORT or "
            "ray://… of Ray.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where the API listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Its port; 0 is any free one.")
    ] = 8000,
    tokens: TokenFile = None,
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS: the certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS: its key.")] = None,
    rate: Annotated[
        float,
        typer.Option(min=0.0, max=1e9, help="Requests a second of a client; 0 sets no bound."),
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Seconds for a request that names no timeout.")
    ] = 60.0,
    capacity: opt.Capacity = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="A worker for each of this machine's AMD cards.")
    ] = False,
    spec: Annotated[
        str | None, opt.setting(opt.SPEC_HELP, metavar="NAME|FILE", default="optimized")
    ] = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("The URL and pids, when ready")] = None,
) -> None:
    """Serve models over HTTP until Ctrl-C, to clients of Triton, KServe and OpenAI.

    Without --endpoint a cluster is started on this machine, and the API beside it. The API listens
    on this machine alone unless --host says otherwise, which takes --tokens. With --gpu each card
    has a worker, and models run on it that are faster there.

    Ends with 0 when it is told to stop, with 1 if the cluster dies or the API can't begin.
    """
    if context.invoked_subcommand is not None:
        return
    with errors_as_lines():
        found = opt.settings(
            config, knobs, workers=workers, models=model, repository=repository,
            endpoint=endpoint, capacity=capacity, spec=spec,
        )  # fmt: skip
        _check(context, found, engine, address, gpu=gpu)
        flags = _api_flags(host, port, tokens, cert, key)
        flags += ["--rate", str(rate), "--timeout", str(timeout)]
        facts, local = _target(found, engine, address or found.endpoint, flags, gpu=gpu)
        _keep(flags, facts, local, as_json)


app.callback(cls=Subgroup, help=prose(serve))(serve)


def token(
    name: Annotated[str, typer.Argument(help="Who it is for; one of a kind in the file.")],
    role: Annotated[
        RoleName, typer.Option(help="What it allows: to look, to ask models, or everything.")
    ] = RoleName.SUBMIT,
    tokens: TokenFile = None,
) -> None:
    """Make a token and print it, once: the file keeps only its SHA-256.

    A token is revoked by removing its line; a running server notices within a second.
    """
    from cluster.serve.http.tokens import Role, make_token

    path = tokens
    if path is None:
        own = user_file(os.environ)
        if own is None:
            raise SettingError("there is no home folder: name a file by --tokens")
        path = own.parent / "tokens"
    secret = make_token(path, name, Role[role.name])
    note(f"{path} knows it from now on; send it as 'Authorization: Bearer …'")
    print(secret)


add_command(
    app, "token", token,
    ("for a program that asks models", "perfkit serve token laptop --role submit --tokens tokens"),
    ("for Prometheus", "perfkit serve token prometheus --role read --tokens tokens"),
)  # fmt: skip


def _check(
    context: typer.Context, found: Settings, engine: EngineName, address: str | None, *, gpu: bool
) -> None:
    """Raise SettingError for options that don't go together, or packages that are missing."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise SettingError(
            f"the API needs {', '.join(missing)}: pip install 'perfkit[serve]' brings it"
        )
    if engine is not EngineName.ZMQ:
        opt.refuse(
            context, "endpoint capacity gpu spec knobs", f"is not for --engine {engine.value}"
        )
        if not found.models:
            raise SettingError(f"--engine {engine.value}: name the models to serve by --model")
        if not found.worker_count:
            raise SettingError(f"--workers: --engine {engine.value} takes 1 or more")
        if engine is EngineName.LOCAL:
            opt.refuse(context, "address", "is not for --engine local, which starts here")
    elif (at := address or found.endpoint) is not None:
        opt.refuse(
            context, "model workers capacity gpu",
            f"is for a new cluster; the one at {at} has workers and models of its own",
        )  # fmt: skip
    opt.find_models(found)


def _target(
    found: Settings, engine: EngineName, address: str | None, flags: list[str], *, gpu: bool
) -> tuple[dict[str, Any], LocalCluster | None]:
    """What the API is before: facts of it to show, and the cluster if it is to be started. The
    flags get what the API must know of it.
    """
    from cluster.local import LocalCluster
    from cluster.spec import encode_spec

    facts: dict[str, Any] = {"engine": engine.value, "models": found.models}
    if engine is not EngineName.ZMQ:
        made = {**facts, "workers": found.worker_count, "address": address}
        flags += ["--engine", LOCAL if engine is EngineName.LOCAL else ANOTHER]
        flags += ["--engine-options", json.dumps(made)]
        return facts, None
    if address is not None:
        given = found.peer_spec()
        flags += ["--endpoint", address, *(["--spec", encode_spec(given)] if given else [])]
        return {"engine": engine.value, "endpoint": address}, None
    knobs = {
        "limits.message_bytes": 2 * MESSAGE_BYTES, "limits.overrun_s": OVERRUN_S, **found.set
    }  # fmt: skip
    spec = build_spec(found.spec or "optimized", knobs)
    cards = cards_for(gpu, found.workers)
    workers, threads = found.worker_count, None
    if found.workers is None and cards:
        workers = len(cards)
    elif found.workers is None and found.models:
        workers, threads = _layout(found.models)
    return facts, LocalCluster(
        workers,
        spec,
        capacity=found.capacity,
        handlers=found.handlers,
        models=found.models,
        threads=threads,
        probe=gpu_probe(gpu),
        environments=[card_environment(card) for card in cards],
    )


def _layout(models: list[str]) -> tuple[int, int]:
    """How many workers suit these models on this machine, and how many threads for each run: what
    the model wants that gains most from workers.
    """
    from cluster.models.layout import layout_of

    with err().status("measuring how many workers of how many threads suit the models …"):
        found = max((layout_of(model) for model in models), key=lambda it: it.sessions)
    for way, rate in found.items_per_s.items():
        note(f"{way.replace('x', 'workers x')} threads: {rate:,.0f} items/s")
    return found.sessions, found.threads


def _api_flags(
    host: str, port: int, tokens: Path | None, cert: Path | None, key: Path | None
) -> list[str]:
    """The API process's flags; raises SettingError for what it would refuse."""
    from cluster.serve.http.binding import check_access
    from cluster.serve.http.tokens import Tokens

    certfile, keyfile = (str(file.absolute()) if file else None for file in (cert, key))
    try:
        check_access(host, Tokens(tokens) if tokens else None, certfile, keyfile, note)
    except ClusterError as error:
        raise SettingError(str(error)) from None
    shown = f"[{host}]" if ":" in host else host
    flags = ["--bind", f"{shown}:{port}"]
    flags += ["--tokens", str(tokens.absolute())] if tokens else []
    return flags + (["--cert", certfile, "--key", keyfile] if certfile and keyfile else [])


def _keep(
    flags: list[str], facts: dict[str, Any], local: LocalCluster | None, target: Path | None
) -> None:
    """Keep the API until a signal, and the cluster that it is for if that is to be started."""
    from cluster.serve.http.process import ApiProcess
    from cluster.spec import encode_spec
    from perfkit.cli.crew import Deaths
    from perfkit.cli.up import stop_signals

    with ScratchFolder("api-") as folder, stop_signals() as ignore_signals:
        try:
            if local is not None:
                with err().status("starting the cluster …"):
                    local.start()
                flags += ["--endpoint", local.endpoint, "--spec", encode_spec(local.spec)]
                facts["endpoint"] = local.endpoint
            deaths = Deaths(local.crew) if local is not None and local.workers else None
            with ApiProcess(flags, Path(folder)) as api:
                told = {"url": api.url, "pid": api.pid, **facts}
                _announce(told, target, has_tokens="--tokens" in flags)
                pause = threading.Event()
                while True:
                    pause.wait(LOOK_EVERY_S)
                    api.check(complain)
                    if local is not None and not local.coordinator.alive():
                        raise ClusterError("the coordinator has died, so all is stopped"
                                           f"{local.coordinator.last_words()}")  # fmt: skip
                    if deaths is not None:
                        deaths.report()
        except KeyboardInterrupt:
            note("stopping: what is open is finished …")
        finally:
            ignore_signals()
            if local is not None:
                local.stop()


def _announce(facts: dict[str, Any], target: Path | None, *, has_tokens: bool) -> None:
    if target is not None:
        write_json(facts, target, indent=None)
        return
    from cluster.models.inference import model_name

    url, models, endpoint = facts["url"], facts.get("models", []), facts.get("endpoint")
    model = model_name(models[0]) if models else "MODEL"
    curl = "curl -H 'Authorization: Bearer TOKEN'" if has_tokens else "curl"
    text = Text.assemble(
        ("Serving", "bold green"), f" at {url}\n",
        "What is there:\n",
        (f"  {curl} {url}/v2/models\n  {curl} {url}/v2/models/{model}\n", "cyan"),
        "Clients of Triton and KServe ask it at this address, those of OpenAI at "
        f"{url}/v1\n",
        *(("See it work:\n", (f"  perfkit cluster status --endpoint {endpoint}\n", "cyan"))
          if endpoint else ()),
        "Ctrl-C stops it.",
    )  # fmt: skip
    out().print(text)
