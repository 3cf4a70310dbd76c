"""What the kernel says of a machine that decides or disturbs its speed, read below a root folder.

Formats are those of proc(5) and of the kernel's guides to CPU frequency, control groups (cgroup-v1
and cgroup-v2), pressure stall information, transparent huge pages and ip-sysctl. What can't be read
is unknown, which in a container or a virtual machine is common.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cluster.spec import ClusterSpec
from cluster.transport.gate import PER_CLIENT, PER_WORKER, RESERVE
from perfkit.bench.tuning.advice import Advice, Standing
from perfkit.evidence.environment import Environment, control_groups
from perfkit.evidence.text import quantity, size

CPU, CLOCK = "sys/devices/system/cpu", "sys/devices/system/clocksource/clocksource0"
THP = "sys/kernel/mm/transparent_hugepage/enabled"
#: Time sources that cost a system call or a slow register for each look at the clock.
SLOW_CLOCKS = ("hpet", "acpi_pm", "xen", "refined-jiffies", "jiffies", "pit")
#: A group that was throttled in this part of its periods waits noticeably.
THROTTLED_PART = 0.01
#: Tasks that wait for memory or cores for this part of ten seconds, in percent, disturb a figure.
STALLED_PERCENT = {"memory": 1.0, "cpu": 20.0}
#: Less memory than this part of all is close to swapping.
FREE_PART = 0.1
#: Connections that wait to be accepted; the HTTP API asks for twice as many.
BACKLOG = 1024

#: Looks at one thing; the spec is the one whose cluster is to be fast.
Check: TypeAlias = Callable[[Path, Environment, ClusterSpec], Advice]


def read(path: Path) -> str | None:
    """A file's text without the blanks around it; None if it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _unknown(name: str, evidence: str) -> Advice:
    return Advice(name, Standing.UNKNOWN, None, evidence=evidence)


def busy(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Whether others use the machine now."""
    if environment.disturbance.others_cores is None:
        return _unknown("other work", "/proc/stat can't be read")
    words = environment.busy_words
    if not words:
        return Advice("other work", Standing.FINE, "none to speak of")
    return Advice(
        "other work",
        Standing.FAULT,
        words.partition(": ")[2].partition(". ")[0],
        "figures taken beside other work say little about the cluster",
        "wait until it is over, or stop it: top -o %CPU",
        evidence="the same code differed by up to a factor of 2 between busy and quiet runs",
    )


def pressure(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Whether tasks wait for memory now, as pressure stall information has it."""
    text = read(root / "proc/pressure/memory")
    found = re.search(r"^some avg10=([0-9.]+)", text or "", re.MULTILINE)
    if found is None:
        return _unknown("waits for memory", "the kernel has no /proc/pressure/memory")
    percent = float(found[1])
    if percent <= STALLED_PERCENT["memory"]:
        return Advice("waits for memory", Standing.FINE, f"{percent:g} % of the last 10 s")
    return Advice(
        "waits for memory",
        Standing.FAULT,
        f"{percent:g} % of the last 10 s",
        "a task that waits for a page is not slow itself",
        "free memory, or start fewer workers: ps aux --sort=-rss | head",
    )


def memory(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Free memory and swap."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB", read(root / "proc/meminfo") or "", re.MULTILINE))
    if not {"MemTotal", "MemAvailable"} <= table.keys():
        return _unknown("memory", "/proc/meminfo can't be read")
    total, free, swap, unswapped = (
        1024 * int(table.get(name, 0))
        for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    )
    limit = environment.memory_limit_bytes
    found = f"{size(free)} of {size(total)} free, {size(swap - unswapped)} swapped out"
    found += f", a limit of {size(limit)}" if limit is not None else ""
    if free >= FREE_PART * total:
        return Advice("memory", Standing.FINE, found)
    return Advice(
        "memory",
        Standing.ADVICE,
        found,
        "a process whose pages are swapped out answers thousands of times later",
        "free memory or start fewer workers; large models share their weights by default",
        evidence="the kernel swaps before memory is full",
    )


