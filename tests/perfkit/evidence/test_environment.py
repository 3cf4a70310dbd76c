"""The fingerprint of this machine, and of machines made of a few files."""

import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from perfkit.evidence.environment import (
    Environment,
    checkout_state,
    fingerprint,
    machine_differences,
    machine_id,
    python_build,
)
from perfkit.evidence.tables import LEFT

CPUINFO = "processor : 0\nmodel name\t: Quick  CPU 9\nflags\t\t: fpu sse2\n"

MakeMachine = Callable[[dict[str, str]], Environment]


@pytest.fixture
def machine(tmp_path: Path) -> MakeMachine:
    """A fingerprint of a machine whose /proc and /sys hold these files."""

    def make(files: dict[str, str]) -> Environment:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return fingerprint(root=tmp_path)

    return make


@pytest.fixture(scope="module")
def here() -> Environment:
    return fingerprint()


def altered(environment: Environment, **facts: object) -> Environment:
    changed = msgspec.structs.replace(environment, **facts)
    return msgspec.structs.replace(changed, machine_id=machine_id(changed))


def test_a_fingerprint_describes_this_machine(here: Environment) -> None:
    assert here.python == platform.python_version()
    assert here.cores_logical == os.cpu_count()
    assert here.memory_gib == round(psutil.virtual_memory().total / 2**30)
    assert here.packages["msgspec"] == msgspec.__version__
    assert here.packages["libzmq"]
    assert here.utc.endswith("+00:00")
    assert 0 < here.cores_available <= (here.cores_logical or 0)


@pytest.mark.parametrize(
    ("arguments", "build"),
    [
        ("'--prefix=/home/me' '--enable-shared'", "plain"),
        ("'--enable-optimizations' '--with-lto' 'CC=/home/me/gcc'", "PGO, LTO"),
        ("", None),
    ],
)
def test_the_build_of_the_interpreter_is_named_without_its_paths(
    monkeypatch: pytest.MonkeyPatch, arguments: str, build: str | None
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: arguments)
    monkeypatch.setattr(platform, "python_compiler", lambda: "GCC 12.2.0 20220101")
    assert python_build() == (build and f"GCC 12.2.0, {build}")


def test_a_fingerprint_holds_neither_the_hosts_name_nor_a_path(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = msgspec.json.encode(here).decode()
    assert str(Path.home()) not in text
    assert str(Path(__file__).parents[3]) not in text
    monkeypatch.setattr(platform, "node", lambda: "secret-host-7")
    other = fingerprint()
    assert "secret-host" not in msgspec.json.encode(other).decode()
    assert other.host_hash != here.host_hash
    assert other.machine_id == here.machine_id


def test_facts_not_told_are_unknown(machine: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    bare = machine({})
    assert (bare.cpu_model, bare.governor, bare.virtualisation) == (None, None, None)
    assert (bare.memory_limit_bytes, bare.cores_available) == (None, None)


def test_packages_that_are_not_installed_have_no_version(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.setattr(sys, "path", [])
    assert set(machine({}).packages.values()) == {None}


def test_bare_metal_has_a_model_a_governor_and_no_virtualisation(machine: MakeMachine) -> None:
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/cpu{i}/cpufreq/scaling_governor": "performance\n" for i in range(3)}
    found = machine({"proc/cpuinfo": CPUINFO, **files})
    assert found.cpu_model == "Quick CPU 9"
    assert found.virtualisation == "none"
    assert found.governor == "performance"
    mixed = machine({f"{cpu}/cpu1/cpufreq/scaling_governor": "powersave\n"})
    assert mixed.governor == "performance/powersave"


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({"proc/cpuinfo": CPUINFO.replace("sse2", "sse2 hypervisor")}, "virtual machine"),
        ({"proc/cpuinfo": CPUINFO, ".dockerenv": ""}, "container"),
        ({"proc/cpuinfo": CPUINFO, "proc/1/cgroup": "0::/kubepods/pod1"}, "container"),
        (
            {"proc/cpuinfo": "flags : hypervisor", "run/.containerenv": ""},
            "container in virtual machine",
        ),
        ({"proc/cpuinfo": "Model : Small Board 4"}, None),
    ],
)
def test_signs_of_virtualisation_are_read(
    machine: MakeMachine, files: dict[str, str], hint: str | None
) -> None:
    assert machine(files).virtualisation == hint


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "25000 50000"},
        {
            "proc/self/cgroup": "2:memory:/x\n1:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        {
            "proc/self/cgroup": "1:cpu:/job\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    ],
)
def test_a_quota_of_half_a_core_leaves_half(machine: MakeMachine, files: dict[str, str]) -> None:
    assert machine(files).cores_available == 0.5


