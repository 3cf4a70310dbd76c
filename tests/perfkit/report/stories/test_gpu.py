"""The notebook of cards: a stand-in never passes for a card of this machine."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import connect

import pytest

from perfkit.bench.experiments.watched import CardSource, Origin, TaskBlock, Watched, WatchedCard
from perfkit.bench.goals.gpu import GOALS
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.evidence.results import Result
from perfkit.gpu.device.schema import GpuSample, PowerKind
from perfkit.gpu.rocprof import RocprofError
from perfkit.gpu.sampler import Series
from perfkit.report.engine import headlines
from perfkit.report.stories import gpu
from tests.perfkit.machine import HERE

GOALS_TABLE = GoalTable(
    tuple(make_row(goal, {"fast_sample": {"optimized": [5.0] * 4}}) for goal in GOALS),
    HERE, "quick", 0, "", 1.0,
)  # fmt: skip
MISSING = "no AMD card below /sys/class/drm"
SECONDS = [float(at) for at in range(5)]
VALUES: Mapping[str, list[float | None]] = {
    "gpu_busy_pct": [10, 90, None, 95, 20],
    "mem_busy_pct": [None] * 5,
    "vram_used_bytes": [2**30] * 5,
    "power_w": [40, 80, 80, 80, 40],
    "temp_edge_c": [50, 60, 61, 62, 60],
    "temp_junction_c": [None] * 5,
    "temp_memory_c": [None] * 5,
}
SERIES: Mapping[str, Series] = {
    name: list(zip(SECONDS, values, strict=True)) for name, values in VALUES.items()
}
CARD = WatchedCard(
    GpuSample(card="card0", pci="0000:0a:00.0", power_w=40.0, power_kind=PowerKind.AVERAGE), SERIES
)
BLOCKS = tuple(TaskBlock(at, at + 1.0, 1_000) for at in SECONDS[:4])


def ran(
    origin: Origin = Origin.MACHINE,
    *,
    card: WatchedCard = CARD,
    provider: str = "CPUExecutionProvider",
) -> Watched:
    result = Result(
        experiment="gpu-run", spec="optimized", engine="zmq", workers=1, tasks=4_000,
        value=1_000.0, unit="tasks/s", low=990.0, high=1_010.0, samples=[1_000.0] * 4,
        environment=GOALS_TABLE.environment,
        parameters={"model": "digits", "provider": provider},
    )  # fmt: skip
    missing = "" if origin in (Origin.MACHINE, Origin.GIVEN) else MISSING
    return Watched(CardSource(origin, Path("/a/tree"), missing), (card,), BLOCKS, result)


@pytest.mark.parametrize(
    ("origin", "label", "flat"),
    [
        (Origin.MACHINE, "a card of this machine", False),
        (Origin.GIVEN, "a card of the folder that was given", False),
        (Origin.RECORDED, "a recorded card, not of this run", True),
        (Origin.MADE_UP, "a made-up card", True),
    ],
)
def test_every_figure_of_a_card_says_whose_it_is(origin: Origin, label: str, flat: bool) -> None:
    watched = ran(origin)
    picture = gpu.picture(watched, CARD)
    assert label in picture.alt
    assert label in picture.caption
    assert (gpu.FLAT in picture.caption) == flat
    assert ("busy" not in picture.alt) == flat
    assert "throughput: 1,000" in picture.alt
    assert label in gpu.cards(watched)._repr_html_()
    assert label in gpu.energy(watched)._repr_html_()
    assert ("No energy was measured here" in gpu.energy(watched)._repr_html_()) == (
        origin is not Origin.MACHINE
    )


def test_a_machine_without_a_card_says_so_and_why_the_lines_are_flat() -> None:
    recorded = gpu.cards(ran(Origin.RECORDED))._repr_html_()
    assert f"This machine has none to show: {MISSING}." in recorded
    assert "a recorded card is shown, from tree" in recorded
    assert gpu.FLAT in recorded
    assert "/a/tree" not in recorded
    assert "no card ever had these figures" in gpu.cards(ran(Origin.MADE_UP))._repr_html_()
    assert "none to show" not in gpu.cards(ran())._repr_html_()


def test_tasks_that_ran_on_the_processor_are_not_credited_to_a_card() -> None:
    assert "no card ran them" in gpu.source_words(ran()).sentences[-1]
    on_card = gpu.source_words(ran(provider="ROCMExecutionProvider")).sentences[-1]
    assert on_card == "The tasks ran on ROCMExecutionProvider."


def test_the_picture_has_each_known_series_over_the_throughput() -> None:
    alt = gpu.pictures(ran()).plot().alt
    assert "core: 10 to 95 %, 1 unknown. memory controller: unknown." in alt
    assert "used: 1,024 to 1,024 MiB." in alt
    assert "temperature. edge: 50 to 62 °C. tasks. throughput: 1,000 to 1,000 1/s." in alt


def test_a_card_without_a_thermometer_has_a_gap_for_it() -> None:
    cold = replace(CARD, series={**SERIES, "temp_edge_c": SERIES["temp_junction_c"]})
    assert "temperature. edge: unknown." in gpu.picture(ran(), cold).alt
    assert "temperature unknown;" in gpu.verdict(ran(card=cold), GOALS_TABLE).sentences[1]


def test_energy_per_task_follows_from_power_over_each_block() -> None:
    assert ran().energy_mj_per_task(CARD).value == pytest.approx(70.0)  # 60, 80, 80, 60 J
    shown = gpu.energy(ran())._repr_html_()
    assert "40 to 80 W (average)" in shown
    assert "70 mJ" in shown


def test_energy_is_unknown_when_one_power_is() -> None:
    broken = [(at, None if at == 2 else 80.0) for at in SECONDS]
    card = replace(CARD, series={**SERIES, "power_w": broken})
    shown = gpu.energy(ran(card=card))._repr_html_()
    assert "80 W, 1 of 5 samples unknown" in shown
    assert "<td>unknown</td>" in shown


@pytest.mark.parametrize("origin", list(Origin))
def test_only_a_card_of_this_machine_makes_a_headline(origin: Origin, tmp_path: Path) -> None:
    gpu.record(tmp_path, ran(origin), GOALS_TABLE)
    found = {h.title: h for h in headlines.load(tmp_path)}
    assert {f"Goal: {goal.name}" for goal in GOALS} < found.keys()
    assert found["Task throughput, cards watched"].value == 1_000.0
    if origin is Origin.MACHINE:
        assert found["Energy per task, 0000:0a:00.0"].value == pytest.approx(70.0)
    else:
        assert found["Energy per task"].value is None
        assert found["Energy per task"].note.startswith("not measured: ")


def test_the_verdict_has_figures_of_this_machines_card_only() -> None:
    own, goals = gpu.verdict(ran(), GOALS_TABLE).sentences[1:3]
    assert own.startswith(
        "0000:0a:00.0: busy 10 to 95 %, 1 of 5 samples unknown, VRAM 1,024 MiB, power 40 to 80 W, "
        "temperature 50 to 62 °C"
    )
    assert goals.startswith("Of 4 goals 1 are met")
    stand_in = gpu.verdict(ran(Origin.RECORDED), GOALS_TABLE).sentences[1]
    assert stand_in == ("No card was measured: this page shows a recorded card, not of this run.")


TIMED = "Index,KernelName,BeginNs,EndNs\n0,copy<float>(int),1000,2000\n1,fill,2000,6000\n"
COUNTED = (
    "Index,KernelName,BeginNs,EndNs,TCC_EA_RDREQ_sum,TCC_EA_RDREQ_32B_sum,TCC_EA_WRREQ_sum,"
    "TCC_EA_WRREQ_64B_sum\n0,copy<float>(int),1000,2000,1000,0,1000,1000\n"
)


def test_without_a_profile_the_page_says_how_to_give_one() -> None:
    shown = gpu.kernels("", None)._repr_html_()
    assert "No rocprof file was given" in shown
    assert "-p rocprof=FILE" in shown


def test_several_profiles_are_shown_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TIMED)
    (tmp_path / "b, of another run.csv").write_text(
        TIMED.replace("fill", "copy").replace(",1", ",7")
    )
    one = gpu.kernels(tmp_path / "b, of another run.csv", None)._repr_html_()
    assert "2 dispatches of 2 kernels" in one
    (tmp_path / "b.csv").write_text(TIMED.replace("1000", "1001").replace("2000", "2001"))
    both = gpu.kernels(f"{tmp_path / 'a.csv'}, {tmp_path / 'b.csv'}", None)._repr_html_()
    assert "4 dispatches of 2 kernels" in both


def test_a_database_without_kernels_says_so(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "results.db")) as database:
        database.execute("CREATE TABLE rocpd_kernel_dispatch_1 (id, start, end)")
    shown = gpu.kernels(tmp_path / "results.db", None)._repr_html_()
    assert "there is no kernel in it" in shown
    assert "0 dispatches of 0 kernels" in shown


def kernels_of(folder: Path, profile: str, peak_gb_per_s: float | None) -> str:
    file = folder / "results.csv"
    file.write_text(profile)
    return gpu.kernels(file, peak_gb_per_s)._repr_html_()


def test_kernels_have_their_bandwidth_beside_the_cards_peak(tmp_path: Path) -> None:
    shown = kernels_of(tmp_path, COUNTED, 256.0)
    assert "copy: 128 GB/s, the card&#x27;s peak 256 GB/s." in shown
    assert "50 %" in shown
    assert "None of it is from this run" in shown
    assert "peak is unknown" not in shown
    assert "give it in GB/s with -p peak_gb_per_s=256" in kernels_of(tmp_path, COUNTED, None)


def test_kernels_without_counters_have_no_picture_and_say_so(tmp_path: Path) -> None:
    shown = kernels_of(tmp_path, TIMED, 256.0)
    assert "Bandwidth is unknown" in shown
    assert "fill" in shown
    assert "<svg" not in shown


def test_a_file_that_is_no_profile_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello\n")
    with pytest.raises(RocprofError, match=r"notes\.txt.*not written by rocprof"):
        gpu.kernels(file, None)
