"""Made-up profiles of every kind, one small text each, for tests and fuzzers to start from."""

from contextlib import closing
from pathlib import Path
from sqlite3 import connect

V1 = """\
Index,KernelName,gpu-id,queue-id,queue-index,pid,tid,grd,wgr,lds,scr,vgpr,sgpr,fbar,sig,obj,\
TCC_MC_RDREQ_sum,TCC_MC_WRREQ_sum,DispatchNs,BeginNs,EndNs,CompleteNs
0,"saxpy(int, float, float*, float*) [clone .kd]",0,0,0,7,7,65536,256,0,0,8,16,0,0x0,0x7f00,\
16384,8192,1000,5000,9000,9900
1,"scale(float*, float) [clone .kd]",0,0,2,7,7,1024,64,0,0,8,16,0,0x0,0x7f80,\
100,50,9950,10000,10500,10900
2,"saxpy(int, float, float*, float*) [clone .kd]",0,0,4,7,7,65536,256,0,0,8,16,0,0x0,0x7f00,\
16384,8192,11000,12000,18000,18100
"""

V2 = """\
n = 4096
Dispatch_ID(0), GPU_ID(1), Queue_ID(1), Queue_Index(0), Process_ID(7), Thread_ID(7), \
Grid_Size(4096), Workgroup_Size(64), LDS(0), Scratch_Size(0), Arch_VGPR(8), Accumulative_VGPR(0), \
SGPR(16), Wave_Size(64), Kernel_Name("saxpy(int, float (*)(float), float*)"), \
Begin_Timestamp(5000), End_Timestamp(9000), Correlation_ID(0), FETCH_SIZE(512.500000), \
WRITE_SIZE(256.000000)
PASSED! Dispatch_ID(1), GPU_ID(1), Grid_Size(64), Workgroup_Size(64), Kernel_Name("scale"), \
Begin_Timestamp(10000), End_Timestamp(10500), Correlation_ID(1)
"""

V3_TRACE = """\
"Kind","Agent_Id","Queue_Id","Kernel_Name","Correlation_Id","Start_Timestamp","End_Timestamp",\
"Workgroup_Size_X","Workgroup_Size_Y","Workgroup_Size_Z","Grid_Size_X","Grid_Size_Y","Grid_Size_Z"
"KERNEL_DISPATCH","Agent 4",1,"saxpy(int, float*)",1,5000,9000,64,2,1,1024,8,1
"KERNEL_DISPATCH","Agent 4",1,"scale(float*)",2,10000,10500,64,1,1,64,1,1
"""

V3_COUNTERS = """\
"Correlation_Id","Dispatch_Id","Agent_Id","Queue_Id","Process_Id","Grid_Size","Kernel_Name",\
"Workgroup_Size","Counter_Name","Counter_Value","Start_Timestamp","End_Timestamp"
1,1,"Agent 1",1,7,1024,"saxpy(int, float*)",64,"FETCH_SIZE",512.500000,5000,9000
2,2,"Agent 1",1,7,64,"scale(float*)",64,"FETCH_SIZE",8.000000,10000,10500
1,1,"Agent 1",1,7,1024,"saxpy(int, float*)",64,"WRITE_SIZE",256.000000,5000,9000
2,2,"Agent 1",1,7,64,"scale(float*)",64,"WRITE_SIZE",4.000000,10000,10500
"""

V3_COPIES = """\
"Kind","Direction","Stream_Id","Source_Agent_Id","Destination_Agent_Id","Correlation_Id",\
"Start_Timestamp","End_Timestamp"
"MEMORY_COPY","MEMORY_COPY_HOST_TO_DEVICE",0,"Agent 0","Agent 4",1,1000,1900
"MEMORY_COPY","MEMORY_COPY_DEVICE_TO_HOST",0,"Agent 4","Agent 0",2,20000,20500
"""

V1_TRACE = """\
{ "traceEvents":[{}
,{"args":{"name":"CPU HIP API"},"ph":"M","pid":2,"name":"process_name","sort_index":0}
,{"args":{"name":"COPY"},"ph":"M","pid":1,"name":"process_name","sort_index":1}
,{"args":{"name":"GPU0"},"ph":"M","pid":6,"name":"process_name","sort_index":2}
,{"ph":"X","name":"hipLaunchKernel","pid":2,"tid":7,"ts":"4","dur":"1",
  "args":{"BeginNs":"4000","EndNs":"4800","Name":"hipLaunchKernel"}}
,{"ph":"X","name":"CopyHostToDevice","pid":1,"tid":0,"ts":"1","dur":"1",
  "args":{"BeginNs":"1000","EndNs":"1900","dev-id":"0","Name":"CopyHostToDevice","Data":""}}
,{"ph":"X","name":"saxpy(int, float*)","pid":6,"tid":0,"ts":"5","dur":"4",
  "args":{"BeginNs":"5000","EndNs":"9000","dev-id":"0","queue-id":"0","Name":"saxpy(int, float*)",
  "pid":"7","tid":"7","stream-id":"0","Data":"","DurationNs":"4000"}}
,{"ph":"X","name":"<barrier packet>","pid":6,"tid":0,"ts":"9","dur":"1","args":{"BeginNs":"9000"}}
,{"ts":4,"ph":"s","cat":"DataFlow","id":0,"pid":2,"tid":7,"name":"dep"}
],
"otherData": {}
}
"""

