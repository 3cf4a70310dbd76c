"""Cached files are built once, by one of many, whole or not at all, and again when damaged."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.models.repository.manifest import ModelError
from cluster.models.runtime import cache as module
from cluster.models.runtime.cache import Cache, default_folder, sha256_hex
from cluster.models.runtime.sharing import ModelFile, Workshop

CONTENT = b"made once"


class Builder:
    """Writes two files and counts how often it was asked to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        (folder / "graph").write_bytes(CONTENT)
        (folder / "weights").write_bytes(CONTENT * 10)


@pytest.fixture
def build() -> Builder:
    return Builder()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_an_entry_is_built_once_and_found_from_then_on(cache: Cache, build: Builder) -> None:
    assert cache.entry("a", build) == (cache.folder / "a", "it was not there yet")
    assert cache.entry("a", build) == (cache.folder / "a", None)
    assert Cache(cache.folder).entry("a", build).reason is None
    assert build.count == 1
    assert (cache.folder / "a" / "graph").read_bytes() == CONTENT
    assert os.stat(cache.folder).st_mode & 0o777 == 0o700


def test_of_many_threads_that_ask_at_once_one_builds(cache: Cache, build: Builder) -> None:
    together = threading.Barrier(4)
    reasons = []

    def ask() -> None:
        together.wait()
        reasons.append(cache.entry("a", build).reason)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.count == 1
    assert sorted(map(str, reasons)) == ["None"] * 3 + ["it was not there yet"]


def link(cache: Cache, elsewhere: Path) -> None:
    elsewhere.mkdir(mode=0o700)
    cache.folder.symlink_to(elsewhere)


def link_to_nothing(cache: Cache, elsewhere: Path) -> None:
    cache.folder.symlink_to(elsewhere)


def open_to_all(cache: Cache, _: Path) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)


def open_to_the_group(cache: Cache, _: Path) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o770)


def open_above(cache: Cache, _: Path) -> None:
    cache.folder.parent.chmod(0o777)


def given_away(cache: Cache, _: Path) -> None:
    cache.folder.mkdir(mode=0o700)
    os.chown(cache.folder, 12_345, -1)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (link, "it is a symbolic link"),
        (link_to_nothing, "it is a symbolic link"),
        (open_to_all, r"others may write it \(mode 777\); chmod go-w mends that"),
        (open_to_the_group, r"others may write it \(mode 770\)"),
        (open_above, "anyone may replace it: the folder above has no sticky bit"),
        pytest.param(given_away, "it belongs to the user 12345, not to 0", marks=needs_root),
    ],
)
def test_a_cache_that_others_could_fill_is_refused(
    cache: Cache, build: Builder, tmp_path: Path, prepare: Callable[..., None], reason: str
) -> None:
    prepare(cache, tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match=reason):
        cache.entry("a", build)
    assert build.count == 0
    source = tmp_path / "model.onnx"
    source.write_bytes(b"x")
    with pytest.raises(
        ModelError, match=rf"cache in .*cache cannot be used: {reason}.*; XDG_CACHE"
    ):
        Workshop(cache, "mine", source)._shared(ModelFile(source))


def swap_for_link(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")


def swap_file_for_link(folder: Path) -> None:
    (folder / "graph").rename(folder.with_name("moved"))
    (folder / "graph").symlink_to("../moved")


@pytest.mark.parametrize(
    ("swap", "reason"),
    [
        (swap_for_link, "a: it is a symbolic link"),
        (swap_file_for_link, "graph: it is a symbolic link"),
        (lambda folder: folder.chmod(0o777), "a: others may write it (mode 777)"),
        pytest.param(
            lambda folder: os.chown(folder / "graph", 12_345, -1),
            "graph: it belongs to the user 12345",
            marks=needs_root,
        ),
    ],
)
def test_an_entry_that_others_could_have_put_there_is_built_again(
    cache: Cache, build: Builder, swap: Callable[[Path], None], reason: str
) -> None:
    folder, _ = cache.entry("a", build)
    swap(folder)
    assert (cache.entry("a", build).reason or "").startswith(reason)
    assert cache.entry("a", build) == (folder, None)
    assert build.count == 2
    assert not folder.is_symlink()


def test_files_that_follow_a_loose_umask_are_still_ones_own(cache: Cache, build: Builder) -> None:
    before = os.umask(0)
    try:
        cache.entry("a", build)
        assert cache.entry("a", build).reason is None
    finally:
        os.umask(before)


def truncate(folder: Path) -> None:
    os.truncate(folder / "weights", 7)


def overwrite(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x" * 90)
    os.utime(folder / "weights", (0, 0))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "its file weights has 7 bytes instead of 90"),
        (overwrite, "its file weights is not the one that was written"),
        (lambda folder: (folder / "graph").unlink(), "its file graph is gone"),
        (lambda folder: (folder / "record.json").unlink(), "it was not there yet"),
        (lambda folder: (folder / "record.json").write_text("{"), "its record.json is broken: "),
    ],
)
def test_a_damaged_entry_is_built_again_with_the_reason(
    cache: Cache, build: Builder, damage: Callable[[Path], None], reason: str
) -> None:
    folder = cache.entry("a", build).folder
    damage(folder)
    assert str(cache.entry("a", build).reason).startswith(reason)
    assert cache.entry("a", build).reason is None
    assert (folder / "weights").read_bytes() == CONTENT * 10