@pytest.mark.parametrize("text", ["max 100000", "50000 0", "nonsense", ""])
def test_a_quota_that_says_nothing_limits_nothing(machine: MakeMachine, text: str) -> None:
    free = machine({}).cores_available
    found = machine({"proc/self/cgroup": "0::/\nodd line", "sys/fs/cgroup/cpu.max": text})
    assert found.cores_available == free


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/j", "sys/fs/cgroup/j/memory.max": "1048576\n"}, 1048576),
        ({"proc/self/cgroup": "0::/j", "sys/fs/cgroup/j/memory.max": "max\n"}, None),
        (
            {
                "proc/self/cgroup": "4:memory:/j",
                "sys/fs/cgroup/memory/j/memory.limit_in_bytes": "2097152",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            2097152,
        ),
    ],
)
def test_a_limit_on_memory_is_read(
    machine: MakeMachine, files: dict[str, str], limit: int | None
) -> None:
    assert machine(files).memory_limit_bytes == limit


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"cpu_model": "Slow CPU 1"}, "processor: "),
        ({"cores_available": 0.5}, "cores this process may use: "),
        ({"memory_total_bytes": 2**41}, "memory (GiB): "),
        ({"memory_total_bytes": None}, "against unknown"),
        ({"kernel": "5.4.0"}, "against Linux 5"),
        ({"python": "3.99.1"}, "3.99"),
    ],
)
def test_another_machine_has_another_id_and_a_reason(
    here: Environment, facts: dict[str, object], words: str
) -> None:
    here = altered(here, platform="Linux", cpu_model="Quick CPU 9", kernel="6.1.0-x")
    other = altered(here, **facts)
    assert other.machine_id != here.machine_id
    (reason,) = machine_differences(here, other)
    assert words in reason


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"kernel": "6.1.9-y"},
        {"governor": "powersave"},
        {"packages": {"pyzmq": "26.0"}},
        {"memory_total_bytes": 16 * 2**30 - 200 * 2**20},  # firmware takes a varying bit
    ],
)
def test_lesser_differences_leave_it_the_same(here: Environment, facts: dict[str, object]) -> None:
    here = altered(here, kernel="6.1.0-x", governor="performance", memory_total_bytes=16 * 2**30)
    other = altered(here, **facts)
    assert other.machine_id == here.machine_id
    assert machine_differences(here, other) == []


def test_a_notebook_shows_the_environment(here: Environment) -> None:
    html = altered(here, governor=None)._repr_html_()
    assert f"<th>governor</th><td{LEFT}>unknown</td>" in html
    assert f"msgspec {msgspec.__version__}" in html


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tracked file in a checkout with one commit."""
    file = tmp_path / "tracked.py"
    file.write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "tracked.py")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    git(tmp_path, *author, "commit", "--quiet", "--no-gpg-sign", "--no-verify", "-m", "one")
    return file


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_checkout_has_a_commit_and_is_dirty_after_a_change(checkout: Path) -> None:
    commit = git(checkout.parent, "rev-parse", "HEAD").strip()
    assert checkout_state(checkout) == (commit, False)
    (checkout.parent / "notes.txt").write_text("untracked files are no change")
    assert checkout_state(checkout) == (commit, False)
    checkout.write_text("2\n")
    assert checkout_state(checkout) == (commit, True)


def test_a_package_installed_below_someone_elses_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout.parent / "lib" / "environment.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert checkout_state(installed) == (None, None)


def test_a_checkout_before_its_first_commit_has_none(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "new.py")
    assert checkout_state(tmp_path / "new.py") == (None, None)


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout_state(checkout) == (None, None)
