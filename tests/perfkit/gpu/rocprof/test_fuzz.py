"""Any bytes give a profile with possible figures, or RocprofError, and nothing else."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.gpu.rocprof import KernelProfile, RocprofError, parse
from perfkit.gpu.rocprof.cells import LostDigits, NotANumber, exact, rounded
from tests.perfkit.gpu.profiles import MADE_UP

SEEDS = [text.encode() for text in MADE_UP.values()]
#: What tears such files in practice, and what numbers and names may be mistaken for.
SPLICES = [
    b"", b",", b'"', b"\n", b"\r\n", b"(", b")", b"[0]", b"{", b"}", b"\\ud800", b"\x00", b"\xff",
    b"1.62068E+14", b"1e999", b"-1", b"NaN", b"Infinity", b"9" * 5000, b"0x7f", b"\xef\xbb\xbf",
    b"null", b"true", b"[]", b"Dispatch_ID(1", b"dispatch[1], ", b"Domain(HIP_OPS_DOMAIN), ",
    b"KernelName", b"Counter_Name", b"FETCH_SIZE", b"TCC_MC_RDREQ[9]", "é\u2028".encode(),
]  # fmt: skip


def mutated(seed: bytes, random: random.Random) -> bytes:
    """A file with a few places cut out, doubled or replaced."""
    content = bytearray(seed)
    for _ in range(random.randint(1, 6)):
        start = random.randint(0, len(content))
        end = min(len(content), start + random.choice((0, 1, 5, 40)))
        kind = random.randint(0, 3)
        if kind == 0:
            content[start:end] = content[start:end] * 2
        elif kind == 1 and start < len(content):
            content[start] = random.randint(0, 255)
        else:
            content[start:end] = random.choice(SPLICES)
    return bytes(content)


def check(content: bytes) -> KernelProfile | None:
    """Read it; every figure is known and possible, or None. None if it is refused."""
    try:
        found = parse(content, "fuzz")
    except RocprofError as error:
        if re.match(r"fuzz(, line \d+)?: .+; .+", str(error)):
            return None
        raise
    for record in (*found.kernels, *found.transfers):
        for time in (record.start_ns, record.duration_ns):
            assert time is None or (isinstance(time, int) and time >= 0)
    for kernel in found.kernels:
        assert kernel.name.isprintable()
        assert all(size > 0 for size in (*(kernel.grid or ()), *(kernel.workgroup or ())))
        for size in (kernel.fetched_bytes, kernel.written_bytes):
            assert size is None or (size >= 0 and kernel.counters)
    json.dumps(found.to_json(found.top_kernels()), allow_nan=False).encode()
    found._repr_html_().encode()
    return found


@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_a_torn_file_gives_a_profile_or_the_error(seed: bytes, random: random.Random) -> None:
    check(mutated(seed, random))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200)
def test_random_bytes_give_the_error_or_nothing(content: bytes) -> None:
    found = check(content)
    assert found is None or not found.kernels


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
@settings(max_examples=100)
def test_times_are_read_as_they_were_written(begin: int, duration: int) -> None:
    text = f"Index,KernelName,BeginNs,EndNs\n0,f,{begin + 1},{begin + 1 + duration}\n"
    (kernel,) = parse(text.encode()).kernels
    assert (kernel.start_ns, kernel.duration_ns) == (begin + 1, duration)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@settings(max_examples=100)
def test_a_number_is_read_as_it_is_or_not_at_all(value: float) -> None:
    for text in (repr(value), f"{value:g}", f"{value:.3f}"):
        try:
            assert rounded(exact(text)) == float(text)
        except (LostDigits, NotANumber):
            assert value >= 1e6, "nothing is lost of a small number"


@pytest.mark.slow
def test_a_hundred_thousand_torn_files() -> None:
    source = random.Random(5)
    outcomes = [check(mutated(source.choice(SEEDS), source)) is None for _ in range(100_000)]
    assert 0.05 < sum(outcomes) / len(outcomes) < 0.95, "both outcomes have to be tried"
