"""The machine and software behind a figure.

The fingerprint holds what decides speed (processor, cores available to this process, memory, clock
governor, versions) and what may have disturbed it (load and other processes at the start, a
virtual machine), but nothing that identifies a person or a place: no host name, user or path.
Unknown values are None.
"""

import hashlib
import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

from perfkit.evidence.disturbance import Disturbance, measure_disturbance
from perfkit.evidence.showing import Sheet, Showable, facts
from perfkit.evidence.text import UNKNOWN

#: Distributions whose version can move a figure.
PACKAGES = tuple(
    "perfkit pyzmq msgspec msgpack psutil numpy pandas onnxruntime magika scikit-learn dask "
    "distributed ray".split()
)

#: Fields that must agree for two figures to be comparable, each with a name for people.
MACHINE_FIELDS = {
    "architecture": "processor architecture",
    "cpu_model": "processor",
    "cores_logical": "logical cores",
    "cores_available": "cores this process may use",
    "memory_gib": "memory (GiB)",
    "kernel_major": "kernel",
    "python_minor": "Python",
}

GIT_TIMEOUT_S = 5.0


class Environment(Showable, msgspec.Struct, frozen=True, kw_only=True):
    """The machine and software behind a result; unknown values are None.

    `cores_available` is what affinity and the control group's quota leave (0.5 is half a core);
    `memory_limit_bytes` is the control group's limit, None without one. `virtualisation` is a hint:
    "container", "virtual machine", both joined by " in ", or "none". `packages` maps a distribution
    to its version, None if it is not installed. `git_commit` is None unless this code runs from
    its own checkout. `machine_id` is equal exactly when `machine_differences` finds nothing.
    """

    python: str
    implementation: str
    platform: str
    architecture: str
    kernel: str
    cpu_model: str | None
    cores_physical: int | None
    cores_logical: int | None
    cores_available: float | None
    memory_total_bytes: int | None
    memory_limit_bytes: int | None
    governor: str | None
    load_1min: float | None
    load_5min: float | None
    load_15min: float | None
    virtualisation: str | None
    packages: dict[str, str | None]
    git_commit: str | None
    git_dirty: bool | None
    utc: str
    host_hash: str
    machine_id: str
    disturbance: Disturbance = Disturbance()
    python_build: str | None = None

    @property
    def busy_words(self) -> str:
        """What else used the machine when this was read, as a sentence; "" if nothing did."""
        return self.disturbance.words(self.cores_available, self.load_1min)

    @property
    def memory_gib(self) -> int | None:
        """Total memory in whole GiB: firmware takes a varying bit of it."""
        return None if self.memory_total_bytes is None else round(self.memory_total_bytes / 2**30)

    @property
    def kernel_major(self) -> str:
        """Name and major version of the kernel: "Linux 6"."""
        return f"{self.platform} {self.kernel.partition('.')[0]}"

    @property
    def python_minor(self) -> str:
        """Implementation and minor version: "CPython 3.11"."""
        return f"{self.implementation} {'.'.join(self.python.split('.')[:2])}"

    def _sheets(self) -> Iterator[Sheet]:
        found = {field: getattr(self, field) for field in self.__struct_fields__}
        found["disturbance"] = self.busy_words or "none seen"
        installed = [f"{name} {version}" for name, version in self.packages.items() if version]
        yield facts({**found, "packages": ", ".join(installed)})


def fingerprint(root: Path = Path("/")) -> Environment:
    """This process's environment now; takes a tenth of a second, and never fails.

    `root` is the folder that holds proc and sys. Formats: proc(5), the kernel's cgroup-v1 and
    cgroup-v2 guides, and its CPU-frequency guide (scaling_governor).
    """
    load_1min, load_5min, load_15min = psutil.getloadavg()
    commit, dirty = checkout_state(Path(__file__))
    facts = Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=platform.system(),
        architecture=platform.machine(),
        kernel=platform.release(),
        cpu_model=_cpu_model(root),
        cores_physical=psutil.cpu_count(logical=False),
        cores_logical=psutil.cpu_count(),
        cores_available=_cores_available(root),
        memory_total_bytes=psutil.virtual_memory().total,
        memory_limit_bytes=_memory_limit_bytes(root),
        governor=_governor(root),
        load_1min=load_1min,
        load_5min=load_5min,
        load_15min=load_15min,
        virtualisation=_virtualisation(root),
        packages=_packages(),
        git_commit=commit,
        git_dirty=dirty,
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        host_hash=_hashed("host", platform.node()),
        machine_id="",
        disturbance=measure_disturbance(root),
        python_build=python_build(),
    )
    return msgspec.structs.replace(facts, machine_id=machine_id(facts))


