"""Every kind of file rocprof writes, its defects, and what cannot be read."""

from pathlib import Path

import pytest

from perfkit.gpu.rocprof import KernelProfile, RocprofError, kinds, parse, read
from tests.perfkit.gpu.profiles import MADE_UP, V1, V1_TRACE, V2, V2_TRACE, V3_COUNTERS, V3_TRACE

HEADER = "Index,KernelName,gpu-id,grd,wgr,BeginNs,EndNs,FETCH_SIZE,WRITE_SIZE\n"
LOST = "has lost its last digits and is unknown"


def profile(text: str) -> KernelProfile:
    return parse(text.encode(), "a.csv")


def figures(text: str) -> list[tuple[object, ...]]:
    return [
        (k.name, k.start_ns, k.duration_ns, k.grid, k.fetched_bytes, k.written_bytes)
        for k in profile(text).kernels
    ]


def said(text: str, words: str) -> str:
    """The one note with these words."""
    (note,) = [note for note in profile(text).notes if words in note]
    return note


def refused(content: bytes | str) -> str:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(RocprofError) as caught:
        parse(raw, "a.csv")
    return str(caught.value)


# Formats


def test_v1_of_a_polaris_card_has_times_grid_and_the_counters_of_gfx8() -> None:
    first, second, third = profile(V1).kernels
    assert first.name == third.name == "saxpy(int, float, float*, float*) [clone .kd]"
    assert (first.start_ns, first.duration_ns) == (5000, 4000)
    assert (first.grid, first.workgroup) == ((65536,), (256,))
    assert (first.device, first.queue, first.dispatch) == ("0", "0", "0")
    assert first.counters == {"TCC_MC_RDREQ_sum": 16384, "TCC_MC_WRREQ_sum": 8192}
    assert (first.fetched_bytes, first.written_bytes) == (16384 * 32, 8192 * 32)
    assert first.bandwidth_bytes_per_s == 786_432 / 4000e-9
    assert (second.fetched_bytes, second.duration_ns) == (3200, 500)
    assert "gfx8" in said(V1, "fetched_bytes")


def test_v1_without_times_says_how_to_get_them() -> None:
    text = "Index,KernelName,gpu-id,grd,wgr,SQ_WAVES\n0,f,1,64,64,4\n"
    (kernel,) = profile(text).kernels
    assert (kernel.start_ns, kernel.duration_ns, kernel.bandwidth_bytes_per_s) == (None,) * 3
    assert kernel.counters == {"SQ_WAVES": 4}
    assert "--timestamp on" in said(text, "no dispatch has a duration")


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        (
            # Early releases end each line with a comma.
            'Index,KernelName,BeginNs,EndNs,SQ_WAVES,\n0,"f(int, int)",10,30,4,\n',
            "CSV of rocprof v1",
            [("f(int, int)", 10, 20, None, None, None)],
        ),
        (
            V2,
            "lines of rocprofv2",
            [
                ("saxpy(int, float (*)(float), float*)", 5000, 4000, (4096,), 524_800, 262_144),
                ("scale", 10000, 500, (64,), None, None),
            ],
        ),
        (
            "Dispatch_ID,GPU_ID,Grid_Size,Kernel_Name,Start_Timestamp,End_Timestamp,FETCH_SIZE\n"
            '1,2,64,"f(int, int)",10,30,4.000000\n',
            "CSV of rocprofv2",
            [("f(int, int)", 10, 20, (64,), 4096, None)],
        ),
        (
            V3_COUNTERS,
            "counters of rocprofv3",
            [
                ("saxpy(int, float*)", 5000, 4000, (1024,), 524_800, 262_144),
                ("scale(float*)", 10000, 500, (64,), 8192, 4096),
            ],
        ),
    ],
)
def test_each_format_gives_kernels(text: str, kind: str, found: list[tuple[object, ...]]) -> None:
    assert profile(text).format == kind
    assert figures(text) == found


