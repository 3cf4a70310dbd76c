"""Made-up profiles of every kind, one small text each, for tests and fuzzers to start from."""

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
