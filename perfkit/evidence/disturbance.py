"""What else uses the machine while something is measured on it.

A figure that was taken beside a compiler run says little, and nobody can see that from the figure.
So a moment before and after measuring shows how much processor time went to others: processes
outside this one's family, and the hypervisor's other guests. Processes are known by name only, not
by command line, user or path.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from perfkit.evidence.text import quantity

#: How long the moment is; the kernel counts processor time in hundredths of a second.
INTERVAL_S = 0.1
#: Above these the machine is busy: others' cores and the load as parts of the cores, and the steal.
OTHERS_PART_MAX, LOAD_PART_MAX, STEAL_MAX = 0.15, 0.5, 0.02
#: A process that uses less of a core is not named, and only the first few are.
NAMED_FROM_CORES, NAMED_MAX = 0.1, 3
#: Columns of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
TICKS, STEAL, NOT_BUSY = 8, 7, (3, 4, 7)


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the machine others used in a moment; unknown values are None.

    `others_cores` is the processor time of processes that are no relatives of this one, in cores.
    `steal` is the part of all processor time, in 0..1, that the hypervisor gave to other guests.
    `busiest` names the processes behind the former that can be seen, most busy first.
    `frequency_mhz` is the mean clock of the cores, `frequency_mhz_max` what they can reach.
    """

    others_cores: float | None = None
    steal: float | None = None
    busiest: tuple[str, ...] = ()
    frequency_mhz: float | None = None
    frequency_mhz_max: float | None = None

    def words(self, cores: float | None, load: float | None = None) -> str:
        """What disturbs a measurement on `cores` cores, as a sentence; "" if nothing does.

        `load` is the load average before measuring began; later it is our own doing.
        """
        told = []
        if cores and load is not None and load > LOAD_PART_MAX * cores:
            told.append(f"load {quantity(round(load, 1))} on {quantity(cores)} cores")
        others = self.others_cores
        if cores and others is not None and others > OTHERS_PART_MAX * cores:
            named = f" ({', '.join(self.busiest)})" if self.busiest else ""
            used = f"{quantity(round(others, 1))} of {quantity(cores)} cores"
            told.append(f"other processes use {used}{named}")
        if self.steal is not None and self.steal > STEAL_MAX:
            told.append(f"other guests take {quantity(round(100 * self.steal), '%')} of its time")
        if not told:
            return ""
        return f"The machine is busy: {', '.join(told)}. Repeat this when it is quiet."


def measure_disturbance(root: Path = Path("/"), interval_s: float = INTERVAL_S) -> Disturbance:
    """What others use now, over `interval_s`; never fails.

    `root` is the folder that holds proc and sys. Formats: proc(5) for /proc/stat, the kernel's
    CPU-frequency guide for scaling_cur_freq and cpuinfo_max_freq, in kHz.
    """
    before, seconds_before, since_s = _ticks(root), _process_seconds(), time.monotonic()
    time.sleep(interval_s)
    after, seconds_after, took_s = _ticks(root), _process_seconds(), time.monotonic() - since_s
    used = {
        process: (seconds - seconds_before[process]) / took_s
        for process, seconds in seconds_after.items()
        if process in seconds_before
    }
    family = _family()
    others: dict[str, float] = {}
    for (pid, name), cores in used.items():
        if pid not in family:
            others[name] = others.get(name, 0.0) + cores
    ranked = sorted(others, key=others.__getitem__, reverse=True)
    own_cores = sum(cores for (pid, _), cores in used.items() if pid in family)
    busy_cores = steal = None
    if len(before) == len(after) == TICKS and sum(after) > sum(before):
        spent = [end - start for start, end in zip(before, after, strict=True)]
        steal = max(0.0, spent[STEAL] / sum(spent))
        busy = sum(spent) - sum(spent[column] for column in NOT_BUSY)
        busy_cores = max(0.0, busy / os.sysconf("SC_CLK_TCK") / took_s - own_cores)
    return Disturbance(
        others_cores=busy_cores,
        steal=steal,
        busiest=tuple(name for name in ranked[:NAMED_MAX] if others[name] >= NAMED_FROM_CORES),
        frequency_mhz=_mean_mhz(root, "scaling_cur_freq"),
        frequency_mhz_max=_mean_mhz(root, "cpuinfo_max_freq"),
    )


def _ticks(root: Path) -> list[int]:
    """The processor time of all cores so far by column of /proc/stat; empty if it can't be read.

    Guests' time is in the first two columns already and left out.
    """
    try:
        name, *columns = (root / "proc/stat").read_text().split("\n", 1)[0].split()
        return [int(column) for column in columns[:TICKS]] if name == "cpu" else []
    except (OSError, ValueError):
        return []


def _process_seconds() -> dict[tuple[int, str], float]:
    """The processor time so far of each process that can be seen."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid, process.name()] = times.user + times.system
    return found


def _family() -> set[int]:
    """This process, the ones that started it, and those that it started."""
    this = psutil.Process()
    family = {this.pid}
    with suppress(psutil.Error):
        family |= {relative.pid for relative in (*this.parents(), *this.children(recursive=True))}
    return family


def _mean_mhz(root: Path, file: str) -> float | None:
    """The mean over all cores of a frequency that the kernel gives in kHz; None without any."""
    found = []
    for path in (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{file}"):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return sum(found) / len(found) / 1e3 if found else None