def governor(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """The clock governor."""
    found = environment.governor
    if found is None:
        return _unknown("clock governor", "there is no cpufreq here, as in most virtual machines")
    if found == "performance":
        return Advice("clock governor", Standing.FINE, found)
    return Advice(
        "clock governor",
        Standing.ADVICE,
        found,
        "a core that naps at a low clock answers a lone task late, and figures vary with it",
        "sudo cpupower frequency-set -g performance",
        evidence="the kernel's CPU-frequency guide: other governors raise the clock after the load",
    )


def turbo(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Whether the cores may exceed their base clock."""
    off = {"intel_pstate/no_turbo": "1", "cpufreq/boost": "0"}
    seen = {name: text for name in off if (text := read(root / CPU / name)) is not None}
    if not seen:
        return _unknown("turbo", "the kernel shows no switch for it")
    name, text = next(iter(seen.items()))
    if text != off[name]:
        return Advice("turbo", Standing.FINE, "on; its clock depends on heat, so repeat figures")
    return Advice(
        "turbo",
        Standing.ADVICE,
        "off",
        "the cores stay at their base clock",
        f"echo {1 - int(text)} | sudo tee /{CPU}/{name}",
        evidence="the gain is that of the clock: compare base and boost in lscpu",
    )


def cores(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """The cores that this process may use, and whether its group was throttled."""
    have, all_of = environment.cores_available, environment.cores_logical
    if have is None or all_of is None:
        return _unknown("cores", "neither affinity nor a quota can be read")
    found = f"{quantity(have)} of {quantity(all_of)}"
    part = _throttled_part(root)
    if part is not None and part > THROTTLED_PART:
        return Advice(
            "cores",
            Standing.ADVICE,
            f"{found}; stopped by the quota in {part:.0%} of its periods",
            "a stopped group answers up to a tenth of a second later",
            "raise the quota: docker update --cpus N NAME, or systemctl set-property UNIT "
            "CPUQuota=N00%",
            evidence="cpu.stat counts the periods; what they cost depends on the load",
        )
    if have >= all_of:
        return Advice("cores", Standing.FINE, found)
    return Advice(
        "cores",
        Standing.ADVICE,
        found,
        "a coordinator, each worker and the client take turns on fewer cores than there are",
        "widen the affinity (taskset -p, --cpuset-cpus) or the quota (--cpus)",
        evidence="notebook 02 and `perfkit bench scaling` measure it with more workers",
    )


def _throttled_part(root: Path) -> float | None:
    """The part of its periods in which the group had used up its quota."""
    for folder in control_groups(root, "cpu"):
        found = dict(re.findall(r"^(nr_\w+) (\d+)$", read(folder / "cpu.stat") or "", re.MULTILINE))
        if int(found.get("nr_periods", 0)):
            return int(found["nr_throttled"]) / int(found["nr_periods"])
    return None


def descriptors(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """The most files that a process may open; a coordinator raises its soft limit by itself."""
    found = re.search(r"^Max open files\s+(\w+)\s+(\w+)", read(root / "proc/self/limits") or "",
                      re.MULTILINE)  # fmt: skip
    if found is None:
        return _unknown("open files", "/proc/self/limits can't be read")
    limits = spec.limits
    wanted = limits.clients * PER_CLIENT + limits.workers * PER_WORKER + 3 * RESERVE
    hard = found[2]
    if not hard.isdigit() or int(hard) >= wanted:
        return Advice("open files", Standing.FINE, f"{hard} per process")
    most = max(0, int(hard) - 3 * RESERVE) // PER_CLIENT
    return Advice(
        "open files",
        Standing.ADVICE,
        f"{hard} per process at most",
        f"the coordinator has room for about {most:,} peers; the spec allows "
        f"{limits.clients + limits.workers:,}",
        f"ulimit -Hn {wanted}, or LimitNOFILE={wanted} in the unit, or fewer limits.clients",
        evidence="it costs nothing until peers are refused",
    )


def huge_pages(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Transparent huge pages."""
    found = re.search(r"\[(\w+)\]", read(root / THP) or "")
    if found is None:
        return _unknown("transparent huge pages", "the kernel shows no switch for them")
    if found[1] != "always":
        return Advice("transparent huge pages", Standing.FINE, found[1])
    return Advice(
        "transparent huge pages",
        Standing.ADVICE,
        found[1],
        "memory is taken 2 MiB at a time, so a role's memory grows by what it does not use",
        f"echo madvise | sudo tee /{THP}",
        evidence="the kernel's transhuge guide; it may cost models some speed: measure both",
    )


def clock(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """The clock that every timing reads."""
    found = read(root / CLOCK / "current_clocksource")
    if found is None:
        return _unknown("clock source", "the kernel shows none")
    if found not in SLOW_CLOCKS:
        return Advice("clock source", Standing.FINE, found)
    others = (read(root / CLOCK / "available_clocksource") or "").split()
    fast = next((name for name in others if name not in SLOW_CLOCKS), "tsc")
    return Advice(
        "clock source",
        Standing.ADVICE,
        found,
        "each look at the clock takes a microsecond or more, and a task looks several times",
        f"echo {fast} | sudo tee /{CLOCK}/current_clocksource",
        evidence="vdso(7): only some clocks are read without a system call",
    )


def socket_buffers(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """Whether the kernel grants the buffers that the spec asks for."""
    most = {name: read(root / f"proc/sys/net/core/{name}") for name in ("rmem_max", "wmem_max")}
    granted = [int(text) for text in most.values() if text and text.isdigit()]
    wanted = spec.sockets.buffer_bytes
    if not granted:
        return _unknown("socket buffers", "/proc/sys/net/core can't be read")
    if wanted <= min(granted):
        return Advice("socket buffers", Standing.FINE, f"up to {size(min(granted))}")
    return Advice(
        "socket buffers",
        Standing.ADVICE,
        f"up to {size(min(granted))}, and {spec.name} asks for {size(wanted)}",
        "the kernel cuts a larger buffer to its limit without a word (socket(7))",
        f"sudo sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}",
        evidence="larger buffers gain nothing on loopback; on a network, measure it",
    )


def backlog(root: Path, environment: Environment, spec: ClusterSpec) -> Advice:
    """How many connections may wait to be accepted."""
    text = read(root / "proc/sys/net/core/somaxconn")
    if text is None or not text.isdigit():
        return _unknown("connection backlog", "net.core.somaxconn can't be read")
    if int(text) >= BACKLOG:
        return Advice("connection backlog", Standing.FINE, text)
    return Advice(
        "connection backlog",
        Standing.ADVICE,
        text,
        "of more clients that connect to the HTTP API at once, some wait for a second (listen(2))",
        f"sudo sysctl -w net.core.somaxconn={4 * BACKLOG}",
        evidence="it costs nothing until that many connect at once",
    )


CHECKS: tuple[Check, ...] = (
    busy, pressure, memory, governor, turbo, cores, descriptors, huge_pages, clock, socket_buffers,
    backlog,
)  # fmt: skip
