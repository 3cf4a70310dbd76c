"""The machine in a line, as every command that measures prints it."""

import msgspec

from perfkit.cli.terminal.measuring import machine_text
from perfkit.evidence.disturbance import Disturbance
from tests.perfkit.machine import HERE


def test_a_busy_machine_is_said_and_a_quiet_one_is_not() -> None:
    facts = {"cpu_model": "Quick CPU", "cores_available": 2.0, "load_1min": 0.1}
    quiet = msgspec.structs.replace(HERE, **facts, disturbance=Disturbance())
    assert machine_text(quiet).startswith("Quick CPU, 2 cores, ")
    assert machine_text(quiet).endswith("load 0.1 at the start")
    busy = msgspec.structs.replace(quiet, disturbance=Disturbance(others_cores=1.5))
    assert machine_text(busy) == (
        f"{machine_text(quiet)}. The machine is busy: other processes use 1.5 of 2 cores. "
        "Repeat this when it is quiet."
    )
