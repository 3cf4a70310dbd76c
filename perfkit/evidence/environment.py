"""What a figure was measured on, so that two figures can be told apart or set side by side.

A result without its machine is an anecdote. The fingerprint says what decides speed (processor,
cores this process may really use, memory, clock governor, versions) and what may have disturbed it
(load at the start, a virtual machine underneath), and nothing that would identify a person or a
place: no host name, no user, no path. What can't be read is None, not a plausible default.
"""

import hashlib
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

#: Distributions whose version can move a figure.
PACKAGES = (
    *(
        "perfkit",
        "pyzmq",
        "msgspec",
        "msgpack",
        "psutil",
        "numpy",
        "pandas",
        "onnxruntime",
        "magika",
    ),
    *("scikit-learn", "dask", "distributed", "ray"),
)

#: What the two machines must agree in for their figures to be comparable, with a name for people.
MACHINE_FIELDS = {
    "architecture": "processor architecture",
    "cpu_model": "processor",
    "cores_logical": "logical cores",
    "cores_available": "cores this process may use",
    "memory_gib": "memory (GiB)",
    "kernel_major": "kernel",
    "python_minor": "Python",
}

#: What else is worth saying when two results are compared.
OTHER_FIELDS = {
    "cores_physical": "physical cores",
    "memory_limit_bytes": "memory limit (bytes)",
    "implementation": "Python implementation",
    "python": "exact Python version",
    "platform": "platform",
    "kernel": "exact kernel release",
    "governor": "clock governor",
    "virtualisation": "virtualisation",
    "host_hash": "host (hashed)",
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
}

GIT_TIMEOUT_S = 5.0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and software behind a result; unknown is None.

    `cores_available` is what affinity and the control group's quota leave (0.5 is half a core);
    `memory_limit_bytes` is the control group's limit, None without one. `virtualisation` is a hint:
    "container", "virtual machine" or both joined by " in ", "none", or None where nothing tells.
    `packages` maps a distribution to its version, None when it is not installed. `git_commit` is
    None unless this code runs from a checkout of its own. `machine_id` is equal exactly when
    `machine_differences` finds nothing.
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

    @property
    def memory_gib(self) -> int | None:
        """Total memory in GiB to the nearest one: firmware takes a varying bit of it."""
        return None if self.memory_total_bytes is None else round(self.memory_total_bytes / 2**30)

    @property
    def kernel_major(self) -> str:
        """Name and major version of the kernel: "Linux 6"."""
        return f"{self.platform} {self.kernel.partition('.')[0]}"

    @property
    def python_minor(self) -> str:
        """Implementation and minor version: "CPython 3.11"."""
        return f"{self.implementation} {'.'.join(self.python.split('.')[:2])}"

    def _repr_html_(self) -> str:
        rows = []
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, dict):
                value = ", ".join(f"{name} {found}" for name, found in value.items() if found)
            text = "unknown" if value is None else str(value)
            rows.append(f"<tr><th>{escape(field)}</th><td>{escape(text)}</td></tr>")
        return f"<table>{''.join(rows)}</table>"


def fingerprint(root: Path = Path("/")) -> Environment:
    """This process's environment at this moment; takes some milliseconds, and never fails.

    `root` is where /proc and /sys are looked for. Formats: proc(5), the kernel's cgroup-v1 and
    cgroup-v2 guides, and its CPU-frequency guide (scaling_governor).
    """
    loads = _load_averages()
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
        load_1min=loads[0],
        load_5min=loads[1],
        load_15min=loads[2],
        virtualisation=_virtualisation(root),
        packages=_package_versions(),
        git_commit=commit,
        git_dirty=dirty,
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
        host_hash=_hashed("host", platform.node()),
        machine_id="",
    )
    return msgspec.structs.replace(facts, machine_id=machine_id(facts))


def machine_id(environment: Environment) -> str:
    """Twelve hexadecimal digits, equal for environments whose figures are comparable."""
    return _hashed("machine", *(repr(getattr(environment, field)) for field in MACHINE_FIELDS))


def machine_differences(a: Environment, b: Environment) -> list[str]:
    """Why figures of a and b are not comparable, one phrase per reason; empty if they are."""
    return _field_differences(a, b, MACHINE_FIELDS)


def differences(a: Environment, b: Environment) -> list[str]:
    """All that differs between a and b and may matter, in words: machine, software, commit.

    Time and load are left out, for they always differ.
    """
    found = _field_differences(a, b, MACHINE_FIELDS | OTHER_FIELDS)
    for name in sorted(a.packages.keys() | b.packages.keys()):
        ours, theirs = a.packages.get(name), b.packages.get(name)
        if ours != theirs:
            found.append(f"{name}: {ours or 'not installed'} against {theirs or 'not installed'}")
    return found


def checkout_state(file: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that tracks `file`, and whether tracked files differ from it.

    Both are None outside of a checkout, also when the file is merely installed somewhere below
    someone else's, and where git is absent or does not answer.
    """
    if _git(file, "ls-files", "--error-unmatch", "--", file.name) is None:
        return None, None
    commit = _git(file, "rev-parse", "--verify", "HEAD")
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


def _field_differences(a: Environment, b: Environment, fields: dict[str, str]) -> list[str]:
    return [
        f"{words}: {_said(getattr(a, field))} against {_said(getattr(b, field))}"
        for field, words in fields.items()
        if getattr(a, field) != getattr(b, field)
    ]


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def _hashed(purpose: str, *facts: str) -> str:
    return hashlib.sha256("\n".join(["perfkit", purpose, *facts]).encode()).hexdigest()[:12]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _load_averages() -> tuple[float | None, float | None, float | None]:
    try:
        return os.getloadavg()
    except (OSError, AttributeError):  # AttributeError: not on every platform
        return None, None, None


def _cpu_model(root: Path) -> str | None:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        name, _, model = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model") and model.strip():
            return " ".join(model.split())
    return platform.processor() or None


def _cores_available(root: Path) -> float | None:
    if hasattr(os, "sched_getaffinity"):
        allowed: float | None = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count()
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    bounds = [*quotas] if allowed is None else [*quotas, allowed]
    return float(min(bounds)) if bounds else None


def _quota(folder: Path) -> float | None:
    """Cores' worth of time per period that the control group grants; None for no limit."""
    words = (_read(folder / "cpu.max") or "").split()
    if not words:
        parts = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        words = [part for part in parts if part is not None]
    if len(words) != 2 or not all(word.isdigit() for word in words) or words[1] == "0":
        return None  # "max", and −1 in version 1, mean no limit
    return int(words[0]) / int(words[1])


def _memory_limit_bytes(root: Path) -> int | None:
    limits = [
        int(text)
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name)) is not None and text.isdigit()
    ]
    # Version 1 says "no limit" with the largest multiple of a page below 2^63.
    return min((limit for limit in limits if limit < 2**62), default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """The folders of this process's control group and of those around it, in either version."""
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
        inside = mount / path.lstrip("/")
        while inside != mount and mount in inside.parents:
            folders.append(inside)
            inside = inside.parent
        folders.append(mount)
    return folders


def _governor(root: Path) -> str | None:
    """The governor of every core, or those in use joined by a slash; None where there is none."""
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
        # Only x86 has a flag whose absence means something.
        return None if flags is None else "none"
    return " in ".join(found)


def _package_versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {name: _installed(name) for name in PACKAGES}
    found["libzmq"] = _libzmq_version()
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _libzmq_version() -> str | None:
    try:
        import zmq
    except ImportError:
        return None
    return zmq.zmq_version()
