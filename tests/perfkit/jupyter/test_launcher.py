"""What JupyterLab finds: tiles of notebooks in any state, this interpreter, settings that hold."""

import json
import sys
from pathlib import Path

import nbformat

from perfkit.jupyter.launcher import write_launcher


def test_a_notebook_in_any_state_has_a_tile_that_opens_it(tmp_path: Path) -> None:
    good, broken = tmp_path / "01_good.ipynb", tmp_path / "02_of_mine.ipynb"
    heading = nbformat.v4.new_markdown_cell("# *Good*: what it shows")
    nbformat.write(nbformat.v4.new_notebook(cells=[heading]), good)
    broken.write_text("half a notebo")
    write_launcher([good, broken], tmp_path, {})
    tiles = json.loads((tmp_path / "jupyter_app_launcher/jp_app_launcher.yaml").read_text())
    assert [tile["title"] for tile in tiles] == ["01 Good", "02 of_mine"]
    assert [tile["source"][0]["args"] for tile in tiles] == [
        {"path": good.name},
        {"path": broken.name},
    ]
    assert all("<svg" in Path(tile["icon"]).read_text() for tile in tiles)


def test_kernels_are_this_interpreter_and_settings_keep_what_is_left_out(tmp_path: Path) -> None:
    write_launcher([], tmp_path, {"ServerApp": {"port": 1}, "LabApp": {"open_browser": False}})
    kernel = json.loads((tmp_path / "kernels/python3/kernel.json").read_text())
    assert kernel["argv"][0] == sys.executable
    settings = json.loads((tmp_path / "jupyter_server_config.json").read_text())
    left_out = {"jpserver_extensions": {"jupyter_server_proxy": False}}
    assert settings["ServerApp"] == {"port": 1} | left_out
    assert settings["LabApp"] == {"open_browser": False}
