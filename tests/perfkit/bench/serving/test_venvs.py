"""The peers' environments: names, and a peer that can't be installed says why."""

from pathlib import Path

import pytest

from perfkit.bench.serving import venvs
from perfkit.bench.serving.servers import FORMATS, PEERS_FOLDER
from perfkit.bench.serving.venvs import PACKAGES, PeerMissing, chosen_peers, python_of
from perfkit.bench.workloads.load import ExperimentError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFKIT_PEERS", str(tmp_path))
    return tmp_path


def test_every_peer_has_a_package_a_script_and_a_format() -> None:
    scripts = {path.stem.removesuffix("_server") for path in PEERS_FOLDER.glob("*_server.py")}
    assert scripts == PACKAGES.keys() == FORMATS.keys()


def test_peers_are_chosen_by_name_or_by_word() -> None:
    assert chosen_peers("none") == ((), False)
    assert chosen_peers("installed") == (tuple(PACKAGES), False)
    assert chosen_peers("all") == (tuple(PACKAGES), True)
    assert chosen_peers("litserve, bentoml") == (("litserve", "bentoml"), True)
    with pytest.raises(ExperimentError, match=r"no peer .litsrve.*litserve"):
        chosen_peers("litsrve")


def test_a_peer_that_is_not_there_says_how_to_install_it(folder: Path) -> None:
    with pytest.raises(PeerMissing, match=r"not installed; --peers litserve installs it"):
        python_of("litserve", False, print)
    assert list(folder.iterdir()) == []


def test_a_failed_installation_says_why_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(venvs.PACKAGES, "litserve", "./no-such-package-here")
    said: list[str] = []
    with pytest.raises(PeerMissing, match=r"pip could not install ./no-such-package-here: ERROR"):
        python_of("litserve", True, said.append)
    assert said == [f"installing ./no-such-package-here into {folder / 'litserve'}"]
    assert not (folder / "litserve").exists()
