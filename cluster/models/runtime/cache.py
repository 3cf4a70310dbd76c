"""A cache of files that take long to make, built once for each host.

An entry is a folder with a record of its files. It appears whole or not at all: it is built beside
its place under the cache's one lock, which opens when its holder dies, and then renamed. Of four
workers that start at once one builds and three wait. A damaged entry is built again, and the caller
is told why.

Each check compares sizes and times of modification, and the content only where a time differs:
reading the whole content would undo the gain of mapping it. A disk that changes bytes behind the
file system's back goes unnoticed.

Who can write the cache chooses the graphs that workers run, so a folder that is not the user's own,
or that others may write, is refused, and such an entry is built again.

Over `CACHE_BYTES_MAX` the least recently used entries are removed. A process that has mapped one
keeps it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

CACHE_BYTES_MAX = 4 << 30

#: How many files' hashes are remembered.
HASHES_MAX = 64
#: Below this, hashing a file is quicker than looking its hash up.
REMEMBERED_BYTES_MIN = 16 << 20

RECORD = "record.json"
HASHES = "hashes.json"
LOCK = "lock"
BUILDING = ".building-"


class FileRecord(msgspec.Struct, frozen=True):
    """A file as it was written: its size, its time of modification and its content's hash."""

    size_bytes: int
    modified_ns: int
    sha256: str


class Entry(NamedTuple):
    """An entry's folder; ``reason`` says why it was built just now, None if it was there."""

    folder: Path
    reason: str | None


_RECORDS = msgspec.json.Decoder(dict[str, FileRecord])


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/perfkit``, by default in ``~/.cache``, by the XDG Base Directory rules."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "perfkit"


class Cache:
    """Entries by name in ``folder``, which is made on first use, for its owner only."""

    def __init__(self, folder: Path | None = None, most_bytes: int = CACHE_BYTES_MAX) -> None:
        self.folder = folder or default_folder()
        self._most_bytes = most_bytes

    def entry(self, name: str, build: Callable[[Path], None]) -> Entry:
        """The entry of that name; ``build`` fills an empty folder if it is missing or damaged.

        Raises:
            OSError: the cache cannot be read or written, is not this user's alone, or its file
            system knows no locks; and what ``build`` raises.
        """
        self._make()
        folder = self.folder / name
        if _flaw(folder) is None:
            os.utime(folder)
            return Entry(folder, None)
        with self._lock():
            reason = _flaw(folder)
            if reason is not None:
                self._build(folder, build)
                self._shrink(folder)
        return Entry(folder, reason)

    def discard(self, name: str) -> None:
        """Remove an entry that turned out to be unusable; the next call for it builds it again."""
        with self._lock():
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def sha256(self, path: Path) -> str:
        """The hash of a file, remembered while the file keeps its size and its time.

        Raises:
            OSError: the file cannot be read.
        """
        if path.stat().st_size < REMEMBERED_BYTES_MIN:
            return _hash(path)
        known = self._hashes()
        record = known.get(str(path.absolute()))
        if record is None or (record.size_bytes, record.modified_ns) != _shape(path):
            record = FileRecord(*_shape(path), _hash(path))
            with suppress(OSError):  # it is hashed again next time
                self._remember({**known, str(path.absolute()): record})
        return record.sha256

    def _hashes(self) -> dict[str, FileRecord]:
        try:
            self._make()
            return _RECORDS.decode((self.folder / HASHES).read_bytes())
        except (OSError, msgspec.DecodeError):
            return {}

    def _remember(self, hashes: dict[str, FileRecord]) -> None:
        newest = dict(list(hashes.items())[-HASHES_MAX:])
        self._make()
        # Of two processes at once the later wins; the earlier hashes again.
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(msgspec.json.encode(newest))
        os.replace(file.name, self.folder / HASHES)

    def _make(self) -> None:
        """Make the folder, for its owner only; PermissionError if it is there, but not so."""
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700, parents=True)
        strange = _strange(self.folder)
        above = self.folder.parent.stat().st_mode
        if above & stat.S_IWOTH and not above & stat.S_ISVTX:
            strange = "anyone may replace it: the folder above has no sticky bit"
        if strange:
            raise PermissionError(errno.EPERM, strange, str(self.folder))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._make()
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _build(self, folder: Path, build: Callable[[Path], None]) -> None:
        # The lock has one holder, so any other half-built folder was abandoned.
        for abandoned in self.folder.glob(f"{BUILDING}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self.folder))
        try:
            build(building)
            files = [path for path in sorted(building.iterdir()) if path.is_file()]
            records = {path.name: FileRecord(*_shape(path), _hash(path)) for path in files}
            (building / RECORD).write_bytes(msgspec.json.encode(records))
            for path in files:
                _flush(path)
            if folder.is_symlink():
                folder.unlink()
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _shrink(self, keep: Path) -> None:
        """Remove the least recently used entries until the bound holds, but not ``keep``."""
        entries = {record.parent for record in self.folder.glob(f"*/{RECORD}")}
        total_bytes = _size(keep)
        for folder in sorted(entries - {keep}, key=lambda it: it.stat().st_mtime, reverse=True):
            total_bytes += _size(folder)
            if total_bytes > self._most_bytes:
                shutil.rmtree(folder, ignore_errors=True)


def _strange(path: Path) -> str | None:
    """Why others could have written a file or folder; None for the user's own."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if found.st_uid != os.geteuid():
        return f"it belongs to the user {found.st_uid}, not to {os.geteuid()}"
    # A file's mode follows the umask and does not matter: its folder lets nobody else in.
    if stat.S_ISDIR(found.st_mode) and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write it (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w mends that"
    return None


def _flaw(folder: Path) -> str | None:
    """What is wrong with an entry; None if it is whole and the user's own."""
    try:
        for path in (folder, *folder.iterdir()):
            if strange := _strange(path):
                return f"{path.name}: {strange}"
        records = _RECORDS.decode((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return "it was not there yet"
    except msgspec.DecodeError as error:
        return f"its {RECORD} is broken: {error}"
    for name, record in records.items():
        path = folder / name
        if not path.is_file():
            return f"its file {name} is gone"
        size_bytes, modified_ns = _shape(path)
        if size_bytes != record.size_bytes:
            return f"its file {name} has {size_bytes:,} bytes instead of {record.size_bytes:,}"
        if modified_ns != record.modified_ns:
            if _hash(path) != record.sha256:
                return f"its file {name} is not the one that was written"
            os.utime(path, ns=(record.modified_ns, record.modified_ns))
    return None


def _shape(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def sha256_hex(content: bytes) -> str:
    """SHA-256 by the interpreter's own code, if there is any: hashlib would load OpenSSL into every
    worker for one small file.
    """
    module = next(name for name in ("_sha2", "_sha256", "hashlib") if find_spec(name))
    digest: str = import_module(module).sha256(content).hexdigest()
    return digest


def _hash(path: Path) -> str:
    if path.stat().st_size < REMEMBERED_BYTES_MIN:
        return sha256_hex(path.read_bytes())
    import hashlib  # 16 MiB in 8 ms instead of 42

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Write a file to the disk before its name appears, and drop it from memory: the page cache of
    freshly written data is so coarse that mapping one page would map its neighbours too.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
