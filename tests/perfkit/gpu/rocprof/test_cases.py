"""Files that were read wrongly once, with what is right (CASES.md, beside the files).

They were made after public reports and are not part of the project.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from perfkit.gpu.rocprof import RocprofError, read
from tests.perfkit.gpu.trees import RECORDINGS

FOLDER = RECORDINGS / "cases"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no cases in {FOLDER}")


class Right(NamedTuple):
    """What is right for a file: every kernel's fields, the transfers, and words of notes."""

    file: str
    kernels: Sequence[dict[str, Any]]
    transfers: Sequence[dict[str, Any]] = ()
    notes: tuple[str, ...] = ()


GEMM = {"name": "gemm(int, float*)", "grid": (1024,), "workgroup": (64,), "duration_ns": 50}
RIGHT = [
    Right(
        "rpc_long_multigpu/pmc_perf.csv",
        [
            {"device": "2", "dispatch": "1", "duration_ns": 2000, "counters": {"SQ_WAVES": 64}},
            {"device": "3", "dispatch": "1", "duration_ns": 2200, "counters": {"SQ_WAVES": 64}},
        ],
    ),
    Right(
        "rocpd_two_nodes/counter_collection.csv",
        [
            {"start_ns": 1000, "duration_ns": 2000, "counters": {"SQ_WAVES": 64}},
            {"start_ns": 1000, "duration_ns": 8000, "counters": {"SQ_WAVES": 64}},
        ],
    ),
    Right(
        "rpc_half_ns/pmc_perf.csv",
        [
            {"start_ns": 1248227792617386, "duration_ns": 21_762, "counters": {"SQ_WAVES": 16384}},
            {"duration_ns": 16_920, "counters": {"SQ_WAVES": 16384}},
        ],
        notes=("fraction of a ns",),
    ),
    Right(
        "v2_rocm60_columns/results_7.csv",
        [{"grid": (4096,), "workgroup": (64,), "counters": {}, "device": "2", "queue": "1"}],
    ),
    Right(
        "v2_hsa_ops_csv/async_copy_trace.csv", [], [{"start_ns": 1000, "duration_ns": 3000}]
    ),
    Right(
        "v2_plugin_v1_short/results_0.csv",
        [GEMM | {"start_ns": start, "counters": {}} for start in (1000, 1100, 1200)],
        notes=("lines 3-5: has no values for columns that rocprofv2 only announces",),
    ),
    Right(
        "v2_plugin_v1_short_one/results_0.csv",
        [GEMM | {"start_ns": 1000}],
        notes=("only announces",),
    ),
    Right(
        "v2_55_lines/o.txt",
        [{"name": "axpy(int, float*)", "start_ns": 1000, "duration_ns": 3000}],
    ),
    Right("name_160k/kernel_trace.csv", [{"name": "k(int)"}, {"start_ns": 300}]),
    Right("gfx11_fetch/counter_collection.csv", [{"fetched_bytes": 129_600}], notes=("gfx10+",)),
    Right("gfx12_fetch/counter_collection.csv", [{"fetched_bytes": 129_600}], notes=("gfx12",)),
    Right(
        "latin1/kernel_trace.csv",
        [{"name": "k�rnel(int)", "start_ns": 10, "duration_ns": 20}],
        notes=("line 2: bytes that are no UTF-8 are shown as �",),
    ),
    Right(
        "json_badbyte/results.json",
        [{"name": "good", "start_ns": 1000, "duration_ns": 2000}],
        notes=("no UTF-8", "to the microsecond"),
    ),
    Right(
        "torch_trace/trace.json",
        [
            {
                "grid": (16, 1, 1), "workgroup": (256, 1, 1), "device": "2", "counters": {},
                "start_ns": 6342158730007, "duration_ns": 4120,
            }
        ],
        [{"direction": "host_to_device", "duration_ns": 2000, "size_bytes": 4096}],
        notes=("in workgroups",),
    ),
    Right("v1_json_lone_comma/results.json", [], notes=("no kernel in it",)),
    Right("rocpd/results.db", [], notes=("no kernel in it",)),
]  # fmt: skip


@pytest.mark.parametrize("right", RIGHT, ids=[right.file.partition("/")[0] for right in RIGHT])
def test_a_file_of_the_cases_is_read_right(right: Right) -> None:
    found = read(FOLDER / right.file)
    for records, wanted in ((found.kernels, right.kernels), (found.transfers, right.transfers)):
        assert len(records) == len(wanted)
        for record, fields in zip(records, wanted, strict=True):
            assert {name: getattr(record, name) for name in fields} == fields
    for words, note in zip(right.notes, found.notes, strict=True):
        assert words in note


def test_a_file_of_another_domain_is_named_for_what_it_is() -> None:
    with pytest.raises(RocprofError, match="a trace of memory allocations, without the kernels"):
        read(FOLDER / "v3_domain_mem_alloc/memory_allocation_trace.csv")


def test_every_profile_among_the_cases_has_its_test() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    profiles = {name for name in folders if name.startswith(("rp", "rocpd", "v1_", "v2_", "v3_"))}
    assert profiles <= {right.file.partition("/")[0] for right in RIGHT} | {"v3_domain_mem_alloc"}


def test_the_database_that_rocprofv3_writes_by_default() -> None:
    found = read(RECORDINGS / "rocprof/rocpd/results.db")
    assert found.notes == ()
    assert [(k.name, k.device, k.duration_ns, dict(k.counters)) for k in found.kernels] == [
        ("add(float*, float*, int)", "1", 4000, {"SQ_WAVES": 16}),
        ("add(float*, float*, int)", "1", 5000, {"SQ_WAVES": 16}),
        ("void reduce<float>(float*, int)", "1", 12_000, {"SQ_WAVES": 128}),
        ("add(float*, float*, int)", "2", 3000, {}),
    ]
    assert {k.grid for k in found.kernels} == {(1024, 1, 1), (4096, 2, 1)}
    totals = {t.name: (t.calls, t.total_ns) for t in found.top_kernels().kernels}
    assert set(totals.values()) == {(3, 12_000), (1, 12_000)}
    assert [(t.direction, t.size_bytes, t.duration_ns) for t in found.transfers] == [
        ("host_to_device", 4 * 2**20, 50_000),
        ("device_to_host", 4096, 40_000),
    ]
