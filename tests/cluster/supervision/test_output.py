"""Workers' output: whole lines in a file, none that drives a terminal, no wait for a reader."""

import os
import re

from cluster.supervision import output
from cluster.supervision.output import CrewLog, Lines


def test_lines_come_from_any_chunks_and_have_a_bound():
    lines = Lines()
    assert lines.split(b"a\nb") == [b"a"]
    assert lines.split(b"c\n\n") == [b"bc", b""]
    long = b"x" * (output.LINE_BYTES_MAX + 1)
    assert lines.split(long) == [long[:-1], long[-1:]]
    assert lines.split(b"rest") == []
    assert (lines.end(), lines.end()) == ([b"rest"], [])


def test_the_file_has_everything_and_the_reader_what_is_of_the_level(tmp_path):
    read, write = os.pipe()
    path = tmp_path / "new" / "workers.log"
    log = CrewLog(path, "warning", write)
    log.write("info", "w", "quiet")
    log.write("warning", "w", "loud \x1b[31m caf\u00e9\t\udce9")
    log.note("of its own")
    assert os.read(read, 1000).decode() == "w loud \\u001b[31m café\t\\udce9\n"
    kept = [line.split(maxsplit=2)[2] for line in path.read_text().splitlines()]
    assert kept == [
        "info    w quiet",
        "warning w loud \\u001b[31m café\t\\udce9",
        "warning supervisor of its own",
    ]
    assert path.stat().st_mode & 0o77 == 0
    os.close(read)
    os.close(write)


def test_a_reader_that_does_not_read_is_told_how_much_it_missed(tmp_path):
    read, write = os.pipe()
    log = CrewLog(tmp_path / "log", "info", write)
    for _ in range(3000):
        log.write("info", "w", "x" * 100)
    shown = b""
    while b"not shown" not in shown:
        shown += os.read(read, 1 << 20)
        log.flush()
    missed = int(re.search(rb"not shown: ([\d,]+) lines", shown)[1].replace(b",", b""))
    assert shown.count(b"x" * 100) + missed == 3000
    assert (tmp_path / "log").read_text().count("\n") == 3000
    os.close(read)
    log.write("info", "w", "nobody reads")
    os.close(write)


def test_a_large_file_begins_again_and_keeps_the_older_half(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "FILE_BYTES_MAX", 200)
    log = CrewLog(tmp_path / "log", "off", -1)
    for number in range(5):
        log.write("info", "w", f"{number}" * 60)
    assert "1" * 60 in (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_size <= 300
