"""ROCm's processes, from made-up folders of /sys/class/kfd/kfd, and how they join fdinfo."""

import os
from pathlib import Path

import pytest

from perfkit.gpu.processes.fdinfo import ProcessUse, look
from perfkit.gpu.processes.kfd import HOST_PIDS, KfdUse, gpu_places, kfd_uses, numbers_as_host

PROPERTIES = "cpu_cores_count 0\nlocation_id {}\ndomain {}\ndrm_render_minor 128\n"
FDINFO = (
    "drm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t{}\n"
    "drm-memory-vram:\t{} MiB\ndrm-engine-gfx:\t5 ns\n"
)


def plant(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def kfd(root: Path, processes: dict[str, object]) -> Path:
    """A processor, a card at 0000:03:00.0, and one at 0001:c3:00.0 in two partitions."""
    nodes = {"0": (0, 0, 0), "1": (11, 0x300, 0), "2": (21, 0xC300, 1)}
    nodes["3"] = (22, 0xC300 | 1 << 28, 1)
    files: dict[str, object] = {}
    for node, (gpu_id, location, domain) in nodes.items():
        files[f"topology/nodes/{node}/gpu_id"] = gpu_id
        files[f"topology/nodes/{node}/properties"] = PROPERTIES.format(location, domain)
    return plant(root, {**files, **{f"proc/{name}": value for name, value in processes.items()}})


def test_cards_are_found_by_the_topology(tmp_path: Path) -> None:
    assert gpu_places(kfd(tmp_path, {})) == {
        11: "0000:03:00.0", 21: "0001:c3:00.0", 22: "0001:c3:00.0"
    }  # fmt: skip


def test_a_partition_numbered_in_the_function_is_its_card(tmp_path: Path) -> None:
    kfd(tmp_path, {})
    plant(tmp_path, {"topology/nodes/3/properties": PROPERTIES.format(0xC301, 1)})
    assert gpu_places(tmp_path)[22] == "0001:c3:00.0"


def test_an_old_kernel_tells_the_place_by_the_render_node(tmp_path: Path) -> None:
    device = plant(tmp_path / "0000:0a:00.0", {"vendor": "0x1002"})
    (tmp_path / "drm/renderD128").mkdir(parents=True)
    (tmp_path / "drm/renderD128/device").symlink_to(device)
    nodes = {"topology/nodes/1/gpu_id": 11, "topology/nodes/2/gpu_id": 12}
    plant(
        tmp_path, {**nodes, "topology/nodes/1/properties": "location_id 768\ndrm_render_minor 128"}
    )
    assert gpu_places(tmp_path, tmp_path / "drm") == {11: "0000:0a:00.0"}


def test_a_process_has_a_row_for_each_card(tmp_path: Path) -> None:
    root = kfd(
        tmp_path,
        {
            "40/vram_11": 1 << 30, "40/sdma_11": 7, "40/stats_11/cu_occupancy": 3,
            "40/vram_21": 5, "40/vram_22": 6, "40/stats_22/evicted_ms": 0, "40/pasid": 32769,
            "41/vram_99": 8, "41/sdma_99": "?", "self/vram_11": 1,
        },
    )  # fmt: skip
    assert kfd_uses(root) == [
        KfdUse(40, "0000:03:00.0", 1 << 30, 7_000, 3),
        KfdUse(40, "0001:c3:00.0", 11, None, None),
        KfdUse(41, "kfd:99", 8, None, None),
    ]
    assert kfd_uses(tmp_path / "nowhere") == []


def test_memory_that_both_tell_of_counts_once(tmp_path: Path) -> None:
    root = kfd(
        tmp_path / "kfd",
        {"40/vram_11": 3 << 20, "40/sdma_11": 7, "41/vram_11": 1 << 20, "42/vram_11": 9},
    )
    proc = plant(
        tmp_path / "proc",
        {
            "40/comm": "train", "40/fdinfo/5": FDINFO.format(1, 2),
            "41/comm": "serve", "41/fdinfo/5": FDINFO.format(2, 4), "42/comm": "third",
        },
    )  # fmt: skip
    card, engine_ns, both = "0000:03:00.0", {"gfx": 5}, "fdinfo, kfd"
    assert list(look(proc, root).uses) == [
        ProcessUse(40, "train", card, 3 << 20, None, engine_ns, sdma_ns=7_000, source=both),
        ProcessUse(41, "serve", card, 4 << 20, None, engine_ns, source=both),
        ProcessUse(42, "third", card, 9, None, {}, source="kfd"),
    ]


def test_a_shared_client_counts_for_the_process_that_rocm_lists(tmp_path: Path) -> None:
    root = kfd(tmp_path / "kfd", {"50/vram_11": 2 << 20})
    text = FDINFO.format(1, 2)
    proc = plant(tmp_path / "proc", {"40/fdinfo/5": text, "50/fdinfo/5": text})
    (use,) = list(look(proc, root).uses)
    assert (use.pid, use.shared_with, use.vram_bytes) == (50, (40,), 2 << 20)


def test_in_a_container_rocms_list_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    root = kfd(tmp_path / "kfd", {"50/vram_11": 2 << 20})
    proc = plant(tmp_path / "proc", {"7/fdinfo/5": FDINFO.format(1, 2), "self/ns/x": ""})
    (proc / "self/ns/pid").symlink_to("pid:[4026532201]")
    seen = look(proc, root)
    assert [use.pid for use in seen.uses] == [7]
    assert "host's process ids" in seen.notes[0]
    (proc / "self/ns/pid").unlink()
    (proc / "self/ns/pid").symlink_to(HOST_PIDS)
    assert numbers_as_host(proc)
    assert [use.pid for use in look(proc, root).uses] == [7, 50]


@pytest.mark.parametrize(("user", "advice"), [(0, ""), (1000, "; root sees more")])
def test_processes_that_can_not_be_looked_into_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, advice: str
) -> None:
    proc = plant(tmp_path, {f"{pid}/fdinfo/5": FDINFO.format(pid, 2) for pid in (7, 8, 9)})
    listdir = os.listdir

    def refuse(folder: Path) -> list[str]:
        if Path(folder).parent.name in ("8", "9"):
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    seen = look(proc, tmp_path / "nowhere")
    assert [use.pid for use in seen.uses] == [7]
    assert seen.notes == (
        f"2 other processes can't be looked into, for lack of permission{advice}",
    )
