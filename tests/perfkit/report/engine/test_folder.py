"""A run's folder: whole or not there, never mixed with another, and tidied up after a kill."""

import fcntl
import os
from pathlib import Path

import pytest

from perfkit.report import ReportError
from perfkit.report.engine.folder import LEFTOVER_AFTER_S, PREFIX, run_folder


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_folder_appears_under_its_name_when_published(tmp_path: Path) -> None:
    with run_folder(tmp_path / "reports", "run") as folder:
        (folder.working / "a").write_text("1")
        assert names(tmp_path / "reports") == [folder.working.name]
        assert folder.working.name.startswith(PREFIX)
        assert folder.publish() == tmp_path / "reports" / "run"
    assert names(tmp_path / "reports") == ["run"]
    assert names(tmp_path / "reports" / "run") == ["a"]
    assert (tmp_path / "reports" / "run").stat().st_mode & 0o777 == 0o700


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file of that name")
    for content in "bc":
        with run_folder(tmp_path, "run") as folder:
            (folder.working / content).write_text(content)
            folder.publish()
    assert names(tmp_path) == ["run", "run-2", "run-3"]
    assert [names(tmp_path / "run-2"), names(tmp_path / "run-3")] == [["b"], ["c"]]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_ends_early_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail_half_way() -> None:
        with run_folder(tmp_path, "run") as folder:
            (folder.working / "half").write_text("x")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert names(tmp_path) == []


def test_a_rename_that_fails_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ReportError, match="can't be written: "),
        run_folder(tmp_path, "no/such/place") as folder,
    ):
        folder.publish()
    assert names(tmp_path) == []


def test_the_next_run_removes_only_what_a_dead_run_left(tmp_path: Path) -> None:
    for name, age_s in (
        ("alive", 2 * LEFTOVER_AFTER_S),
        ("dead", 2 * LEFTOVER_AFTER_S),
        ("new", 0),
    ):
        path = tmp_path / f"{PREFIX}{name}"
        path.mkdir()
        (path / "half.html").touch()
        then = path.stat().st_mtime - age_s
        os.utime(path, (then, then))
    descriptor = os.open(tmp_path / f"{PREFIX}alive", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with run_folder(tmp_path, "run") as folder:
        folder.publish()
    os.close(descriptor)
    assert names(tmp_path) == sorted([f"{PREFIX}alive", f"{PREFIX}new", "run"])