def python_build() -> str | None:
    """How this interpreter was compiled: "GCC 12.2.0, PGO, LTO", or "GCC 12.2.0, plain", which runs
    Python code about a fifth slower; None if it does not tell.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS")
    if not arguments:
        return None
    kinds = [("PGO", "--enable-optimizations"), ("LTO", "--with-lto"), ("debug", "--with-pydebug")]
    found = [kind for kind, option in kinds if option in arguments]
    compiler = " ".join(platform.python_compiler().split()[:2])
    return ", ".join([compiler, *(found or ["plain"])])


def machine_id(environment: Environment) -> str:
    """Twelve hexadecimal digits, equal for environments whose figures are comparable."""
    return _hashed("machine", *(repr(getattr(environment, field)) for field in MACHINE_FIELDS))


def machine_differences(a: Environment, b: Environment) -> list[str]:
    """Why figures of a and b are not comparable, one phrase per reason; empty if they are."""
    found = []
    for field, words in MACHINE_FIELDS.items():
        ours, theirs = (getattr(one, field) for one in (a, b))
        if ours != theirs:
            ours, theirs = (UNKNOWN if value is None else value for value in (ours, theirs))
            found.append(f"{words}: {ours} against {theirs}")
    return found


def checkout_state(file: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that tracks `file`, and whether tracked files differ from it.

    Both are None outside a checkout, for a file that is merely installed below another project's
    checkout, and if git is absent or does not answer.
    """
    tracked = _git(file, "ls-files", "--error-unmatch", "--", file.name) is not None
    commit = _git(file, "rev-parse", "--verify", "HEAD") if tracked else None
    if commit is None:
        return None, None
    changes = _git(file, "status", "--porcelain", "--untracked-files=no")
    return commit.strip(), None if changes is None else bool(changes.strip())


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=file.parent,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _hashed(purpose: str, *facts: str) -> str:
    return hashlib.sha256("\n".join(["perfkit", purpose, *facts]).encode()).hexdigest()[:12]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _cpu_model(root: Path) -> str | None:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        name, _, model = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model") and model.strip():
            return " ".join(model.split())
    return platform.processor() or None


def _cores_available(root: Path) -> float | None:
    affine = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if affine else os.cpu_count()
    bounds = [allowed, *(_quota(folder) for folder in control_groups(root, "cpu"))]
    return min((float(bound) for bound in bounds if bound is not None), default=None)


def _quota(folder: Path) -> float | None:
    """The control group's share of processor time, in cores; None for no limit."""
    words = (_read(folder / "cpu.max") or "").split()
    if not words:
        words = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdigit() for word in words) or words[1] == "0":
        return None  # "max", or −1 in version 1, means no limit
    return int(words[0]) / int(words[1])


def _memory_limit_bytes(root: Path) -> int | None:
    limits = [
        int(text)
        for folder in control_groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name)) is not None and text.isdigit()
    ]
    # Version 1 writes the largest multiple of a page below 2^63 for no limit.
    return min((limit for limit in limits if limit < 2**62), default=None)


def control_groups(root: Path, controller: str) -> list[Path]:
    """The folders of this process's control group and its ancestors, of version 1 or 2, that
    `controller` has in sysfs.
    """
    folders = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = controllers.split(",")
        if controllers and controller not in names:
            continue
        mount = root / "sys/fs/cgroup"
        if controllers:
            mount = next(
                (mount / name for name in (controllers, controller) if (mount / name).is_dir()),
                mount / controller,
            )
        group = mount / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return folders


def _governor(root: Path) -> str | None:
    """The governors in use, joined by a slash; None without any."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return "/".join(sorted({text for file in files if (text := _read(file))})) or None


def _virtualisation(root: Path) -> str | None:
    cpuinfo = _read(root / "proc/cpuinfo")
    if cpuinfo is None:
        return None
    marks = [root / ".dockerenv", root / "run/.containerenv"]
    groups = _read(root / "proc/1/cgroup") or ""
    container = any(mark.exists() for mark in marks) or bool(
        re.search(r"docker|kubepods|containerd|lxc", groups)
    )
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    virtual = flags is not None and "hypervisor" in flags[1].split()
    found = ["container"] * container + ["virtual machine"] * virtual
    if not found:
        # Only on x86 does the absence of the flag mean something.
        return None if flags is None else "none"
    return " in ".join(found)


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _packages() -> dict[str, str | None]:
    found = {**dict.fromkeys((*PACKAGES, "libzmq")), **installed_versions(PACKAGES)}
    with suppress(ImportError):
        import zmq

        found["libzmq"] = zmq.zmq_version()
    return found
