"""What processes use of a card, from made-up entries of /proc."""

from pathlib import Path

import pytest

from perfkit.gpu.processes.fdinfo import DrmClient, ProcessUse, look, parse

ONE = (
    "pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:0A:00.0\ndrm-client-id:\t7\n"
    "drm-memory-vram:\t2048 KiB\ndrm-memory-gtt: \t1 MiB\n"
    "drm-engine-gfx:\t1000 ns\ndrm-engine-compute:\t500 ns\ndrm-engine-capacity-gfx:\t2\n"
)


def test_a_descriptor_of_a_card() -> None:
    engine_ns = {"gfx": 1000, "compute": 500}
    assert parse(ONE) == DrmClient("0000:0a:00.0", 7, 2 << 20, 1 << 20, engine_ns)


def test_resident_memory_comes_before_the_older_key() -> None:
    client = parse(ONE + "drm-resident-vram:\t1 MiB\n")
    assert client is not None
    assert client.vram_bytes == 1 << 20


def test_what_was_evicted_or_is_shared_is_told_apart_from_what_is_resident() -> None:
    client = parse(
        ONE + "drm-total-vram:\t3 GiB\ndrm-shared-vram:\t4096\ndrm-resident-vram:\t1 GiB\n"
        "drm-purgeable-vram:\t7 MiB\ndrm-active-vram:\t8 MiB\namd-evicted-vram:\t2097152 KiB\n"
        "amd-requested-vram:\t3 GiB\ndrm-cycles-gfx:\t99\ndrm-maxfreq-gfx:\t5 MHz\n"
    )
    assert client is not None
    assert (client.vram_bytes, client.vram_shared_bytes, client.vram_evicted_bytes) == (
        1 << 30, 4096, 2 << 30
    )  # fmt: skip
    assert client.engine_ns == {"gfx": 1000, "compute": 500}


def test_a_total_alone_does_not_say_what_is_in_the_card() -> None:
    client = parse("drm-driver:\tamdgpu\ndrm-pdev:\t0000:0a:00.0\ndrm-total-vram:\t3 GiB\n")
    assert client is not None
    assert (client.vram_bytes, client.client) == (None, None)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("0", 0), ("4096", 4096), ("5 KiB", 5120), ("5KiB", 5120), ("1 TiB", 1 << 40)],
)
def test_sizes_have_a_unit_or_are_bytes(size: str, expected: int) -> None:
    client = parse(ONE.replace("2048 KiB", size))
    assert client is not None
    assert client.vram_bytes == expected


@pytest.mark.parametrize("address", ["0000:0a:00.0", "0a:00.0"])
def test_kernels_before_5_19_have_keys_of_their_own(address: str) -> None:
    text = (
        f"pdev:\t{address}\npasid:\t32771\nvram mem:\t2048 kB\ngtt mem:\t1024 kB\n"
        "cpu mem:\t0 kB\ngfx0:\t12.5%\n"
    )
    assert parse(text) == DrmClient("0000:0a:00.0", 32771, 2 << 20, 1 << 20, {})


@pytest.mark.parametrize(
    "text", ["", "pos: 0\n", ONE.replace("amdgpu", "i915"), "drm-driver: amdgpu"]
)
def test_another_descriptor_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("size", ["2048 KB", "-1 KiB", "x", "1_0 KiB"])
def test_an_odd_size_is_unknown(size: str) -> None:
    client = parse(ONE.replace("2048 KiB", size))
    assert client is not None
    assert client.vram_bytes is None


def test_a_client_that_several_descriptors_share_counts_once(tmp_path: Path) -> None:
    files = {
        "12/fdinfo/3": ONE,
        "12/fdinfo/4": ONE,
        "12/fdinfo/5": ONE.replace(":\t7", ":\t8"),
        "12/fdinfo/6": "pos:\t0\n",
        "12/comm": "trainer\n",
        "13/fdinfo/3": ONE.replace("drm-client-id:\t7\n", ""),
        "13/fdinfo/4": ONE.replace("drm-client-id:\t7\n", "").replace("2048 KiB", "?"),
        "14/comm": "no descriptors\n",
        "self/comm": "not a number\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    both = {"gfx": 2000, "compute": 1000}
    assert list(look(tmp_path, tmp_path / "no kfd").uses) == [
        ProcessUse(12, "trainer", "0000:0a:00.0", 4 << 20, 2 << 20, both),
        ProcessUse(13, None, "0000:0a:00.0", 2 << 20, 2 << 20, both),
    ]


def test_a_client_that_several_processes_share_counts_once(tmp_path: Path) -> None:
    files = {
        "20/fdinfo/3": ONE,
        "20/fdinfo/4": ONE.replace(":\t7", ":\t8"),
        "3/fdinfo/9": ONE,
        "3/comm": "a\x1b[31m\n",
        "30/fdinfo/3": ONE,
        "31/fdinfo/3": ONE.replace("0000:0A", "0000:0B"),  # another card's client 7
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rows = list(look(tmp_path, tmp_path / "no kfd").uses)
    assert [(use.pid, use.pci, use.vram_bytes, use.shared_with) for use in rows] == [
        (3, "0000:0a:00.0", 2 << 20, (20, 30)),
        (20, "0000:0a:00.0", 2 << 20, ()),
        (31, "0000:0b:00.0", 2 << 20, ()),
    ]
    assert rows[0].name == r"a\u001b[31m"


def test_the_processes_of_this_machine_can_be_read() -> None:
    assert all(use.pid > 0 for use in list(look().uses))
