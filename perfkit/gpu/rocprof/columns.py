"""The names that columns have in the files of every release, and which columns are counters.

The tools write one fact under many names: the end of a dispatch is `EndNs` in rocprof v1,
`Stop_Timestamp` or `End_Timestamp` in rocprofv2, `end` in rocpd. Names are compared without case,
blanks and punctuation (`plain`), so `gpu-id`, `GPU_ID` and `Gpu Id` are one name.

Sources: ROCm/rocprofiler, plugin/{file,cli,json}, CHANGELOG.md (GRD, WGR, SCR, ACCUM_VGPR, SIG, OBJ
of ROCm 5.5 to 6.0) and bin/tblextr.py; ROCm/rocprofiler-sdk, source/lib/output/generateCSV.cpp and
source/lib/python/rocpd/source/csv.cpp; ROCm/rocprofiler-compute, src/utils/rocpd_data.py.
"""

from __future__ import annotations

import re
from functools import lru_cache

NAME = ("kernelname",)
START = ("beginns", "starttimestamp", "begintimestamp", "starttime", "startns", "begin", "start")
END = ("endns", "endtimestamp", "stoptimestamp", "endtime", "stoptime", "end", "stop")
DURATION = ("durationns", "duration")
DISPATCH = ("dispatchid", "dispatch", "index")
DEVICE = ("gpuid", "agentid", "agentabsindex", "devid", "deviceid", "device")
QUEUE = ("queueid", "queue", "stream")
GRID = ("grd", "gridsize", "grid")
WORKGROUP = ("wgr", "workgroupsize", "workgroup")
GRID_XYZ = (("gridsizex", "gridx"), ("gridsizey", "gridy"), ("gridsizez", "gridz"))
WORKGROUP_XYZ = (
    ("workgroupsizex", "workgroupx", "blockx"),
    ("workgroupsizey", "workgroupy", "blocky"),
    ("workgroupsizez", "workgroupz", "blockz"),
)
SIZE = ("size", "bytes", "sizebytes")
SOURCE = ("sourceagentid", "srcagentabsindex")
DESTINATION = ("destinationagentid", "dstagentabsindex")
COUNTER_NAME = ("countername",)
COUNTER_VALUE = ("countervalue", "value")
#: The part of a chip that a row is about; MI300 has eight of them.
PART = ("xccid", "xcc", "xcdid", "xcd")
#: Where a dispatch ran: ids of dispatches begin again in each of these.
PLACE = tuple(
    "guid nodeid node nid host hostname machine rank mpirank processid process pid".split()
)
#: What tells dispatches apart in a place. An id of the call that launched it is the last choice, as
#: a graph launches many with one.
IDS = (*DISPATCH, "correlationid")
#: What rocprofv2 calls the operations on a GPU in the two domains that it traces; the other domains
#: are calls of the program, which name kernels too.
GPU_DOMAINS = ("HIP_OPS_DOMAIN", "HSA_OPS_DOMAIN")

_OTHERS = (
    # v1
    "queueindex tid lds lmem scr vgpr archvgpr accumvgpr sgpr fbar wavesize sig obj dispatchns "
    "completens time "
    # rocprofv2 and rocprof-compute
    "threadid ldsperworkgroup scratchsize scratchperworkitem accumulativevgpr correlationid record "
    "domain operation operationname function kernelid dispatchunit "
    # rocprofv3
    "kind direction streamid ldsblocksize vgprcount accumvgprcount sgprcount privatesegmentsize "
    "groupsegmentsize contextid stackid "
    # traces in JSON
    "name args data roctxrange cid correlation externalid queued sharedmemory"
).split()
KNOWN = frozenset(
    [
        *NAME, *START, *END, *DURATION, *DISPATCH, *DEVICE, *QUEUE, *GRID, *WORKGROUP, *SIZE,
        *SOURCE, *DESTINATION, *COUNTER_NAME, *COUNTER_VALUE, *PART, *PLACE, *_OTHERS, "",
        "unnamed0", *(name for names in (*GRID_XYZ, *WORKGROUP_XYZ) for name in names),
    ]
)  # fmt: skip

#: A hardware counter is its block, `_`, and what the block counts; then how instances were put
#: together, or the number of one. Blocks: counter_defs.yaml of ROCm/rocprofiler-sdk.
_HARDWARE = re.compile(
    r"(?:SQ|SQC|SQG|SPI|TA|TD|TCP|TCC|TCA|TCI|TCS|GRBM|GRBMSE|CPC|CPF|CPG|GDS|GCEA|GCR|GCUTCL2|"
    r"GL1A|GL1C|GL1CG|GL2A|GL2C|GUS|RLC|RMI|SDMA\d?|ATCL2|MCVML2|UTCL1|UTCL2|CHA|CHC|CHCG)"
    r"_[A-Z0-9][A-Z0-9_]*(?:_(?:sum|avr|avg|min|max|expand))?(?:\[\d{1,4}\])?",
    re.ASCII,
)
#: Metrics that AMD derives from them: the names are those of metrics.xml and counter_defs.yaml.
_DERIVED = re.compile(
    r"(?:(?:FETCH|WRITE|[RW]DATA1)_SIZE|WRITE_REQ_32B|TOTAL_\d\d_OPS|RDC_OPS_\d\d_PER_SIMDCYCLE|"
    r"(?:CU|GPU|SIMD|CP|EA)_(?:UTIL|UTILIZATION|OCCUPANCY)|(?:CU|SIMD|XCC|SE|SA|LDS)_NUM|"
    r"MAX_WAVE_SIZE|WAVE_(?:DEP|ISSUE)_WAIT|(?:Fetch|Write)Size|Wavefronts|MemWrites32B|"
    r"WaveDuration|WaveExec|[sv]L1d\w+|"
    r"[A-Z]\w*?(?:Insts|Busy|Util|Utilization|Stalled|StalledByLDS|BankConflict|CacheHit|"
    r"Percent|OccupancyPerCU|OccupancyPerActiveCU|Rate|Ratio|Latency|Flops|Iops|Wait))"
    r"(?:_(?:sum|avr|min|max))?",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """The name without case, blanks and punctuation: `Kernel_Name` as `kernelname`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@lru_cache(maxsize=4096)
def is_counter(name: str) -> bool:
    """Whether the name is built as those of hardware counters and AMD's metrics are."""
    return bool(_HARDWARE.fullmatch(name) or _DERIVED.fullmatch(name))


@lru_cache(maxsize=4096)
def is_additive(name: str) -> bool:
    """Whether the whole chip's value is the sum over its parts: false for means and shares."""
    if name.endswith(("_avr", "_avg", "_min", "_max")):
        return False
    sums = ("FETCH_SIZE", "WRITE_SIZE", "FetchSize", "WriteSize", "Wavefronts")
    return name in sums or _HARDWARE.fullmatch(name) is not None
