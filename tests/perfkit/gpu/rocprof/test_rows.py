"""Good values are kept beside bad ones: rows, line ends, encodings, delimiters, long fields."""

import gzip
import tracemalloc

import pytest

from perfkit.gpu.rocprof import KernelProfile, parse
from tests.perfkit.gpu.profiles import MADE_UP, V1, V2, V3_COUNTERS, V3_TRACE

HEADER = "Index,KernelName,gpu-id,BeginNs,EndNs,SQ_WAVES\n"


def profile(content: str | bytes) -> KernelProfile:
    return parse(content.encode() if isinstance(content, str) else content, "a.csv")


def figures(content: str | bytes) -> list[tuple[object, ...]]:
    found = profile(content)
    return [(k.name, k.start_ns, k.duration_ns, dict(k.counters)) for k in found.kernels] + [
        (t.direction, t.start_ns, t.duration_ns) for t in found.transfers
    ]


@pytest.mark.parametrize("text", MADE_UP.values(), ids=MADE_UP)
@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: b"\n \n" + text.encode(),
        lambda text: gzip.compress(text.encode()),
    ],
    ids="CRLF CR UTF-8-mark UTF-16 UTF-16-BE UTF-32 blank-lines gzip".split(),
)
def test_line_ends_encodings_and_packing_change_nothing(text: str, changed: object) -> None:
    assert callable(changed)
    assert figures(changed(text)) == figures(text)
    assert profile(changed(text)).notes == profile(text).notes or changed(text)[:1] == b"\n"


@pytest.mark.parametrize("text", [V1, V3_TRACE, V3_COUNTERS], ids=["v1", "v3", "pmc"])
def test_messages_before_the_header_are_left_out(text: str) -> None:
    logged = f"RPL: on 'a' in 'b'\n# made, by a script\n{text}"
    assert figures(logged) == figures(text)
    assert "line 2: comes before the header; left out" in profile(logged).notes


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheets_delimiters_are_told_from_the_header(delimiter: str) -> None:
    text = 'Index,KernelName,BeginNs,EndNs\n0,"f(int{int)",10,30\n'.replace(",", delimiter)
    assert figures(text.replace("{", ", ")) == [("f(int, int)", 10, 20, {})]


@pytest.mark.parametrize("text", [V1, V2, V3_TRACE, V3_COUNTERS], ids=["v1", "v2", "v3", "pmc"])
def test_one_byte_that_is_no_text_spoils_no_other_name(text: str) -> None:
    broken = text.encode().replace(b"scale", b"sc\xe4le", 1)
    names = [kernel.name for kernel in profile(broken).kernels]
    assert [name.replace("�", "a") for name in names] == [k.name for k in profile(text).kernels]
    assert any("no UTF-8 are shown as �" in note for note in profile(broken).notes)


@pytest.mark.parametrize("letters", [131_073, 1_000_000])
def test_a_name_may_be_longer_than_csv_takes_by_itself(letters: int) -> None:
    name = f"f<{'A' * letters}>(int, int)"
    assert figures(f'{HEADER}0,"{name}",1,10,30,4\n') == [(name, 10, 20, {"SQ_WAVES": 4})]
    line = f'Dispatch_ID(0), Kernel_Name("{name}"), Begin_Timestamp(10), End_Timestamp(30)\n'
    assert figures(line) == [(name, 10, 20, {})]
    event = f'[{{"ph":"X","cat":"kernel","name":"{name}","ts":1.5,"dur":2.5}}]'
    assert figures(event) == [(name, 1500, 2500, {})]


def test_one_byte_that_is_no_text_makes_one_number_unknown() -> None:
    rows = b"0,f,1,10,30,4\n1,f,1,4\xff0,60,4\n2,f,1,70,90,\xff\n"
    assert figures(HEADER.encode() + rows) == [
        ("f", 10, 20, {"SQ_WAVES": 4}),
        ("f", None, None, {"SQ_WAVES": 4}),
        ("f", 70, 20, {"SQ_WAVES": None}),
    ]
    assert "line 3: BeginNs is no number and is unknown" in profile(HEADER.encode() + rows).notes


@pytest.mark.parametrize("place", range(60))
def test_one_byte_spoils_one_event_of_a_trace_at_most(place: int) -> None:
    event = '{"ph":"X","cat":"kernel","name":"f","ts":1.5,"dur":2.5,"args":{"device":0}}'
    broken = f"{event[:place]}\xff{event[place + 1 :]}".encode("latin-1")
    text = b",\n".join([b"[" + event.encode(), broken, event.encode() + b"]"])
    kept = [kernel for kernel in profile(text).kernels if kernel.duration_ns == 2500]
    assert len(kept) >= 2
    assert any("no UTF-8" in note for note in profile(text).notes)


GOOD = ("g", 40, 20, {"SQ_WAVES": 8})


