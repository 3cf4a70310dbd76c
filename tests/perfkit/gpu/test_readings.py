"""The processes that use the cards, as one table for the notebook and the terminal."""

from perfkit.gpu.processes.fdinfo import Processes, ProcessUse
from perfkit.gpu.readings import processes_sheet


def test_the_processes_are_a_table() -> None:
    card = "0000:0a:00.0"
    uses = (
        ProcessUse(12, "trainer", card, 4 << 20, None, {"gfx": 1_500_000_000, "dec": 0},
                   shared_with=(13, 14)),
        ProcessUse(15, None, card, 1 << 30, None, {}, sdma_ns=2_000_000_000, cu_n=36),
        ProcessUse(16, "idle", card, 0, 0, {"gfx": 0}),
        ProcessUse(17, "old", card, 0, 0, {}),
    )  # fmt: skip
    assert list(processes_sheet(Processes(uses)).rows) == [
        (card, "12", "trainer (with 13, 14)", "4.0 MiB", "unknown", "gfx 1.5 s"),
        (card, "15", "unknown", "1.0 GiB", "unknown", "copies 2.0 s, 36 compute units now"),
        (card, "16", "idle", "0 B", "0 B", "none"),
        (card, "17", "old", "0 B", "0 B", "unknown"),
    ]
    assert processes_sheet(Processes(())).text == "No process is seen to use a card."


def test_from_look_to_look_the_engines_have_shares() -> None:
    card = "0000:0a:00.0"
    uses = (
        ProcessUse(12, "trainer", card, 0, 0, {"gfx": 2_000_000_000, "dec": 5}),
        ProcessUse(13, "new", card, 0, 0, {"gfx": 7_000_000_000}),
    )
    before = {(12, card): {"gfx": 1_500_000_000, "dec": 5}}
    shown = processes_sheet(Processes(uses), before, elapsed_ns=2e9)
    assert [row[-1] for row in shown.rows] == ["gfx 25 %", "none"]