def test_v2_lines_of_early_releases_have_counters_below() -> None:
    text = (
        "dispatch[3], gpu_id(1), queue_id(2), pid(7), tid(7), grd(64), wgr(64), obj(9), "
        'kernel-name("f(int)"), start_time(10), end_time(30)\n'
        ", SQ_WAVES (4.000000)\n, TCC_MC_RDREQ[0] (3)\nthe program prints (this)\n"
        'dispatch[4], gpu-id(1), kernel-name("g"), time(1,40,45,50):\n  SQ_WAVES (8)\n'
    )
    first, second = profile(text).kernels
    assert (first.name, first.start_ns, first.duration_ns) == ("f(int)", 10, 20)
    assert first.dispatch == "3"
    assert first.counters == {"SQ_WAVES": 4, "TCC_MC_RDREQ[0]": 3}
    assert (second.start_ns, second.duration_ns, second.counters) == (40, 5, {"SQ_WAVES": 8})


def test_v2_traced_operations_are_kernels_or_copies_and_calls_are_neither() -> None:
    text = (
        "Domain(HIP_API_DOMAIN), Function(hipLaunchKernel), Kernel_Name(f(int)), "
        "Start_Timestamp(1), End_Timestamp(2), Correlation_ID(1)\n"
        "Domain(HIP_OPS_DOMAIN), Operation_Name(KernelExecution), Kernel_Name(f(int, g(int))), "
        "Start_Timestamp(10), End_Timestamp(30), Correlation_ID(1)\n"
        "Domain(HIP_OPS_DOMAIN), Operation_Name(CopyHostToDevice), Start_Timestamp(40), "
        "End_Timestamp(45), Correlation_ID(2)\n"
        "Domain(ROCTX_DOMAIN), Timestamp(3), ROCTX_ID(1), ROCTX_Message(here)\n"
    )
    found = profile(text)
    assert [(k.name, k.duration_ns) for k in found.kernels] == [("f(int, g(int))", 20)]
    assert [(t.direction, t.duration_ns) for t in found.transfers] == [("host_to_device", 5)]
    both = profile(text + 'Dispatch_ID(0), Kernel_Name("f"), Begin_Timestamp(10)')
    assert [k.name for k in both.kernels] == ["f"]
    assert any("as dispatches and as traced operations" in note for note in both.notes)


def test_v2_a_value_that_is_there_twice_and_differs_is_unknown() -> None:
    text = 'Dispatch_ID(0), Kernel_Name("f"), Begin_Timestamp(1), End_Timestamp(9), '
    text += "SQ_WAVES(4), SQ_WAVES(5), SQ_BUSY(1), SQ_BUSY(1)\n"
    assert profile(text).kernels[0].counters == {"SQ_WAVES": None, "SQ_BUSY": 1}
    assert said(text, "SQ_WAVES is there twice").startswith("line 1: ")


def test_v3_kernel_traces_have_a_grid_of_three_dimensions() -> None:
    first, second = profile(V3_TRACE).kernels
    assert (first.name, first.start_ns, first.duration_ns) == ("saxpy(int, float*)", 5000, 4000)
    assert (first.grid, first.workgroup) == ((1024, 8, 1), (64, 2, 1))
    assert (second.device, second.counters) == ("Agent 4", {})


def test_v3_processes_count_their_dispatches_from_one() -> None:
    lines = V3_COUNTERS.splitlines(keepends=True)
    other = lines[1].replace(",7,1024", ",8,1024")
    assert len(profile("".join([*lines, other])).kernels) == 3


def test_v3_a_counter_that_is_there_twice_is_unknown() -> None:
    text = V3_COUNTERS + V3_COUNTERS.splitlines()[1]
    assert [k.fetched_bytes for k in profile(text).kernels] == [None, 8192]
    assert said(text, "FETCH_SIZE is there twice").startswith("line 6: ")


def test_v3_a_counter_without_a_name_is_left_out() -> None:
    text = V3_COUNTERS.replace('"FETCH_SIZE",512', '"",512')
    assert [*profile(text).kernels[0].counters] == ["WRITE_SIZE"]
    assert said(text, "no name of a counter").startswith("line 2: ")


