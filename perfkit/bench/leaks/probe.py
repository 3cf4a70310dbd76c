"""A coordinator that reads itself: ``python -m perfkit.bench.leaks.probe coordinator``.

It serves like any other. On SIGUSR1 it takes a reading between two turns, in the serving thread, so
that every container is consistent, and prints it as a line of JSON.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import ClassVar

import msgspec

from cluster.local import LocalCluster
from cluster.process import announce, run_main
from cluster.protocol.codec import Frame
from cluster.shells.coordinator import ClusterCoordinator
from perfkit.bench.leaks.reading import Reading, take_reading

READING_TIMEOUT_S = 30.0


class ProbedCoordinator(ClusterCoordinator):
    """The coordinator, which prints a reading of its process on SIGUSR1."""

    _asked = False

    def stop_on_signals(self) -> None:
        """Answer SIGUSR1 too."""
        super().stop_on_signals()

        def ask(signum: int, frame: FrameType | None) -> None:
            self._asked = True

        signal.signal(signal.SIGUSR1, ask)

    def turn(
        self, messages: list[list[Frame]], now: float, behind: Callable[[], bool] = bool
    ) -> None:
        """Take a turn, then the reading that was asked for."""
        super().turn(messages, now, behind)
        if self._asked:
            self._asked = False
            announce(reading=msgspec.json.encode(take_reading(self)).decode())


class ProbedCluster(LocalCluster):
    """A cluster whose coordinator tells what its process holds."""

    coordinator_module: ClassVar[str] = "perfkit.bench.leaks.probe"

    def read_coordinator(self) -> Reading:
        """A reading of its process; raises ClusterError with its last output without an answer."""
        os.kill(self.coordinator_pid, signal.SIGUSR1)
        answer = self.coordinator.announcement(time.monotonic() + READING_TIMEOUT_S)
        return msgspec.json.decode(answer["reading"], type=Reading)


if __name__ == "__main__":
    run_main(ProbedCoordinator)
