"""What else uses the machine: measured beside real processes, and told without knowing who."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from perfkit.evidence.disturbance import Disturbance, measure_disturbance

BUSY = "import sys\nprint('busy', flush=True)\nwhile True: pass"


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A busy process that is no descendant of this one."""
    spawn = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {BUSY!r}], start_new_session=True,"
        " stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)"
    )
    told = subprocess.run([sys.executable, "-c", spawn], capture_output=True, text=True, check=True)
    process = psutil.Process(int(told.stdout))
    yield process
    process.kill()


def machine(root: Path, *columns: int) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {' '.join(map(str, columns))}\ncpu0 1 2 3\n")
    return root


def test_a_busy_stranger_is_seen_and_only_its_name_is_told(stranger: psutil.Process) -> None:
    found = measure_disturbance(interval_s=0.5)
    assert (found.others_cores or 0.0) > 0
    assert stranger.name() in found.busiest
    words = found.words(cores=0.1)
    assert words.startswith("The machine is busy: other processes use ")
    for private in (str(stranger.pid), sys.executable, "while True"):
        assert private not in words


def test_own_children_are_no_disturbance() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used_before = psutil.Process(child.pid).cpu_times().user
        found = measure_disturbance(interval_s=0.5)
        used_s = psutil.Process(child.pid).cpu_times().user - used_before
        child.kill()
    whole_s = psutil.cpu_count() * 0.6
    assert used_s > 0
    assert (found.others_cores or 0.0) <= (whole_s - used_s) / 0.5 + 0.1


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    found = measure_disturbance(tmp_path, 0.0)
    facts = (found.others_cores, found.steal, found.frequency_mhz, found.frequency_mhz_max)
    assert facts == (None,) * 4
    assert Disturbance().words(2.0) == Disturbance().words(None, 99.0) == ""
    for broken in ((1, 2), ()):
        assert measure_disturbance(machine(tmp_path, *broken), 0.0).steal is None
    (tmp_path / "proc/stat").write_text("cpu x y\n")
    assert measure_disturbance(tmp_path, 0.0).steal is None


def test_clocks_are_the_mean_of_the_cores(tmp_path: Path) -> None:
    for core, khz in enumerate((1_000_000, 3_000_000)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
        (folder / "cpuinfo_max_freq").write_text("4000000\n")
    found = measure_disturbance(tmp_path, 0.0)
    assert (found.frequency_mhz, found.frequency_mhz_max) == (2_000.0, 4_000.0)


@pytest.mark.parametrize(
    ("disturbance", "load", "words"),
    [
        (Disturbance(others_cores=0.1, steal=0.01), 0.5, ""),
        (Disturbance(), 5.04, "load 5 on 2 cores"),
        (Disturbance(), None, ""),
        (Disturbance(steal=0.123), None, "other guests take 12 % of its time"),
        (
            Disturbance(others_cores=1.31, busiest=("cc1", "chromium")),
            1.6,
            "load 1.6 on 2 cores, other processes use 1.3 of 2 cores (cc1, chromium)",
        ),
    ],
)
def test_a_sentence_names_what_disturbs(
    disturbance: Disturbance, load: float | None, words: str
) -> None:
    whole = f"The machine is busy: {words}. Repeat this when it is quiet." if words else ""
    assert disturbance.words(2.0, load) == whole