def test_v3_copies_have_a_direction_and_agents() -> None:
    found = profile(MADE_UP["v3 copies"])
    assert [(t.direction, t.start_ns, t.duration_ns) for t in found.transfers] == [
        ("host_to_device", 1000, 900),
        ("device_to_host", 20000, 500),
    ]
    assert (found.transfers[0].source, found.transfers[0].destination) == ("Agent 0", "Agent 4")
    assert found.kernels == ()


@pytest.mark.parametrize("text", [V1_TRACE, V2_TRACE], ids=["v1", "v2"])
def test_traces_hold_kernels_and_copies_and_calls_are_neither(text: str) -> None:
    found = profile(text)
    (kernel,), (copy,) = found.kernels, found.transfers
    assert kernel.name.startswith("saxpy")
    assert (kernel.start_ns, kernel.duration_ns) == (5000, 4000)
    assert copy.direction in ("host_to_device", "device_to_host")


def test_only_a_trace_in_whole_microseconds_has_a_note() -> None:
    assert (profile(V2_TRACE).transfers[0].start_ns, profile(V1_TRACE).notes) == (20_500, ())
    assert said(V2_TRACE, "to the microsecond")


def test_a_trace_of_v1_has_the_columns_and_counters_of_its_csv_in_args() -> None:
    text = """[{"ph":"M","name":"process_name","pid":6,"args":{"name":"GPU0"}},
    {"ph":"X","pid":6,"name":"f","ts":"1","dur":"1","args":{"KernelName":"f(int)","gpu-id":"2",
    "grd":"64","BeginNs":"10","EndNs":"30","TCC_MC_RDREQ_sum":"2","Data":"x","more":{"a":1},
    "FETCH_SIZE":"1.62068E+14","wave":"none"}}]"""
    (kernel,) = profile(text).kernels
    assert (kernel.name, kernel.grid, kernel.device) == ("f(int)", (64,), "2")
    assert kernel.duration_ns == 20
    assert kernel.counters == {"TCC_MC_RDREQ_sum": 2, "FETCH_SIZE": None}
    assert kernel.fetched_bytes == 64
    assert said(text, f"FETCH_SIZE {LOST}")


@pytest.mark.parametrize(
    ("times", "start_ns", "duration_ns", "note"),
    [
        ('"ts":1,"dur":2', 1000, 2000, "to the microsecond"),
        ('"ts":"1.62068E+14","dur":"2"', None, 2000, LOST.split(" and")[0]),
        ('"ts":5,"dur":-1', 5000, None, "dur is below 0"),
        ('"ts":[5]', None, None, "to the microsecond"),
    ],
)
def test_times_of_an_event_are_microseconds_or_unknown(
    times: str, start_ns: int | None, duration_ns: int | None, note: str
) -> None:
    text = f'[{{"ph":"X","cat":"gpu","name":"f",{times}}},5]'
    (kernel,) = profile(text).kernels
    assert (kernel.start_ns, kernel.duration_ns) == (start_ns, duration_ns)
    assert said(text, note)


def test_separate_begin_and_end_events_are_left_out_with_a_note() -> None:
    text = '[{"ph":"B","cat":"gpu","name":"f","ts":1},{"ph":"E","cat":"gpu","name":"f","ts":2}]'
    assert profile(text).kernels == ()
    assert said(text, "begin and end are apart")


def test_a_file_is_told_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "misnamed.json"
    for text in (V1, "\ufeff" + V1, V1.replace("\n", "\r\n"), "\n" + V1):
        path.write_text(text, newline="")
        assert [k.duration_ns for k in read(path).kernels] == [4000, 500, 6000]
        assert read(path).format == "CSV of rocprof v1"


# Defects that are repaired, or make a value unknown