V2_TRACE = """\
{"traceEvents": [
 {"args": {"name": "GPU"}, "ph": "M", "pid": 2, "name": "process_name", "sort_index": 1},
 {"name": "saxpy", "ph": "X", "ts": "5", "tid": 1, "pid": 2, "dur": "4", "cat": "gpu",
  "args": {"cid": 1}},
 {"name": "CopyDeviceToHost", "ph": "X", "ts": 20.5, "tid": 1, "pid": 3, "dur": 1, "cat": "COPY",
  "args": {"cid": 2}},
 {"name": "hipMemcpy", "ph": "X", "ts": "20", "tid": 1, "pid": 1, "dur": "3", "cat": "CPU"}
]}
"""

MADE_UP = {
    "v1": V1,
    "v2": V2,
    "v3 trace": V3_TRACE,
    "v3 counters": V3_COUNTERS,
    "v3 copies": V3_COPIES,
    "v1 trace": V1_TRACE,
    "v2 trace": V2_TRACE,
}

#: A database of rocprofv3 with two processes; SQLite takes tables for views.
ROCPD_VIEWS = """
CREATE TABLE kernels (guid, pid, name, start, end, grid_x, grid_y, grid_z, workgroup_x,
  workgroup_y, workgroup_z, agent_abs_index, queue_id, dispatch_id);
INSERT INTO kernels VALUES
  ('a', 7, 'add(int)', 1000, 3000, 256, 2, 1, 64, 1, 1, 4, 1, 1),
  ('a', 7, 'add(int)', 4000, 5000, 256, 2, 1, 64, 1, 1, 5, 1, 1),
  ('b', 8, 'add(int)', 1000, 3000, 256, 2, 1, 64, 1, 1, 4, 1, 1);
CREATE TABLE counters_collection (guid, dispatch_id, agent_abs_index, counter_name, value);
INSERT INTO counters_collection VALUES
  ('a', 1, 4, 'FETCH_SIZE', 2.0), ('a', 1, 5, 'FETCH_SIZE', 3.5), ('b', 1, 4, 'FETCH_SIZE', 4);
CREATE TABLE memory_copies (guid, name, size, start, end, src_agent_abs_index, dst_agent_abs_index);
INSERT INTO memory_copies VALUES ('a', 'MEMORY_COPY_HOST_TO_DEVICE', 4096, 10, 60, 0, 4);
"""

#: The tables below the views of one process; `x` is the end of its guid in their names.
ROCPD_TABLES = """
CREATE TABLE rocpd_kernel_dispatch_x (id INTEGER PRIMARY KEY, guid, nid, pid, agent_id, kernel_id,
  dispatch_id, queue_id, start, end, grid_size_x, grid_size_y, grid_size_z, event_id);
INSERT INTO rocpd_kernel_dispatch_x VALUES (1, 'x', 1, 1, 2, 3, 1, 1, 10, 30, 64, 1, 1, 5),
  (2, 'x', 1, 1, 2, 4, 2, 1, 40, 70, 64, 1, 1, 6);
CREATE TABLE rocpd_info_kernel_symbol_x (id, guid, kernel_name, display_name);
INSERT INTO rocpd_info_kernel_symbol_x VALUES (3, 'x', '_Z1fi', 'f(int)'), (4, 'x', '_Z1gi', NULL);
CREATE TABLE rocpd_info_agent_x (id, guid, absolute_index);
INSERT INTO rocpd_info_agent_x VALUES (1, 'x', 0), (2, 'x', 4);
CREATE TABLE rocpd_info_pmc_x (id, guid, name);
INSERT INTO rocpd_info_pmc_x VALUES (1, 'x', 'SQ_WAVES'), (2, 'x', 'SQ_WAVES');
CREATE TABLE rocpd_pmc_event_x (id, guid, event_id, pmc_id, value);
INSERT INTO rocpd_pmc_event_x VALUES (1, 'x', 5, 1, 3.0), (2, 'x', 5, 2, 4.0), (3, 'x', 6, 1, 9.0);
CREATE TABLE rocpd_string_x (id, guid, string);
INSERT INTO rocpd_string_x VALUES (8, 'x', 'MEMORY_COPY_DEVICE_TO_HOST');
CREATE TABLE rocpd_memory_copy_x (id, guid, start, end, name_id, src_agent_id, dst_agent_id, size);
INSERT INTO rocpd_memory_copy_x VALUES (1, 'x', 80, 90, 8, 2, 1, 16);
"""


def database(folder: Path, script: str, name: str = "results.db") -> Path:
    """The path of a new database in which the script was run."""
    path = folder / name
    path.unlink(missing_ok=True)
    with closing(connect(path)) as written:
        written.executescript(script)
    return path