@pytest.mark.parametrize(
    ("row", "found", "note"),
    [
        ('0,"f(int)",1,10,30', [("f(int)", 10, 20, {"SQ_WAVES": None})], "those at the end are"),
        ('0,"f(int)",1', [("f(int)", None, None, {"SQ_WAVES": None})], "those at the end are"),
        ("0", [], "fewer values than columns; left out"),
        ('0,"f(int)",1,10,30,4,5', [("f(int)", 10, 20, {"SQ_WAVES": 4})], "at the end left out"),
        ('0,"f(int)",1,10,30,4,,', [("f(int)", 10, 20, {"SQ_WAVES": 4})], ""),
        ("0,f,g,1,10,30,4", [], "more values than columns; left out"),
        ('0,"f(int)"x,1,10,30,4', [("f(int)x", 10, 20, {"SQ_WAVES": 4})], "not doubled"),
        ("0,f,1,10,30,-nan", [("f", 10, 20, {"SQ_WAVES": None})], ""),
        ("0,f,1,10,30,inf", [("f", 10, 20, {"SQ_WAVES": None})], ""),
        (HEADER.strip(), [], ""),
    ],
)
def test_a_row_of_another_length_is_mended_or_left_out(
    row: str, found: list[object], note: str
) -> None:
    text = f"{HEADER}{row}\n1,g,1,40,60,8\n"
    assert figures(text) == [*found, GOOD]
    notes = [said for said in profile(text).notes if said.startswith("line 2: ")]
    assert [note in said for said in notes] == ([True] if note else [])


def test_counters_that_rocprofv2_announced_and_did_not_write_are_unknown() -> None:
    header = (
        "Index,KernelName,grd,wave_size,sig,obj,SQ_A,SQ_B,DispatchNs,BeginNs,EndNs,CompleteNs\n"
    )
    text = header + '0,"f(int)",64,64,7,8,0,10,30,0\n1,"f(int)",64,64,0,40,60,0\n'
    assert figures(text) == [
        ("f(int)", 10, 20, {"SQ_A": 7, "SQ_B": 8}),
        ("f(int)", 40, 20, {"SQ_A": None, "SQ_B": None}),
    ]


@pytest.mark.parametrize("grid", ["[64, 2, 1]", "(64,2,1)", "64x2x1", "64 2 1", "{64, 2, 1}"])
def test_a_grid_may_be_three_numbers_in_one_value(grid: str) -> None:
    (kernel,) = profile(f'Dispatch_ID,Kernel_Name,Grid_Size\n1,f,"{grid}"\n').kernels
    assert kernel.grid == (64, 2, 1)


@pytest.mark.parametrize(
    "column",
    "DB_NAME MC_ID Stream_Name Region Duration_us LDS_SIZE VGPR_Spill Marker_Id Occupancy "
    "GRID_DIM".split(),
)
def test_an_unknown_column_is_no_counter(column: str) -> None:
    text = f"Dispatch_ID,Kernel_Name,SQ_WAVES,{column}\n1,f,4,5\n"
    assert [dict(k.counters) for k in profile(text).kernels] == [{"SQ_WAVES": 4}]
    assert f"no counters of rocprof, so left out: {column}" in profile(text).notes
    line = f'Dispatch_ID(1), Kernel_Name("f"), SQ_WAVES(4), {column}(5)\n'
    assert [dict(k.counters) for k in profile(line).kernels] == [{"SQ_WAVES": 4}]
    event = f'[{{"ph":"X","cat":"gpu","name":"f","ts":1,"dur":1,"args":{{"{column}":5}}}}]'
    assert [dict(k.counters) for k in profile(event).kernels] == [{}]


@pytest.mark.parametrize(
    "column",
    "SQ_WAVES TCC_EA_RDREQ_32B_sum TCC_HIT[15] GRBM_GUI_ACTIVE GL2C_EA_RDREQ_128B_sum TA_BUSY_avr "
    "FETCH_SIZE FetchSize Wavefronts VALUInsts VALUUtilization L2CacheHit MemUnitStalled GPUBusy "
    "ALUStalledByLDS LDSBankConflict OccupancyPercent MeanOccupancyPerCU TOTAL_16_OPS CU_NUM "
    "CPC_ME1_BUSY_FOR_PACKET_DECODE SQ_INSTS_VALU_MFMA_MOPS_F16 SDMA0_BUSY".split(),
)
def test_what_is_named_as_counters_are_is_one(column: str) -> None:
    text = f"Dispatch_ID,Kernel_Name,{column}\n1,f,4\n"
    assert [dict(k.counters) for k in profile(text).kernels] == [{column: 4}]


def test_a_metric_of_the_users_own_is_a_counter_where_rocprof_v1_has_only_counters() -> None:
    text = "Index,KernelName,obj,MyMetric,DispatchNs,BeginNs,EndNs,CompleteNs,Mine\n"
    text += "0,f,0x7f,3,1,10,30,40,5\n"
    assert figures(text) == [("f", 10, 20, {"MyMetric": 3})]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("GRD,WGR,SCR,ACCUM_VGPR,Start_Timestamp,Stop_Timestamp", "64,32,0,4,10,30"),
        ("grd,wgr,scr,accum_vgpr,BeginNs,EndNs", "64,32,0,4,10,30"),
        ("Grid_Size,Workgroup_Size,Scratch_Per_Workitem,Accum_VGPR,Begin_Timestamp,End_Timestamp",
         "64,32,0,4,10,30"),
        ("Grid Size,Workgroup Size,Scratch Size,Accumulative VGPR,start_time,end_time",
         "64,32,0,4,10,30"),
    ],
)  # fmt: skip
def test_one_fact_has_many_names(header: str, row: str) -> None:
    (kernel,) = profile(f"Dispatch_ID,Kernel_Name,{header}\n1,f,{row}\n").kernels
    assert (kernel.grid, kernel.workgroup) == ((64,), (32,))
    assert (kernel.start_ns, kernel.duration_ns, kernel.counters) == (10, 20, {})


