"""Files and answers that no card would give: none raises, and no value is made up.

Every input is read twice: by a source, and by a plain rule that knows where a value could come from
at all. An exception that escapes, or a value that is nowhere in the input, is wrong.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perfkit.gpu.card import Cards
from perfkit.gpu.device.record import PADDING
from perfkit.gpu.device.schema import NEVER_ZERO, PLAUSIBLE_RANGES, FieldValue, Found
from perfkit.gpu.metrics.layouts import ATTRIBUTES, LAYOUTS
from perfkit.gpu.metrics.table import MetricsError, parse_table
from perfkit.gpu.processes import fdinfo
from perfkit.gpu.sources import gpu_metrics, smi, sysfs
from perfkit.gpu.sources.asking import ToolError

_PARTS = (
    b"0 1 11 100 101 255 -1 44000 511000 41045000 4294967295 4294967296 18446744073709551615 "
    b"99999999999999999999999999 0x10 1_000 +5 1e3 nan inf N/A unknown 8.0 GT/s PCIe x16 , * : S: "
    b"0: 300Mhz 1: 1000Mhz * 2: 1750MHz"
).split(b" ")
_JOINTS = (b"", b" ", b"\n", b"\0", b"\r\n", b"\t", b"\0" * 64)
#: Field, file below the device, and how many of the file's unit make the field's.
_FILES: tuple[tuple[str, str, int], ...] = (
    ("gpu_busy_pct", "gpu_busy_percent", 1),
    ("vram_used_bytes", "mem_info_vram_used", 1),
    ("power_w", "hwmon/hwmon3/power1_average", 1_000_000),
    ("temp_edge_c", "hwmon/hwmon3/temp1_input", 1_000),
    ("fan_rpm", "hwmon/hwmon3/fan1_input", 1),
    ("sclk_hz", "pp_dpm_sclk", 1),
    ("pcie_speed_gts", "current_link_speed", 1),
    ("pcie_width", "current_link_width", 1),
)
_ROCM = (
    'WARNING: no such file\n{"card0": {"PCI Bus": "0000:09:00.0", "GPU use (%)": "11", '
    '"Average Graphics Package Power (W)": "39.0", "sclk clock speed:": "(300Mhz)", '
    '"Temperature (Sensor edge) (C)": "31.0", "VRAM Total Memory (B)": "34342961152", '
    '"pcie clock level": "1 (8.0GT/s x16)", "Fan RPM": "N/A"}, "system": {"Driver": "6.2"}}\n'
    '{"card0": {"VRAM Total Used Memory (B)": "77"}, "card0": {"GPU use (%)": "N/A"}}'
)
_AMD = (
    '[{"gpu": 0, "usage": {"gfx_activity": {"value": 42, "unit": "%"}, "umc_activity": "N/A"}, '
    '"power": {"socket_power": 250}, "clock": {"gfx_0": {"clk": {"value": 1877, "unit": "MHz"}}}, '
    '"mem_usage": {"total_vram": {"value": 16384, "unit": "MB"}}}]\nnote\n'
    '{"gpu_data": [{"gpu": 1, "fan": {"rpm": "1,200"}, "power": "9 W", "usage": "N/A"}]}'
)
_INSERTS = ["[" * 50, "9" * 30, "\0", *'" { } , 1e999 NaN N/A null - é'.split(" "), ""]
_CHIPS = ("", "Navi 21", "Renoir", "Van Gogh", "Phoenix", "Strix", "Aqua Vanjaram MI300")
_NUMBERS = (0, 1, 42, 97, 320, 5_500, 65_535, 65_536, 2**32 - 1, 2**63, 2**64 - 1)
_FDINFO = (
    "drm-driver:\tamdgpu\ndrm-pdev:\t0000:09:00.0\ndrm-client-id:\t7\n"
    "drm-memory-vram:\t524288 KiB\ndrm-memory-gtt:\t2048 KiB\ndrm-engine-gfx:\t1000000 ns\n"
    "drm-total-vram:\t3 GiB\ndrm-shared-vram:\t7 MiB\namd-evicted-vram:\t512 KiB\n"
)


def fuzz(inputs: int, seed: int = 0) -> Iterator[str]:
    """Feed inputs to every source in turns; yields each mistake, in words."""
    rng = random.Random(seed)
    with TemporaryDirectory(prefix="gpu-fuzz-") as folder:
        read_file = _tree(Path(folder))
        readers: tuple[Callable[[random.Random], str | None], ...] = (
            read_file, _metrics, _rocm_smi, _amd_smi, _fdinfo,
        )  # fmt: skip
        for number in range(inputs):
            reader = readers[number % len(readers)]
            try:
                wrong = reader(rng)
            except Exception as error:
                wrong = f"{type(error).__name__} escaped: {error}"
            if wrong:
                yield f"input {number} of seed {seed}: {wrong}"


def _noise(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return rng.randbytes(rng.randrange(80))
    parts = [rng.choice(_PARTS) + rng.choice(_JOINTS) for _ in range(rng.randrange(5))]
    return b"".join(parts)


def _tree(root: Path) -> Callable[[random.Random], str | None]:
    """A card whose files are overwritten one at a time, read through descriptors held open."""
    device = root / "card0" / "device"
    (device / "hwmon" / "hwmon3").mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    (device / "hwmon" / "hwmon3" / "name").write_text("amdgpu\n")
    (device / "hwmon" / "hwmon3" / "temp1_label").write_text("edge\n")
    card = next(iter(Cards(root)))

    def read(rng: random.Random) -> str | None:
        field, file, per = rng.choice(_FILES)
        content = _noise(rng)
        (device / file).write_bytes(content)
        found = card.find(card.files.read(), [field])
        (device / file).write_bytes(b"")
        value = found.values[field].value if field in found.values else None
        if value is None or value in _told(field, content, per):
            return _beyond(found)
        return f"{file} with {content!r} gave {value}"

    return read


def _told(field: str, content: bytes, per: int) -> set[float]:
    """Every value that a file may be said to hold."""
    if field == "sclk_hz":
        return {int(mhz) * 1_000_000 for mhz in re.findall(rb"(\d+) *M[Hh]z[ \t]*\*", content)}
    if field == "pcie_speed_gts":
        return {float(speed) for speed in re.findall(rb"^([\d.]+) GT/s", content)}
    whole = re.fullmatch(rb"(-?[0-9]+)[\0\s]*", content)
    return {int(whole[1]) / per if per > 1 else int(whole[1])} if whole else set()


def _metrics(rng: random.Random) -> str | None:
    data = _attributes(rng) if rng.random() < 0.2 else _table(rng)
    data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data
    found = Found()
    chip, percent = rng.choice(_CHIPS), rng.choice([None, rng.randrange(101)])
    try:
        table = parse_table(data)
    except MetricsError:
        return None
    gpu_metrics.interpret(table, PLAUSIBLE_RANGES, found, chip, lambda file: percent)
    step = 1 if table.revision == (1, 9) else 2  # attributes are not aligned
    members = {
        int.from_bytes(data[at : at + width], "little")
        for width in (1, 2, 4, 8)
        for at in range(0, len(data) - width + 1, min(width, step))
    }
    for name, field in found.values.items():
        if field.source.endswith(":partitions"):  # a mean, which is no member
            continue
        raw = [field.value * scale for scale in (1, 1e-6, 10, 100, 1_000, 2**16)]
        if not any(round(r) in members and abs(r - round(r)) <= 1e-6 * abs(r) for r in raw):
            return f"v{table.revision} gave {name} {field.value}"
    return _beyond(found)


def _table(rng: random.Random) -> bytes:
    """A table of a known layout, or of one that there is not."""
    unknown = (rng.randrange(256), rng.randrange(256)), rng.randrange(400)
    revision, size = rng.choice([*LAYOUTS, unknown])
    if rng.random() < 0.1:
        size = rng.randrange(400)
    body = rng.randbytes(max(0, size - 4))
    if rng.random() < 0.3:  # small figures, so that some of them are plausible
        body = bytes(byte if n % 2 == 0 else 0 for n, byte in enumerate(body))
    return size.to_bytes(2, "little") + bytes(revision) + body


def _attributes(rng: random.Random) -> bytes:
    """A table that describes itself, whose encodings are mostly possible."""
    body = b""
    count = rng.randrange(8)
    for _ in range(count):
        id_ = rng.choice([*ATTRIBUTES, rng.randrange(1024)])
        unit = ATTRIBUTES[id_].unit if id_ in ATTRIBUTES else rng.randrange(256)
        kind, instances = rng.randrange(9), rng.randrange(4)
        encoding = unit << 24 | kind << 20 | id_ << 10 | instances
        width = 1 << kind // 2
        values = b"".join(rng.choice(_NUMBERS).to_bytes(8, "little") for _ in range(instances))
        body += encoding.to_bytes(8, "little") + values[: instances * width]
    header = (8 + len(body)).to_bytes(2, "little") + b"\1\x09"
    return header + (count + rng.choice([0, 0, 0, 1])).to_bytes(4, "little") + body


def _mutated(rng: random.Random, text: str) -> str:
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(text) + 1)
        insert = rng.choice(_INSERTS)
        text = text[:at] + insert + text[at + rng.randrange(8) :]
    return text


def _rocm_smi(rng: random.Random) -> str | None:
    return _answered(_mutated(rng, _ROCM), smi.parse_rocm_smi)


def _amd_smi(rng: random.Random) -> str | None:
    return _answered(_mutated(rng, _AMD), smi.parse_amd_smi)


def _answered(text: str, read: Callable[[str], Mapping[str, Found]]) -> str | None:
    try:
        cards = read(text)
    except ToolError:
        return None
    figures = {float(figure) for figure in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text)}
    for found in cards.values():
        for name, field in found.values.items():
            if not _in(field, figures):
                return f"{text!r} gave {name} {field.value}"
        if wrong := _beyond(found):
            return wrong
    return None


def _in(field: FieldValue, figures: set[float]) -> bool:
    """Whether a figure of the text is the value, in a unit that the tools use."""
    units = (1, 1e-6, 1e-3, 1_000, 1_000_000, 1_000_000_000, 1 << 10, 1 << 20, 1 << 30, 1 << 40)
    return any(abs(field.value / unit - f) <= 1e-9 * abs(f) for unit in units for f in figures)


def _beyond(found: Found) -> str | None:
    for name, field in found.values.items():
        low, high = PLAUSIBLE_RANGES[name]
        if not low <= field.value <= high or (field.value == 0 and name in NEVER_ZERO):
            return f"{name} is {field.value}"
    return None


def _fdinfo(rng: random.Random) -> str | None:
    text = _mutated(rng, _FDINFO)
    client = fdinfo.parse(text)
    if client is None:
        return None
    figures = {int(figure) for figure in re.findall(r"\d+", text)}
    memory = (client.vram_bytes, client.gtt_bytes, client.vram_shared_bytes)
    for told in (*memory, client.vram_evicted_bytes, *client.engine_ns.values()):
        scaled = {(told or 0) >> shift for shift in (0, 10, 20, 30, 40)}
        if told is not None and figures.isdisjoint(scaled):
            return f"{text!r} gave {told}"
    return None


@pytest.mark.parametrize(
    ("inputs", "seed"), [(3_000, 1), pytest.param(100_000, 0, marks=pytest.mark.slow)]
)
def test_bad_inputs_give_no_exception_and_no_made_up_value(inputs: int, seed: int) -> None:
    assert list(fuzz(inputs, seed)) == []


# The fuzz finds bad sources


@pytest.mark.parametrize(
    ("guess", "inputs", "wrong"),
    [
        (lambda raw: 0, 100, " gave 0"),
        (lambda raw: int(raw.rstrip(PADDING)), 20_000, r"1_000|\+5"),
    ],
)
def test_a_parser_that_guesses_is_caught(
    monkeypatch: pytest.MonkeyPatch, guess: Callable[[bytes], int], inputs: int, wrong: str
) -> None:
    monkeypatch.setattr(sysfs, "parse_number", guess)
    assert any(re.search(wrong, text) for text in fuzz(inputs))


def test_an_exception_that_escapes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise KeyError("drm-pdev")

    monkeypatch.setattr(fdinfo, "parse", fail)
    assert list(fuzz(5)) == ["input 4 of seed 0: KeyError escaped: 'drm-pdev'"]


@pytest.mark.parametrize("parser", ["parse_rocm_smi", "parse_amd_smi", "interpret"])
def test_a_value_that_is_not_in_the_answer_is_caught(
    monkeypatch: pytest.MonkeyPatch, parser: str
) -> None:
    found = Found()
    found.put("temp_edge_c", 123.456, "nowhere")
    if parser == "interpret":
        monkeypatch.setattr(gpu_metrics, parser, lambda *a: a[2].values.update(found.values))
    else:
        monkeypatch.setattr(smi, parser, lambda text: {"card0": found})
    assert any("gave temp_edge_c 123.456" in wrong for wrong in fuzz(50))
