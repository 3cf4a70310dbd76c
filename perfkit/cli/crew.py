"""Workers of this machine on the command line: what they print, who has died, who is back."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Console
from rich.text import Text

from cluster.scratch import ScratchFolder
from cluster.spec import ClusterSpec
from cluster.supervision.crew import Crew, host_options
from cluster.supervision.output import open_log
from cluster.transport.questions import learn_spec
from cluster.vocabulary.cards import CARD, card_environment
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import count_of
from perfkit.cli.terminal.output import complain, err, note, write_json

Level: TypeAlias = Literal["info", "warning", "off"]
LOOK_EVERY_S = 0.5
#: how long workers may go on with what they have started
FINISH_S = 86_400.0


def find_log(chosen: Path | None) -> Path:
    """The file for the workers' output, by default in the user's folder for state; raises
    ClusterError if it can't be written.
    """
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    log = (chosen or Path(state) / "perfkit" / "workers.log").absolute()
    try:
        open_log(log).close()
    except OSError as error:
        raise ClusterError(f"cannot write the workers' output to {log}: {error.strerror}; "
                           "choose another file by --log-file") from None  # fmt: skip
    return log


def print_output(crew: Crew, console: Console) -> None:
    """Print the lines of the workers' output as they come."""

    def print_lines() -> None:
        for line in crew.output or ():
            console.print(Text(line.decode(errors="replace").rstrip("\n"), "dim"))

    threading.Thread(target=print_lines, name="output", daemon=True).start()


class Deaths:
    """Tells once of each worker that has died, and of each that was started again."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._known = {worker.role: worker for worker in crew.workers()}
        self._told: set[int] = set()
        self._trouble = ""

    def report(self) -> None:
        """Print what has changed; raises ClusterError if the supervisor has died."""
        if not self._crew.alive():
            raise ClusterError(f"the workers' supervisor has died (pid {self._crew.pid}), and its "
                               f"workers with it{self._crew.last_words()}")  # fmt: skip
        newest = {worker.role: worker for worker in self._crew.workers()}
        ended = [w for w in self._known.values() if w.pid not in self._told and not w.alive()]
        for count, worker in enumerate(ended, 1):
            self._told.add(worker.pid)
            how = "has died" if self._crew.exit_code(worker) else "has left"
            left = len(self._known) - count
            complain(
                f"{worker.role} (pid {worker.pid}) {how}; {left} of "
                f"{count_of(len(self._known), 'worker')} left{worker.last_words()}"
            )
        for worker in newest.values():
            if self._known[worker.role] is not worker:
                note(f"{worker.role} is started again (pid {worker.pid}); "
                     f"{count_of(self._crew.restarts, 'restart')} so far")  # fmt: skip
        self._known = newest
        if self._crew.trouble != self._trouble:
            self._trouble = self._crew.trouble
            complain(self._trouble)


def run_workers(
    count: int,
    endpoint: str,
    spec: ClusterSpec | None,
    options: Sequence[str],
    log: Path,
    show: Level,
    cards: Sequence[str] = (),
) -> None:
    """Keep `count` workers until KeyboardInterrupt, then let them finish what they have started.
    Each that a coordinator has welcomed is a line of JSON: its name and pid. Without a `spec` they
    adopt the coordinator's. The first of them are bound to `cards`, by PCI address.

    Raises:
        ClusterError: a worker did not start, or the supervisor died.
    """
    names = [f"{os.uname().nodename}-{os.getpid()}-{number}" for number in range(count)]
    with ScratchFolder("cluster-") as folder:
        spec = spec or learn_spec(endpoint, None)
        flags = host_options(spec, options, log, show)
        crew = Crew(flags, Path(folder), shows_output=show != "off")
        try:
            own = {name: card_environment(card) for name, card in zip(names, cards, strict=False)}
            crew.tell(endpoint=endpoint, start=names, environments=own)
            print_output(crew, err())
            for name in names:
                worker = crew.ready(name, math.inf)
                facts = {"pid": worker.pid, "worker": name}
                if name in own:
                    facts["card"] = own[name][CARD]
                write_json(facts, indent=None)
            deaths, pause = Deaths(crew), threading.Event()
            while True:
                deaths.report()
                pause.wait(LOOK_EVERY_S)
        except KeyboardInterrupt:
            note("stopping the workers …")
        finally:
            crew.stop(time.monotonic() + FINISH_S)
