"""Advice from made-up machines and results, and from this machine."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.models.providers.vulkan import SOFTWARE_TYPE, TYPES, VulkanDevice
from cluster.models.repository.manifest import ModelError
from cluster.spec import BASELINE, SocketOptions
from perfkit.bench.tuning import measures, software
from perfkit.bench.tuning.advice import Advice, Checkup, Standing, ranked
from perfkit.bench.tuning.cards import card_advice
from perfkit.bench.tuning.checkup import doctor
from perfkit.bench.tuning.machine import CHECKS
from perfkit.bench.tuning.saved import spec_advice
from perfkit.bench.tuning.software import software_advice
from perfkit.evidence.environment import Environment, fingerprint, machine_id
from perfkit.evidence.results import Result, save
from perfkit.evidence.samples import Interval
from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.optimized.specs import OPTIMIZED

HERE = fingerprint()
CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0"
#: Files of a machine that needs nothing.
WELL: Mapping[str, str] = {
    "proc/stat": "cpu 1 0 1 100 0 0 0 0 0 0\n",
    "proc/cpuinfo": "model name : Quick CPU 9\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 900 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/self/limits": "Max open files            1024            1048576          files\n",
    "proc/self/cgroup": "0::/job\n",
    "proc/sys/net/core/rmem_max": "4194304\n",
    "proc/sys/net/core/wmem_max": "4194304\n",
    "proc/sys/net/core/somaxconn": "4096\n",
    "sys/fs/cgroup/job/cpu.stat": "usage_usec 5\nnr_periods 1000\nnr_throttled 0\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpufreq/boost": "1\n",
    f"{CLOCK}/current_clocksource": "tsc\n",
    f"{CLOCK}/available_clocksource": "tsc hpet acpi_pm\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
}
Machine = Callable[..., dict[str, Advice]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """What the checks say of a machine that is well but for these files; None removes one."""

    def make(files: Mapping[str, str | None] = {}, spec: Any = BASELINE) -> dict[str, Advice]:
        for name, text in {**WELL, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
        environment = fingerprint(tmp_path)
        return {it.name: it for it in (check(tmp_path, environment, spec) for check in CHECKS)}

    return make


@pytest.mark.parametrize(
    ("file", "text", "name", "standing", "do"),
    [
        (f"{CPU}/cpu0/cpufreq/scaling_governor", "powersave", "clock governor", "advice",
         "sudo cpupower frequency-set -g performance"),
        (f"{CPU}/cpufreq/boost", "0", "turbo", "advice", f"echo 1 | sudo tee /{CPU}/cpufreq/boost"),
        (f"{CPU}/intel_pstate/no_turbo", "1", "turbo", "advice",
         f"echo 0 | sudo tee /{CPU}/intel_pstate/no_turbo"),
        ("proc/pressure/memory", "some avg10=7.5 avg60=0 avg300=0 total=9", "waits for memory",
         "fault", "ps aux --sort=-rss"),
        ("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 9 kB\n", "memory", "advice",
         "free memory"),
        ("sys/fs/cgroup/job/cpu.stat", "nr_periods 1000\nnr_throttled 300\n", "cores", "advice",
         "docker update --cpus"),
        ("proc/self/limits", "Max open files  1024  4096  files", "open files", "advice",
         "ulimit -Hn "),
        (f"{CLOCK}/current_clocksource", "hpet", "clock source", "advice",
         f"echo tsc | sudo tee /{CLOCK}/current_clocksource"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise", "transparent huge pages",
         "advice", "echo madvise | sudo tee"),
        ("proc/sys/net/core/somaxconn", "128", "connection backlog", "advice",
         "net.core.somaxconn=4096"),
    ],
)  # fmt: skip
def test_each_trouble_of_a_machine_is_found_with_its_command(
    machine: Machine, file: str, text: str, name: str, standing: str, do: str
) -> None:
    assert machine()[name].standing is Standing.FINE
    found = machine({file: text})[name]
    assert (found.standing, do in found.do) == (standing, True), found
    assert found.why
    assert found.gain is None
    assert found.gain_text.startswith("not measured here: ")


def test_what_can_not_be_read_is_unknown_and_never_fine(machine: Machine) -> None:
    found = machine(dict.fromkeys(WELL))
    unknown = {name for name, it in found.items() if it.standing is Standing.UNKNOWN}
    assert set(found) - unknown == {"cores"}
    assert all(found[name].found is None and found[name].evidence for name in unknown)


def test_buffers_that_the_kernel_would_cut_are_named_for_the_spec_that_asks_for_them(
    machine: Machine,
) -> None:
    spec = msgspec.structs.replace(BASELINE, sockets=SocketOptions(buffer_bytes=8 << 20))
    assert "net.core.wmem_max=8388608" in machine(spec=spec)["socket buffers"].do
    assert machine()["socket buffers"].standing is Standing.FINE


def test_a_debug_build_and_a_tracer_are_faults_and_a_plain_build_has_a_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(build: str | None, **versions: str) -> dict[str, Advice]:
        packages = {**HERE.packages, **versions}
        environment = msgspec.structs.replace(HERE, python_build=build, packages=packages)
        return {it.name: it for it in software_advice(environment)}

    monkeypatch.setattr(software, "SLOWING", ("PERFKIT_SLOWING",))
    monkeypatch.setenv("PERFKIT_SLOWING", "1")
    assert found("GCC 12, debug")["Python build"].standing is Standing.FAULT
    assert found(None)["Python build"].standing is Standing.UNKNOWN
    assert found("GCC 12, PGO, LTO")["Python build"].standing is Standing.FINE
    plain = found("GCC 12, plain")
    assert plain["Python build"].expected == 1.22
    assert "× 1.22 elsewhere, not measured here" in plain["Python build"].gain_text
    assert "unset PERFKIT_SLOWING" in plain["Python switches"].do
    assert plain["known faults"].standing is Standing.FINE
    assert "CVE-2020-15166" in (found("", libzmq="4.3.2")["known faults"].found or "")


def test_extras_that_are_missing_are_named_with_what_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have = software._version
    gone = {"papermill": None, "httptools": None, "msgspec": "0.1"}
    monkeypatch.setattr(software, "_version", lambda name: gone.get(name, have(name)))
    found = {it.name: it for it in software_advice(HERE)}
    assert "papermill" in (found["extras"].found or "")
    assert found["extras"].do == "pip install 'perfkit[serve,lab]'"
    assert (found["packages"].found or "").startswith("msgspec 0.1 (")
    assert found["HTTP parser and loop"].expected == 4.0


def device(name: str, vendor: int = 0x1002, kind: str = "discrete GPU") -> VulkanDevice:
    return VulkanDevice(name, vendor, 0x67DF, kind, None, "driver", False)


def test_a_card_is_looked_at_from_its_driver_to_vulkan(tmp_path: Path) -> None:
    def found(devices: Callable[[], list[VulkanDevice]]) -> dict[str, Advice]:
        return {it.name: it for it in card_advice(tmp_path, devices)}

    def none() -> list[VulkanDevice]:
        raise ModelError("there is no Vulkan loader")

    assert [it.standing for it in found(none).values()] == [Standing.FINE]
    hot = {
        "hwmon/hwmon2/temp1_input": "96000\n",
        "power_dpm_force_performance_level": "low\n",
        "current_link_width": "1\n",
        "max_link_width": "16\n",
    }
    plant(tmp_path / "sys/class/drm", {**POLARIS, **hot})
    rows = found(none)
    key = "0000:0a:00.0"
    assert rows[f"{key}: driver"].standing is Standing.FINE
    assert "echo auto | sudo tee /sys/class/drm/card0" in rows[f"{key}: clocks"].do
    assert rows[f"{key}: health"].standing is Standing.FAULT
    assert rows[f"{key}: lanes"].found == "1 of 16"
    assert rows["render nodes"].found == "none in /dev/dri"
    assert rows["Vulkan"].found == "there is no Vulkan loader"
    assert "mesa-vulkan-drivers" in rows["Vulkan"].do
    node = tmp_path / "dev/dri/renderD128"
    node.parent.mkdir(parents=True)
    node.write_text("")
    old = {"uevent": "DRIVER=radeon\nPCI_ID=1002:67DF\nPCI_SLOT_NAME=0000:0A:00.0\n"}
    plant(tmp_path / "sys/class/drm", old)
    rows = found(lambda: [device("llvmpipe", kind=TYPES[SOFTWARE_TYPE])])
    assert "amdgpu.si_support=1" in rows[f"{key}: driver"].do
    assert rows["render nodes"].found == "renderD128"
    assert rows["Vulkan"].found == "no AMD card among llvmpipe"
    assert found(lambda: [device("RADV POLARIS10")])["Vulkan"].standing is Standing.FINE


def arm(folder: Path, name: str, rates: list[float], environment: Environment = HERE) -> None:
    result = Result(
        experiment="ablation echo", spec=name, engine="zmq", workers=2, tasks=None, value=rates[0],
        unit="tasks/s", low=None, high=None, samples=rates, environment=environment, seed=0,
        parameters={"arm": name}, started_utc="2026-01-01T00:00:00+00:00", series={"per_s": rates},
    )  # fmt: skip
    save(result, folder / f"{name}-{environment.machine_id}.json")


RATES = [100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.0, 100.0]


def test_saved_results_that_took_turns_on_this_machine_rank_other_specs(tmp_path: Path) -> None:
    results = tmp_path / "run" / "results"
    elsewhere = msgspec.structs.replace(HERE, cpu_model="Another")
    elsewhere = msgspec.structs.replace(elsewhere, machine_id=machine_id(elsewhere))
    arm(results, "baseline", RATES)
    arm(results, "optimized", [4 * x for x in RATES])
    arm(results, "runs", [2 * x for x in RATES])
    arm(results, "packed-codec", RATES)
    arm(results, "baseline", RATES, elsewhere)
    arm(results, "zero-copy", [9 * x for x in RATES], elsewhere)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"name": "package"}')
    first, second = spec_advice("baseline", [tmp_path], HERE)
    assert (first.name, second.name) == ("spec optimized", "spec runs")
    assert first.gain is not None
    assert first.gain.value == pytest.approx(4)
    assert first.do == "--spec optimized"
    assert "optimized-" in first.evidence
    (nothing,) = spec_advice("optimized", [tmp_path], HERE)
    assert nothing.standing is Standing.UNKNOWN
    assert "compares optimized with another spec" in nothing.why


@pytest.mark.parametrize(
    ("verdict", "direction", "ratio", "better"),
    [
        ("faster", "higher", 2.0, "b"),
        ("faster", "lower", 0.5, "b"),
        ("slower", "higher", 0.5, "a"),
        ("slower", "lower", 2.0, "a"),
        ("inconclusive", "higher", 2.0, None),
    ],
)
def test_a_saved_comparison_counts_for_its_winner(
    tmp_path: Path, verdict: str, direction: str, ratio: float, better: str | None
) -> None:
    run = msgspec.to_builtins(Result(
        experiment="latency", spec="a", engine="zmq", workers=2, tasks=1, value=1.0, unit="ms",
        low=None, high=None, samples=[1.0], environment=HERE,
    ))  # fmt: skip
    compared = {
        "schema": 1, "a": "a", "b": "b", "experiment": "latency", "unit": "ms", "ratio": ratio,
        "low": ratio * 0.9, "high": ratio * 1.1, "verdict": verdict, "direction": direction,
        "confidence": 0.95, "method": "t", "results": {"A": [run], "B": [run], "C": [run]},
    }  # fmt: skip
    (tmp_path / "compared.json").write_text(json.dumps(compared))
    (found,) = spec_advice("a" if better == "b" else "b", [tmp_path], HERE)
    if better is None:
        assert found.standing is Standing.UNKNOWN
    else:
        assert found.name == f"spec {better}"
        assert found.do.startswith("its knobs are in ")
        assert found.gain is not None
        assert found.gain.value == pytest.approx(2)
        assert found.gain.low < found.gain.value < found.gain.high


def test_faults_come_first_then_measured_gains_then_expected_ones_then_gaps() -> None:
    def row(name: str, standing: Standing, **more: Any) -> Advice:
        return Advice(name, standing, "found", **more)

    small, large = (Interval(x, x * 0.9, x * 1.1, 0.95, "t") for x in (1.2, 3.0))
    found = ranked(
        [
            row("fine", Standing.FINE),
            row("gap", Standing.UNKNOWN),
            row("plain", Standing.ADVICE),
            row("expected", Standing.ADVICE, expected=9.0),
            row("small", Standing.ADVICE, gain=small, evidence="here"),
            row("large", Standing.ADVICE, gain=large, evidence="here"),
            row("fault", Standing.FAULT),
        ],
        HERE,
    )
    names = [it.name for it in found]
    assert names == ["fault", "large", "small", "expected", "plain", "gap", "fine"]
    assert [it.name for it in found.faults] == ["fault"]
    assert str(found).splitlines()[-2:] == ["fine", "fine  found"]
    assert "fine" not in [line.split(" ", 1)[0] for line in found.describe().splitlines()[1:]]
    assert "× 3 (2.7 to 3.3), here" in str(found)
    assert "large: 3 " in found.plot().alt
    frame = found.to_frame()
    assert list(frame["name"]) == names
    assert frame["gain_low"].dropna().tolist() == pytest.approx([2.7, 1.08])


def test_this_machine_is_read_whole_and_the_findings_are_saved_and_shown(tmp_path: Path) -> None:
    found = doctor(results=[tmp_path])
    names = [row.name for row in found]
    assert len(names) == len({*names}) >= len(CHECKS) + 6
    assert isinstance(found, Checkup)
    found.save(tmp_path / "found.json")
    saved = json.loads((tmp_path / "found.json").read_text())
    assert [row["name"] for row in saved["advice"]] == names
    assert saved["environment"]["machine_id"] == HERE.machine_id
    page = found._repr_html_()
    assert found.headline in page
    assert "<script" not in page
    assert len(page) < 40_000


def test_measured_advice_has_an_interval_and_what_no_time_is_left_for_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measures, "BLOCK_S", 0.01)
    monkeypatch.setattr(measures, "ROUNDS", 4)
    told: list[str] = []
    monkeypatch.setattr(measures, "QUESTIONS", measures.QUESTIONS[-1:])
    spec = msgspec.structs.replace(OPTIMIZED, transport="ipc")  # so that it is not asked
    (pinned,) = measures.measured_advice(spec, told.append)
    assert pinned.name == "pinned cores"
    assert pinned.gain is not None
    assert pinned.gain.low < pinned.gain.value < pinned.gain.high
    assert "measured now in 4 rounds, A/A control " in pinned.evidence
    rows = [*measures.measured_advice(spec, told.append, budget_s=-1)]
    assert [row.standing for row in rows] == [Standing.UNKNOWN]
