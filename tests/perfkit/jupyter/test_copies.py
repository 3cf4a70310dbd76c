"""A user's copy of the notebooks follows the originals and never loses what the user has done."""

from pathlib import Path

import nbformat
import pytest

from perfkit.jupyter.copies import STATE, Copied, LabError, copy_notebooks

NAMES = ("01_a.ipynb", "02_b.ipynb")


def write(path: Path, *sources: str, **metadata: str) -> None:
    cells = [nbformat.v4.new_code_cell(source, id=f"c{n}") for n, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


def source(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, 4).cells)


@pytest.fixture
def originals(tmp_path: Path) -> list[Path]:
    (tmp_path / "originals").mkdir()
    paths = [tmp_path / "originals" / name for name in NAMES]
    for path in paths:
        write(path, "x = 1")
    return paths


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "of/mine"


def test_what_the_user_has_not_changed_follows_its_original(
    originals: list[Path], copy: Path
) -> None:
    assert copy_notebooks(originals, copy) == Copied(NAMES, (), ())
    assert copy_notebooks(originals, copy) == Copied((), (), ())
    write(copy / NAMES[0], "x = 1", kernel="as JupyterLab writes it when a notebook is opened")
    write(originals[0], "x = 2")
    assert copy_notebooks(originals, copy) == Copied((NAMES[0],), (), ())
    assert source(copy / NAMES[0]) == "x = 2"


def test_what_the_user_has_changed_is_kept_and_said_also_when_there_is_a_newer_original(
    originals: list[Path], copy: Path
) -> None:
    copy_notebooks(originals, copy)
    write(copy / NAMES[0], "x = 1", "mine = True")
    ran = nbformat.read(copy / NAMES[1], 4)
    ran.cells[0].outputs = [nbformat.v4.new_output("stream", text="an hour's work")]
    nbformat.write(ran, copy / NAMES[1])
    assert copy_notebooks(originals, copy) == Copied((), NAMES, ())
    write(originals[1], "x = 2")
    assert copy_notebooks(originals, copy) == Copied((), NAMES, NAMES[1:])
    assert source(copy / NAMES[0]) == "x = 1\nmine = True"
    assert "an hour's work" in (copy / NAMES[1]).read_text()


@pytest.mark.parametrize("memory", [None, "no JSON", "[]"])
def test_without_a_memory_of_what_was_copied_nothing_that_differs_is_overwritten(
    originals: list[Path], copy: Path, memory: str | None
) -> None:
    copy.mkdir(parents=True)
    write(copy / NAMES[0], "mine = True")
    (copy / NAMES[1]).symlink_to(originals[1])
    if memory is not None:
        (copy / STATE).mkdir()
        (copy / STATE / "copied.json").write_text(memory)
    assert copy_notebooks(originals, copy).kept == NAMES
    assert source(copy / NAMES[0]) == "mine = True"
    assert (copy / NAMES[1]).is_symlink()


def test_a_folder_that_can_not_be_written_is_an_error_that_names_it(
    originals: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"can't keep notebooks in .*file/copy \(.*Not a directory"):
        copy_notebooks(originals, tmp_path / "file" / "copy")


def test_only_the_user_reads_what_the_lab_keeps(originals: list[Path], copy: Path) -> None:
    copy_notebooks(originals, copy)
    assert (copy / STATE).stat().st_mode & 0o077 == 0
