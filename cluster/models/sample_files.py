"""Small files of many types, made of the sources of the installed Python: inputs for ``file-type``.

Each source is turned into each type of `MAKERS`, so a file has real content in a real format. Equal
installations make equal files.
"""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import html
import io
import json
import lzma
import marshal
import os
import pickle
import plistlib
import sqlite3
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from importlib.util import MAGIC_NUMBER
from pathlib import Path

#: Sources that are shorter say too little, longer ones take time to convert.
SOURCE_BYTES_MIN, SOURCE_BYTES_MAX = 2_000, 60_000


def sample_files(sources_max: int) -> list[tuple[str, bytes]]:
    """Each file's type and content: that many sources, or as many as there are, in each type."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"))
    fit = [it for it in paths if SOURCE_BYTES_MIN <= it.stat().st_size <= SOURCE_BYTES_MAX]
    texts = [it.read_text("utf-8", "replace") for it in fit[:: max(1, len(fit) // sources_max)]]
    return [(kind, make(text)) for text in texts[:sources_max] for kind, make in MAKERS.items()]


def _words(text: str) -> list[str]:
    return [word for word in text.split() if word.isalpha()]


def _zip(text: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("source.py"), text)
    return target.getvalue()


def _tar(text: str) -> bytes:
    target, content = io.BytesIO(), text.encode()
    about = tarfile.TarInfo("source.py")
    about.size = len(content)
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(about, io.BytesIO(content))
    return target.getvalue()


def _wav(text: str) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setparams((1, 1, 8_000, 0, "NONE", ""))
        sound.writeframes(zlib.compress(text.encode()))
    return target.getvalue()


def _png(text: str) -> bytes:
    """A picture, 64 wide, grey: https://www.w3.org/TR/png/."""
    content = text.encode()
    rows = [content[at : at + 64].ljust(64) for at in range(0, len(content), 64)]

    def chunk(name: bytes, data: bytes) -> bytes:
        named = name + data
        return len(data).to_bytes(4, "big") + named + zlib.crc32(named).to_bytes(4, "big")

    size = (64).to_bytes(4, "big") + len(rows).to_bytes(4, "big")
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (
        chunk(b"IHDR", size + bytes([8, 0, 0, 0, 0])),
        chunk(b"IDAT", pixels),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _csv(text: str) -> bytes:
    target = io.StringIO()
    rows = csv.writer(target)
    rows.writerow(["number", "length", "word"])
    rows.writerows([at, len(word), word] for at, word in enumerate(_words(text)))
    return target.getvalue().encode()


def _sqlite(text: str) -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE words (number INTEGER PRIMARY KEY, word TEXT)")
        database.executemany("INSERT INTO words (word) VALUES (?)", [(it,) for it in _words(text)])
        database.commit()
        return database.serialize()


def _mail(text: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"] = "one@example.org", "other@example.org"
    mail["Subject"] = " ".join(_words(text)[:6])
    mail.set_content(" ".join(_words(text)))
    return mail.as_bytes()


def _diff(text: str) -> bytes:
    lines = text.splitlines(keepends=True)
    changed = [line.upper() if at % 20 == 7 else line for at, line in enumerate(lines)]
    return "".join(difflib.unified_diff(lines, changed, "a/source.py", "b/source.py")).encode()


def _listed(start: str, form: str, end: str, between: str = "\n") -> Callable[[str], bytes]:
    """A maker of a text with a line for each word."""

    def make(text: str) -> bytes:
        lines = between.join(form.format(at=at, word=it) for at, it in enumerate(_words(text)))
        return f"{start}{lines}{end}".encode()

    return make


MAKERS: Mapping[str, Callable[[str], bytes]] = {
    "python": str.encode,
    "pythonbytecode": lambda it: MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(it, "x", "exec")),
    "gzip": lambda it: gzip.compress(it.encode(), mtime=0),
    "bzip": lambda it: bz2.compress(it.encode()),
    "xz": lambda it: lzma.compress(it.encode()),
    "zlibstream": lambda it: zlib.compress(it.encode()),
    "zip": _zip,
    "tar": _tar,
    "wav": _wav,
    "png": _png,
    "csv": _csv,
    "sqlite": _sqlite,
    "eml": _mail,
    "diff": _diff,
    "pickle": lambda it: pickle.dumps(_words(it)),
    "appleplist": lambda it: plistlib.dumps({"words": _words(it)}),
    "applebplist": lambda it: plistlib.dumps({"words": _words(it)}, fmt=plistlib.FMT_BINARY),
    "json": lambda it: json.dumps({"words": _words(it), "length": len(it)}, indent=1).encode(),
    "txt": lambda it: " ".join(_words(it)).encode(),
    "html": lambda it: (
        f"<!DOCTYPE html>\n<html><head><title>{_words(it)[0]}</title></head><body>"
        f"<p>{html.escape(' '.join(_words(it)))}</p></body></html>\n"
    ).encode(),
    "xml": _listed(
        '<?xml version="1.0"?>\n<words>\n', '  <word id="{at}">{word}</word>', "\n</words>\n"
    ),
    "svg": _listed(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 900">\n',
        '<text x="10" y="{at}">{word}</text>', "\n</svg>\n",
    ),
    "sql": _listed(
        "CREATE TABLE words (id INTEGER, word TEXT);\n",
        "INSERT INTO words VALUES ({at}, '{word}');", "\n",
    ),
    "yaml": _listed("---\nwords:\n", "  - id: {at}\n    word: {word}", "\n"),
    "ini": _listed("[words]\n", "word_{at} = {word}", "\n"),
    "markdown": _listed("# Words\n\nA list:\n\n", "* **{at}**: [{word}](#{word})", "\n"),
    "shell": _listed("#!/bin/sh\nset -eu\n", 'echo "{word}" >> "$HOME/list{at}"', "\n"),
    "c": _listed(
        "#include <stdio.h>\n\nint main(void)\n{\n",
        '    printf("%d {word}\\n", {at});', "\n    return 0;\n}\n",
    ),
    "javascript": _listed(
        "'use strict';\nconst words = new Map();\n", "words.set({at}, '{word}');",
        "\nmodule.exports = { words };\n",
    ),
    "css": _listed("", ".{word} {{\n  margin-left: {at}px;\n}}", "\n"),
    "latex": _listed(
        "\\documentclass{article}\n\\begin{document}\n", "\\section{{{word}}} Number {at}.",
        "\n\\end{document}\n",
    ),
}  # fmt: skip