def test_a_copy_with_other_times_is_compared_once_and_kept(
    cache: Cache, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(cache.entry("a", build).folder / "weights", (0, 0))
    assert cache.entry("a", build).reason is None
    monkeypatch.delattr(module, "_hash")
    assert cache.entry("a", build).reason is None


def test_a_build_that_fails_leaves_nothing_behind(cache: Cache, build: Builder) -> None:
    def fail(folder: Path) -> None:
        (folder / "graph").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.entry("a", fail)
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]
    assert cache.entry("a", build).reason == "it was not there yet"


def test_a_builder_that_is_killed_is_followed_by_another(cache: Cache, build: Builder) -> None:
    program = f"""
import pathlib, sys
from cluster.models.runtime.cache import Cache
def build(folder):
    (folder / "graph").write_bytes(b"half")
    print("building", flush=True)
    sys.stdin.read()
Cache(pathlib.Path({str(cache.folder)!r})).entry("a", build)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        process.kill()
    assert cache.entry("a", build).reason == "it was not there yet"
    assert sorted(path.name for path in cache.folder.iterdir()) == ["a", "lock"]


def test_over_the_bound_the_least_recently_used_is_removed(cache: Cache, build: Builder) -> None:
    size_bytes = sum(it.stat().st_size for it in cache.entry("a", build).folder.iterdir())
    small = Cache(cache.folder, most_bytes=2 * size_bytes)
    small.entry("b", build)
    for age, name in enumerate("ab"):
        os.utime(cache.folder / name, (age, age))
    small.entry("a", build)  # now b is the least recently used
    small.entry("c", build)
    assert sorted(it.name for it in cache.folder.iterdir() if it.is_dir()) == ["a", "c"]


def test_an_entry_larger_than_the_bound_is_kept_for_its_caller(
    tmp_path: Path, build: Builder
) -> None:
    tiny = Cache(tmp_path, most_bytes=1)
    assert tiny.entry("a", build).folder.is_dir()
    assert tiny.entry("b", build).folder.is_dir()
    assert not (tmp_path / "a").exists()


# Hashes


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed; every file counts as large."""
    paths: list[Path] = []
    read = module._hash

    def record(path: Path) -> str:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(module, "_hash", record)
    monkeypatch.setattr(module, "REMEMBERED_BYTES_MIN", 0)
    return paths


def test_a_hash_is_remembered_until_the_file_changes(
    cache: Cache, tmp_path: Path, hashed: list[Path]
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [cache.sha256(path), Cache(cache.folder).sha256(path)] == [empty, empty]
    assert hashed == [path]
    path.write_bytes(b"x")
    assert cache.sha256(path) != empty
    assert len(hashed) == 2


def test_the_remembered_hashes_are_bounded(
    cache: Cache, tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASHES_MAX", 2)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")
        cache.sha256(path)
    for path in reversed(paths):
        cache.sha256(path)
    assert hashed == [*paths, paths[0]]


@pytest.mark.parametrize("remembered", [b"{", b"[]", None])
def test_hashes_that_cannot_be_read_are_computed_again(
    cache: Cache, tmp_path: Path, hashed: list[Path], remembered: bytes | None
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    first = cache.sha256(path)
    (cache.folder / "hashes.json").unlink()
    if remembered is not None:
        (cache.folder / "hashes.json").write_bytes(remembered)
    assert cache.sha256(path) == first
    assert hashed == [path, path]


def test_a_cache_that_cannot_be_written_still_hashes(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    nowhere = Cache(path / "cache")
    assert nowhere.sha256(path) == nowhere.sha256(path)
    assert hashed == [path, path]
    with pytest.raises(OSError, match="weights"):
        nowhere.entry("a", Builder())


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/perfkit")
    for absent in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", absent)
        monkeypatch.setenv("HOME", "/home/me")
        assert default_folder() == Path("/home/me/.cache/perfkit")


@pytest.mark.parametrize("content", [b"", CONTENT, bytes(range(256)) * 1_000])
def test_the_hash_without_openssl_is_sha256(content: bytes) -> None:
    assert sha256_hex(content) == hashlib.sha256(content).hexdigest()


def test_a_small_file_is_hashed_without_openssl_in_the_process(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(CONTENT)
    program = f"""
import sys
from pathlib import Path
from cluster.models.runtime.cache import Cache
print(Cache(Path({str(tmp_path)!r})).sha256(Path({str(path)!r})), "_hashlib" in sys.modules)
"""
    # Coverage, which is started in each process, would load it.
    plain = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.stdout.split() == [hashlib.sha256(CONTENT).hexdigest(), "False"], done.stderr