@pytest.mark.parametrize(
    ("begin", "end", "start_ns", "note"),
    [
        ("1.62068E+14", "1.62068E+14", None, LOST),
        ("1.62068E+14", "162068000000900", None, LOST),
        ("9223372036854775.5E+2", "922337203685477999", None, LOST),
        ("9007199254740994.0", "9007199254740998", None, LOST),
        ("900", "100", 900, "ends before it begins"),
        ("0", "0", None, "a time of 0"),
        ("-5", "100", None, "below 0"),
        ("99999999999999999999", "100", None, "no time of 64 bits"),
        ("", "100", None, "no dispatch has a duration"),
        ("N/A", "100", None, "no dispatch has a duration"),
    ],
)
def test_times_that_cannot_be_trusted_are_unknown(
    begin: str, end: str, start_ns: int | None, note: str
) -> None:
    text = f"{HEADER}0,f,1,64,64,{begin},{end},1,1\n"
    (kernel,) = profile(text).kernels
    assert (kernel.start_ns, kernel.duration_ns) == (start_ns, None)
    assert (kernel.fetched_bytes, kernel.bandwidth_bytes_per_s) == (1024, None)
    assert any(note in line for line in profile(text).notes)


@pytest.mark.parametrize(
    "begin", ["2829564995003981", "2.829564995003981E+15", "2829564995003981.0"]
)
def test_a_time_with_all_its_digits_is_exact_in_any_notation(begin: str) -> None:
    (kernel,) = profile(f"{HEADER}0,f,1,64,64,{begin},2829564995028301,1,1\n").kernels
    assert (kernel.start_ns, kernel.duration_ns) == (2829564995003981, 24320)


def test_a_counter_that_lost_digits_is_unknown_and_so_are_its_bytes() -> None:
    text = f"{HEADER}0,f,1,64,64,10,30,1.04858E+06,4\n"
    (kernel,) = profile(text).kernels
    assert kernel.counters == {"FETCH_SIZE": None, "WRITE_SIZE": 4}
    assert (kernel.fetched_bytes, kernel.written_bytes) == (None, 4096)
    assert said(text, f"FETCH_SIZE {LOST}").startswith("line 2: ")


def test_an_unquoted_name_with_commas_is_joined() -> None:
    text = f"{HEADER}0,f(int*, g<a, b>),1,64,64,10,30,1,1\n"
    assert figures(text) == [("f(int*, g<a, b>)", 10, 20, (64,), 1024, 1024)]
    assert said(text, "commas and no quotes").startswith("line 2: ")


def test_columns_of_one_name_are_one_if_they_agree() -> None:
    text = "Index,KernelName,BeginNs,EndNs,FETCH_SIZE,FETCH_SIZE,BeginNs.1,wave_size,wave_size_1\n"
    text += "0,f,10,30,1,1,10,64,64\n0,g,10,30,1,2,11,64,64\n"
    assert figures(text) == [("f", 10, 20, None, 1024, None), ("g", None, None, None, None, None)]
    assert said(text, "the columns FETCH_SIZE differ").startswith("line 3: ")
    assert said(text, "the columns BeginNs differ").startswith("line 3: ")
    assert "2 times" in said(text, "the column wave_size is")
    assert list(profile(text).kernels[0].counters) == ["FETCH_SIZE"]


def test_counters_whose_names_end_in_a_number_are_no_repetition() -> None:
    text = "Index,KernelName,SQC_REQ,SQC_REQ_2\n0,f,1,9\n"
    assert profile(text).kernels[0].counters == {"SQC_REQ": 1, "SQC_REQ_2": 9}


@pytest.mark.parametrize(
    ("damaged", "sound", "note"),
    [
        (V1 + '3,"scale(float*, float)",0,0', V1, "line 5: ends early"),
        (V1 + V1.splitlines()[2].replace("1,\"scale(float*, float) [clone .kd]", "3,\""), V1,
         "line 5: no kernel name"),
        (V2 + 'Dispatch_ID(2), Kernel_Name("sca\nDispatch_ID(3), GPU_ID(1 PASSED\n', V2,
         "lines 4-5: a record that is cut off"),
        (V1 + '3,"scale(float*, fl', V1, "line 5: ends early"),
    ],
    ids=["cut row", "no name", "cut line", "cut name"],
)  # fmt: skip
def test_a_damaged_record_is_left_out(damaged: str, sound: str, note: str) -> None:
    assert figures(damaged) == figures(sound)
    assert said(damaged, note)


