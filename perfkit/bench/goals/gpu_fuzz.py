"""Files and answers that no card would give, and a second reader that tells what they hold.

A sampler that guesses is worse than one that knows nothing. Every input here is read twice: by the
sampler, and by a plain rule that knows where a value could come from at all. An exception that
escapes, or a value that is nowhere in the input, counts against the sampler.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from perfkit.gpu import amd_smi, fdinfo, rocm_smi
from perfkit.gpu.base import LIMITS, Found, Reading
from perfkit.gpu.card import Cards
from perfkit.gpu.gpu_metrics import LAYOUTS, MetricsError, interpret, parse
from perfkit.gpu.tools import ToolError

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
    '"pcie clock level": "1 (8.0GT/s x16)", "Fan RPM": "N/A"}, "system": {"Driver": "6.2"}}'
)
_AMD = (
    '[{"gpu": 0, "usage": {"gfx_activity": {"value": 42, "unit": "%"}, "umc_activity": "N/A"}, '
    '"power": {"socket_power": 250}, "clock": {"gfx_0": {"clk": {"value": 1877, "unit": "MHz"}}}, '
    '"mem_usage": {"total_vram": {"value": 16384, "unit": "MB"}}}]'
)
_INSERTS = (
    "",
    "{",
    "}",
    "[" * 50,
    '"',
    ",",
    "1e999",
    "NaN",
    "N/A",
    "null",
    "-",
    "9" * 30,
    "\0",
    "é",
)
_FDINFO = (
    "drm-driver:\tamdgpu\ndrm-pdev:\t0000:09:00.0\ndrm-client-id:\t7\n"
    "drm-memory-vram:\t524288 KiB\ndrm-memory-gtt:\t2048 KiB\ndrm-engine-gfx:\t1000000 ns\n"
)


def fuzz(inputs: int, seed: int = 0) -> Iterator[str]:
    """Feed so many inputs to every reader in turns; yields what is wrong, in words."""
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
        reading = card.read([field]).readings.get(field)
        (device / file).write_bytes(b"")
        if reading is None:
            return None
        told = _told(field, content, per)
        low, high = LIMITS[field]
        if reading.value in told and low <= reading.value <= high:
            return None
        return f"{file} with {content!r} gave {reading.value}"

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
    revision = rng.choice([*LAYOUTS, (rng.randrange(256), rng.randrange(256))])
    size = LAYOUTS.get(revision, (rng.randrange(400), ""))[0]
    if rng.random() < 0.1:
        size = rng.randrange(400)
    body = rng.randbytes(max(0, size - 4))
    if rng.random() < 0.3:  # small figures, so that some of them are plausible
        body = bytes(byte if n % 2 == 0 else 0 for n, byte in enumerate(body))
    data = size.to_bytes(2, "little") + bytes(revision) + body
    data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data
    found = Found()
    try:
        interpret(parse(data), LIMITS, found)
    except MetricsError:
        return None
    members = {
        int.from_bytes(data[at : at + width], "little")
        for width in (1, 2, 4, 8)
        for at in range(0, len(data) - width + 1, width)
    }
    for name, reading in found.readings.items():
        raw = [reading.value * scale for scale in (1, 1e-6, 10, 100, 1_000, 2**16)]
        if not any(round(r) in members and abs(r - round(r)) <= 1e-6 * abs(r) for r in raw):
            return f"v{revision[0]}.{revision[1]} gave {name} {reading.value}"
    return _beyond(found)


def _mutated(rng: random.Random, text: str) -> str:
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(text) + 1)
        insert = rng.choice(_INSERTS)
        text = text[:at] + insert + text[at + rng.randrange(8) :]
    return text


def _rocm_smi(rng: random.Random) -> str | None:
    return _answered(_mutated(rng, _ROCM), rocm_smi.parse)


def _amd_smi(rng: random.Random) -> str | None:
    return _answered(_mutated(rng, _AMD), amd_smi.parse)


def _answered(text: str, read: Callable[[str], Mapping[str, Found]]) -> str | None:
    try:
        cards = read(text)
    except ToolError:
        return None
    figures = {float(figure) for figure in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text)}
    for found in cards.values():
        for name, reading in found.readings.items():
            if not _in(reading, figures):
                return f"{text!r} gave {name} {reading.value}"
        if wrong := _beyond(found):
            return wrong
    return None


def _in(reading: Reading, figures: set[float]) -> bool:
    """Whether a figure of the text is the value, in a unit that the tools use."""
    units = (1, 1e-3, 1_000, 1_000_000, 1 << 10, 1 << 20, 1 << 30)
    return any(abs(reading.value / unit - f) <= 1e-9 * abs(f) for unit in units for f in figures)


def _beyond(found: Found) -> str | None:
    for name, reading in found.readings.items():
        low, high = LIMITS[name]
        if not low <= reading.value <= high:
            return f"{name} is {reading.value}"
    return None


def _fdinfo(rng: random.Random) -> str | None:
    text = _mutated(rng, _FDINFO)
    client = fdinfo.parse(text)
    if client is None:
        return None
    figures = {int(figure) for figure in re.findall(r"\d+", text)}
    for told in (client.vram_bytes, client.gtt_bytes, *client.engine_ns.values()):
        scaled = {told, (told or 0) >> 10, (told or 0) >> 20, (told or 0) >> 30}
        if told is not None and figures.isdisjoint(scaled):
            return f"{text!r} gave {told}"
    return None
