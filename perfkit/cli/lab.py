"""``perfkit lab``: JupyterLab on a copy of the notebooks, with a cluster ready."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import count_of
from perfkit.cli.report import own_notebooks
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.config import Settings
from perfkit.cli.terminal.output import complain, err, note, out, write_json
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from cluster.local import LocalCluster
    from perfkit.jupyter.lab import LabServer

LOOK_EVERY_S = 0.5
EXAMPLES = (
    ("notebooks, a cluster of two workers, a browser", "perfkit lab"),
    ("on a machine without a screen", "perfkit lab --no-browser --port 8888"),
    ("in this folder, with four optimised workers", "perfkit lab --dir . --workers 4 "
     "--spec optimized"),
    ("JupyterLab alone", "perfkit lab --workers 0"),
    ("with JupyterLab's own options", "perfkit lab -- --ServerApp.base_url=/lab1"),
)  # fmt: skip


def lab(
    jupyter: Annotated[
        list[str] | None,
        typer.Argument(metavar="OPTION", help="Options of jupyter lab, behind a --."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Your copy of the notebooks.  "
            "[dim]\\[default: ~/.local/share/perfkit/notebooks][/dim]",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="JupyterLab's port on this machine; 0 is any free one.  "
            "[dim]\\[default: the first free one from 8888 on][/dim]",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in your browser.")
    ] = True,
    workers: Annotated[
        int | None, opt.setting("Worker processes of the cluster; 0: no cluster.", default=2)
    ] = None,
    model: opt.Models = None,
    repository: opt.Repository = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("URL, pid and endpoint, when ready")] = None,
) -> None:
    """Open JupyterLab on your copy of the notebooks, with a cluster that Client() finds.

    A notebook that you have changed is never overwritten; the others follow this version of
    perfkit. Ctrl-C stops all of it, with the kernels; a second one at once.

    Ends with 0 when it is told to stop or JupyterLab is shut down, with 1 if it can't begin.
    """
    found = opt.settings(
        config, knobs, workers=workers, models=model, repository=repository, spec=spec
    )
    local = _cluster(found)
    where = _folder(folder, port)
    from perfkit.jupyter.lab import LabServer

    def server(endpoint: str) -> LabServer:
        return LabServer(
            where, port=port, browser=browser, endpoint=endpoint, options=jupyter or ()
        )

    _keep(server, local, found, where, as_json)


def _cluster(found: Settings) -> LocalCluster | None:
    """The cluster that the settings ask for, not started yet."""
    from cluster.local import LocalCluster

    chosen = found.cluster_spec()
    opt.find_models(found)
    if not found.worker_count:
        return None
    return LocalCluster(
        found.worker_count,
        chosen,
        capacity=found.capacity,
        handlers=found.handlers,
        models=found.models,
    )


def _folder(named: Path | None, port: int | None) -> Path:
    """The folder with the copy of the notebooks, which are up to date when this returns.

    Raises SettingError, before anything is written, for what would keep JupyterLab from starting.
    """
    from cluster.models.repository.folders import data_folder
    from perfkit.jupyter.copies import copy_notebooks
    from perfkit.jupyter.lab import check_port, missing

    if lacks := missing():
        raise SettingError(f"JupyterLab needs {', '.join(lacks)}: pip install 'perfkit[lab]'")
    originals, folder = own_notebooks(), named or data_folder() / "notebooks"
    _check_folder(folder, originals)
    check_port(port)
    copied = copy_notebooks(originals, folder)
    if copied.fresh:
        note(f"copied to {folder}: {', '.join(copied.fresh)}")
    if copied.kept:
        note(f"kept as you changed them: {', '.join(copied.kept)}")
    if copied.outdated:
        note(f"there are newer originals of {', '.join(copied.outdated)}: rename yours to get them")
    return folder


def _check_folder(folder: Path, originals: list[Path]) -> None:
    """Raise SettingError for a folder that holds the originals or the program itself."""
    import perfkit

    target = folder.resolve()
    for taken in (originals[0].parent.resolve(), Path(perfkit.__file__).parent.resolve()):
        if target == taken or taken in target.parents:
            raise SettingError(
                f"--dir: {folder} belongs to perfkit itself; your notebooks need another folder"
            )
    if target.exists() and not target.is_dir():
        raise SettingError(f"--dir: {folder} is not a folder")


def _keep(
    server: Callable[[str], LabServer],
    local: LocalCluster | None,
    found: Settings,
    folder: Path,
    target: Path | None,
) -> None:
    """Keep JupyterLab and the cluster until a signal, or until it is shut down in the browser."""
    with _two_signals():
        try:
            if local is not None:
                with err().status("starting the cluster …"):
                    local.start()
            endpoint = local.endpoint if local is not None else found.endpoint or ""
            with server(endpoint) as lab_server:
                _announce(lab_server, local, folder, endpoint, target)
                _wait(lab_server, local)
        except KeyboardInterrupt:
            note("stopping …")
        finally:
            if local is not None:
                local.stop()


def _wait(server: LabServer, local: LocalCluster | None) -> None:
    """Until a signal, or JupyterLab's end; raises ClusterError if that was none of the user's."""
    watched, pause = _watch(local), threading.Event()
    try:
        while (code := server.exit_code()) is None:
            next(watched, None)
            pause.wait(LOOK_EVERY_S)
    except KeyboardInterrupt:
        note("stopping JupyterLab and its kernels …")
        return
    if code:
        raise ClusterError(f"JupyterLab ended with code {code}{server.last_words()}")
    note("JupyterLab was shut down")


def _watch(local: LocalCluster | None) -> Iterator[None]:
    """Report at each step which workers have died; a cluster that is gone ends no notebook."""
    if local is None:
        return
    from perfkit.cli.crew import Deaths

    try:
        deaths = Deaths(local.crew)
        while local.coordinator.alive():
            deaths.report()
            yield
        complain(f"the coordinator has died{local.coordinator.last_words()}")
    except ClusterError as error:
        complain(str(error))
    note("the notebooks go on without this cluster")


def _announce(
    server: LabServer, local: LocalCluster | None, folder: Path, endpoint: str, target: Path | None
) -> None:
    if target is not None:
        facts: dict[str, Any] = {"url": server.url, "pid": server.pid, "folder": str(folder)}
        more = {"endpoint": endpoint or None, "log": str(server.log)}
        write_json(facts | more, target, indent=None)
        return
    if local is not None:
        count = len(local.workers)
        workers = count_of(count, "worker")
        cluster = f"{endpoint} (spec {local.spec.name}, {workers}): Client() finds it"
    else:
        cluster = f"{endpoint}: Client() looks there" if endpoint else "none"
    text = Text.assemble(
        ("JupyterLab", "bold green"), " is up:\n",
        (f"  {server.url}\n", "cyan"),
        f"  notebooks  {folder.absolute()}\n  cluster    {cluster}\n",
        "Ctrl-C stops all of it, a second one at once.\n",
        (f"Log: {server.log}", "dim"),
    )  # fmt: skip
    out().print(text)


@contextmanager
def _two_signals() -> Iterator[None]:
    """Turn the first signal to stop into KeyboardInterrupt; any further one kills all that this
    process has started, for which the stopping then need not wait.
    """
    from perfkit.cli.up import STOP_SIGNALS
    from perfkit.jupyter.leftovers import kill, offspring

    def at_once(signum: int, frame: FrameType | None) -> None:
        kill(offspring(os.getpid()))

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, at_once)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