@pytest.mark.parametrize(
    ("begin", "end", "start_ns", "duration_ns"),
    [
        ("1248227792617386.5", "1248227792639148.5", 1248227792617386, 21_762),
        ("10.25", "30.75", 10, 20),
        ("10.0", "30.0", 10, 20),
    ],
)
def test_means_over_passes_are_subtracted_before_they_are_rounded(
    begin: str, end: str, start_ns: int, duration_ns: int
) -> None:
    text = f"{HEADER}0,f,1,{begin},{end},4\n"
    assert figures(text) == [("f", start_ns, duration_ns, {"SQ_WAVES": 4})]


def test_traced_operations_of_rocprofv2_are_kernels_or_copies() -> None:
    text = (
        "Domain,Operation,Kernel_Name,Start_Timestamp,Stop_Timestamp,Correlation_ID\n\n"
        'HIP_OPS_DOMAIN,"KernelExecution","f(int, g)",1000,2000,1\n'
        'HIP_OPS_DOMAIN,"CopyHostToDevice",,3000,5000,2\nHIP_OPS_DOMAIN,"Barrier",,6000,6001,3\n'
    )
    assert figures(text) == [("f(int, g)", 1000, 1000, {}), ("host_to_device", 3000, 2000)]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Domain,Function,Kernel_Name,Start_Timestamp,End_Timestamp", "a trace of API calls"),
        ("Kind,Operation,Agent_Id,Allocation_Size,Address", "a trace of memory allocations"),
        ("Kind,Operation,Agent_Id,Queue_Id,Thread_Id,Alloc_Flags", "a trace of scratch memory"),
        ("Domain,ROCTX_ID,Message,Timestamp", "a trace of roctx markers"),
        ("Sample_Timestamp,Exec_Mask,Dispatch_Id,Instruction", "samples of the program counter"),
        ("Name,Calls,TotalDurationNs,AverageNs,Percentage", "statistics, totals by name"),
        ("Kernel_Name,Count,Sum(ns),Mean(ns),Median(ns),Pct", "statistics, totals by kernel"),
        ("Node_Id,Logical_Node_Id,Agent_Type,Cpu_Cores_Count", "a list of agents"),
        ("workload_name,command,ip_blocks,gpu_model,gpu_arch", "a description of the machine"),
    ],
)
def test_a_file_of_something_else_is_named_for_what_it_is(header: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        profile(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    assert "--kernel-trace" in str(caught.value)


def test_a_raw_trace_of_rocprof_v1_is_named_for_what_it_is() -> None:
    with pytest.raises(ValueError, match=r"a raw trace of rocprof v1; give the .csv or .json"):
        profile("1822810364769411:1822810364771941 116477:116477 hsa_init()\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [("pmc: SQ_WAVES\n", "list of counters"), ("jobs:\n - pmc", "list of counters")],
)
def test_the_list_of_counters_is_no_profile(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        profile(text)


def test_a_trace_that_was_cut_keeps_its_whole_events() -> None:
    event = '{"ph":"X","cat":"kernel","name":"f","ts":1.5,"dur":2.5}'
    for end in ("", ",", ',{"ph":"X","na', ',\n{"ph":', ",{"):
        text = f'{{"traceEvents":[{event}{end}'
        assert figures(text) == [("f", 1500, 2500, {})]
        assert any("ends early" in note for note in profile(text).notes) == (len(end) > 1)


@pytest.mark.parametrize("begin", ["[", ",", ' {"a": [1, {"b": 2}], "traceEvents" : [{}\n,'])
def test_a_trace_may_begin_in_several_ways(begin: str) -> None:
    text = begin + '{"ph":"X","cat":"kernel","name":"f","ts":1.5,"dur":2.5}'
    assert figures(text) == [("f", 1500, 2500, {})]


def test_memory_holds_a_long_file_a_few_times_over_and_no_more() -> None:
    row = '1,{n},"Agent 1",1,7,1024,"saxpy(int, float*)",64,"{c}",512.5,{n}000,{n}900\n'
    header = V3_COUNTERS.partition("\n")[0] + "\n"
    names = [f"SQ_{i}" for i in range(4)]
    text = header + "".join(row.format(n=n, c=c) for n in range(1, 1_001) for c in names)
    content = text.encode()
    tracemalloc.start()
    try:
        found = parse(content)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.kernels) == 1_000
    assert peak_bytes < 6 * len(content)