def test_a_duration_that_contradicts_its_times_does_not_count() -> None:
    text = "KernelName,Index,BeginNs,EndNs,DurationNs\nf,0,10,30,99\ng,1,,,7\n"
    assert [k.duration_ns for k in profile(text).kernels] == [20, 7]
    assert said(text, "is not end less begin").startswith("line 2: ")


def test_a_note_names_a_few_of_its_lines_and_counts_the_rest() -> None:
    rows = "".join(f"{i},f,1,64,64,{90 if i % 2 else 10},30,1,1\n" for i in range(20))
    assert said(HEADER + rows, "ends before").startswith("lines 3, 5, 7 and 7 more places: ")


def test_names_can_be_printed_anywhere() -> None:
    event = '{"ph":"X","cat":"gpu","name":"a\\ud800\\u001b[2J","ts":1,"dur":1}'
    found = profile(f"[{event}]")
    assert found.kernels[0].name == "a?�[2J"
    assert any("unprintable" in note for note in found.notes)


def test_a_profile_of_nothing_says_so() -> None:
    assert profile(HEADER).notes == ("there is no kernel in it, and no transfer",)


# Refused files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a.csv: empty; did the program launch a kernel"),
        (" \n\n", "a.csv: empty"),
        ("hello\n", "a.csv, line 1: not written by rocprof; it begins with 'hello'"),
        ("a,b\n1,2\n", "a.csv, line 1: not written by rocprof; it begins with 'a,b'"),
        (b"\x1f\x8b\x08", "compressed by gzip, and damaged"),
        (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it"),
        (b"\n\x03\x08\x01\x12\n\x81\x01" + b"x" * 129 + b"\n\x02ab", "a trace for Perfetto"),
        (b"\n\x02ab", "a trace for Perfetto (pftrace); profile with --output-format rocpd"),
        ("\n\nhello\n", "not written by rocprof"),
        ("<html>", "XML or a web page"),
        (b"a,b\0\0\0\0\0\0\0\n", "not text"),
        (b"\x7fELF", "a program or a code object"),
        (b"SQLite format 3\x00", "a database"),
        (
            HEADER + "0,f,1,64,64,abc,30,1,1\n",
            "a.csv, line 2: BeginNs is 'abc', which is no number",
        ),
        (HEADER + "0,f,1,64,64,10,30,x,1\n", "a.csv, line 2: FETCH_SIZE is 'x'"),
        (HEADER + "0,f,1,64,64,1,2,1,1,9,9\n", "a.csv, line 2: 11 values under 9 columns"),
        (HEADER + "0,f(,1,64,64,1,2,1,1,9\n", "quote names that hold commas"),
        ('"Domain","Function","Start_Timestamp"\n"A","hipMalloc",1\n', "a trace of API calls"),
        ("Name,Calls,TotalDurationNs\nf,1,2\n", "totals by name"),
        ('Index,KernelName\n0,"f\n' + "g\n" * 2_000, "line 2: not CSV"),
        ('[{"ph":"X",\n"name":', "a.csv, line 2: not JSON"),
        ("[NaN", "line 1: not JSON"),
        ("{}", "JSON without traceEvents"),
        ('[{"gpu": 0, "power": {"value": 9}}]', "JSON without an event of a trace"),
        ("[" * 200_000, "nested too deeply"),
        ('{"rocprofiler-sdk-tool":[]}', "--output-format rocpd"),
        ('[{"ph":"X","cat":"gpu","name":"f","ts":"x"}]', "ts of 'f' is 'x', which is no number"),
    ],
)
def test_other_files_are_refused_with_a_way_out(content: bytes | str, words: str) -> None:
    assert words in refused(content)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RocprofError, match=r"none\.csv: cannot be read: No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(RocprofError, match="Is a directory"):
        read(tmp_path)
    with pytest.raises(RocprofError, match="null byte"):
        read("a\0b")


def test_a_file_beyond_the_bound_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "FILE_BYTES_MAX", len(V1))
    path = tmp_path / "long.csv"
    path.write_text(V1)
    assert len(read(path).kernels) == 3
    path.write_text(V1 + "\n")
    with pytest.raises(RocprofError, match="more than 0 MiB; give a part of it"):
        read(path)
