"""Work for a running cluster: results with their times, and every way to fail."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cluster.models.inference import PayloadError
from cluster.shells.client import Client
from cluster.vocabulary.status import Status
from perfkit.cli import submit as module
from perfkit.cli.models.payloads import row_payload, text_payload

Call = Callable[..., Result]
Submit = Callable[..., Result]

ZERO = (
    "0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,0,3,15,2,0,11,8,0,0,4,12,0,0,8,8,0,0,5,8,0,0,9,"
    "8,0,0,4,11,0,1,12,7,0,0,2,14,5,10,12,0,0,0,0,6,13,10,0,0,0"
)
ONE = (
    "0 0 0 12 13 5 0 0 0 0 0 11 16 9 0 0 0 0 3 15 16 6 0 0 0 7 15 16 16 2 0 0 0 0 1 16 16"
    " 3 0 0 0 0 1 16 16 6 0 0 0 0 1 16 16 6 0 0 0 0 0 11 16 10 0 0"
)


@pytest.fixture
def submit(perfkit: Call, running: Any) -> Submit:
    def submit(*arguments: object) -> Result:
        return perfkit("cluster", "submit", "--endpoint", running.endpoint, *arguments)

    return submit


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(
        "import os\n\n\ndef main(name: str) -> int:\n    return len(os.listdir(name))\n" * 9
    )
    return path


def test_each_file_has_its_type_and_its_time(submit: Submit, script: Path) -> None:
    page = script.with_name("page.html")
    page.write_text(
        "<!doctype html><html><head><title>t</title></head><body><p>x</p></body></html>"
    )
    done = submit("--model", "magika", script, page)
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    score = r"[01](\.\d+)?$"
    assert re.search(
        r"script\.py +[\d.]+ ms  Python source  python, text/x-python, " + score, first
    )
    assert re.search(r"page\.html +[\d.]+ ms  HTML document  html, text/html, " + score, second)


def test_a_program_reads_results_and_every_time(submit: Submit, script: Path, running: Any) -> None:
    none = script.with_name("none")
    done = submit("--model", "magika", script, none, "--repeat", 3, "--json")
    found = json.loads(done.stdout)
    good, bad = found.pop("results")
    assert found == {"endpoint": running.endpoint, "model": "magika", "kind": "magika"}
    assert (good["name"], good["ok"], good["result"]["label"]) == (str(script), True, "python")
    assert len(good["times_ms"]) == 3
    assert min(good["times_ms"]) > 0
    error = f"cannot read {none}: No such file or directory"
    assert bad == {"name": str(none), "ok": False, "error": error}


def test_a_file_that_cannot_be_read_does_not_stop_the_others(submit: Submit, script: Path) -> None:
    none = script.with_name("none")
    done = submit("--model", "magika", none, script.parent, script)
    assert done.exit_code == 1
    assert done.stdout.count("Python source") == 1
    assert done.stderr.splitlines() == [
        f"perfkit: cannot read {none}: No such file or directory",
        f"perfkit: {script.parent} is a directory; name files",
    ]


def test_digits_are_read_from_lines_and_from_arrays(submit: Submit, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    rows = tmp_path / "rows.csv"
    rows.write_text(f"\ufeff# two digits\n{ZERO}\n\n{ONE}\n")
    array = tmp_path / "one.npy"
    np.save(array, np.array(ONE.split(), float))
    done = submit("--model", "digits", rows, array)
    assert (done.exit_code, done.stderr) == (0, "")
    names = [line.split()[0].removeprefix(f"{tmp_path}/") for line in done.stdout.splitlines()]
    assert names == ["rows.csv:1", "rows.csv:2", "one.npy"]
    assert [line.split()[-2] for line in done.stdout.splitlines()] == ["0", "1", "1"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"1,2,3\n", "a.csv, line 1: 3 numbers; a row has 64"),
        ("a.csv", b"\n1 2 x\n", "a.csv, line 2: could not convert string to float: 'x'"),
        ("a.csv", b"# nothing\n", "a.csv holds no numbers; a line of 64 is a row"),
        ("a.csv", b"\xff\xfe", "a.csv is neither text nor named .npy"),
        ("a.npy", b"1,2,3\n", "a.npy is not a .npy array of numbers: "),
    ],
)
def test_a_file_without_digits_is_an_error_that_names_the_place(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    pytest.importorskip("numpy")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PayloadError) as raised:
        row_payload(tmp_path / name)
    assert complaint in str(raised.value)


def test_without_numpy_an_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    (tmp_path / "a.csv").write_text(ZERO)
    with pytest.raises(PayloadError, match=r"pip install 'perfkit\[infer\]'"):
        row_payload(tmp_path / "a.csv")


def test_texts_become_vectors_from_files_and_from_words(
    start_up: Any, perfkit: Call, tmp_path: Path, minilm_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(minilm_home))
    up = start_up("--workers", "1", "--model", "minilm")
    (tmp_path / "letter").write_text("A man is eating food.")
    submit = ("cluster", "submit", "--endpoint", up.endpoint, "--model", "minilm")
    done = perfkit(*submit, "A man is eating food.", tmp_path / "letter", "food", "--json")
    words, letter, slip = json.loads(done.stdout)["results"]
    assert done.exit_code == 1
    assert (words["result"]["dtype"], words["result"]["shape"]) == ("float32", [384])
    assert sum(value * value for value in words["result"]["values"]) == pytest.approx(1, abs=1e-5)
    assert letter["result"] == words["result"]
    assert slip["error"] == "there is no file food; a text of one word goes with --payload"
    shown = perfkit(*submit, "--payload", "food")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert re.fullmatch(r"minilm +[\d.]+ ms  float32\[384\] ( -?0\.\d+){6} …\n", shown.stdout)


def test_a_long_text_is_no_file_name() -> None:
    assert text_payload(Path("a b " * 5_000)) == b"a b " * 5_000


def test_an_error_of_a_model_names_the_file(submit: Submit, tmp_path: Path) -> None:
    wild = tmp_path / "wild.csv"
    wild.write_text(ZERO.replace("13", "99"))
    done = submit("--model", "digits", wild)
    assert done.exit_code == 1
    assert "wild.csv: PayloadError: model 'digits': the numbers must lie within" in done.stderr


def test_a_handler_gets_the_payload_and_repeating_shows_the_spread(submit: Submit) -> None:
    echo = ("--kind", "echo", "--payload", "hello")
    done = submit(*echo, "--priority", "urgent")
    assert done.exit_code == 0
    assert re.fullmatch(r"echo +[\d.]+ ms  hello\n", done.stdout)
    repeated = submit(*echo, "--repeat", 20).stdout
    numbers = re.search(r"([\d.]+) ms \(([\d.]+) to ([\d.]+)\), median of 20  hello", repeated)
    middle, low, high = map(float, numbers.groups())
    assert low <= middle <= high


def test_a_handler_gets_files_whole(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("words")
    (tmp_path / "bytes").write_bytes(b"\xff\x00")
    results = json.loads(submit("--kind", "echo", "text", "bytes", "--json").stdout)["results"]
    assert [found["result"] for found in results] == ["words", "ff00"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--kind fail --payload paper", "fail: RuntimeError: paper"),
        ("--kind sleep --payload 1 --timeout 0.1", "not done within 0.1 s"),
        ("--kind slep", "no worker offers the kind 'slep'"),
        ("--kind slep", "did you mean 'sleep'?"),
        ("--model resnet x", "no worker offers the model 'resnet'; offered: digits, magika"),
        ("--model resnet x", "start one with `perfkit cluster worker --model resnet`"),
    ],
)
def test_an_impossible_task_is_an_error(submit: Submit, arguments: str, complaint: str) -> None:
    done = submit(*arguments.split())
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("perfkit: ")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "give one of --model NAME FILE… and --kind NAME"),
        ("--model magika --kind echo", "give one of --model"),
        ("--model magika", "name the files to ask the model 'magika' about"),
        (
            "--kind echo --payload x file",
            "--payload goes with --kind, or a model of texts, and no files",
        ),
        ("--kind echo --timeout 0", "0.001"),
        ("--kind echo --priority hgih", "high"),
    ],
)
def test_contradictory_arguments_are_refused(perfkit: Call, arguments: str, complaint: str) -> None:
    ended = perfkit("cluster", "submit", *arguments.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_ctrl_c_leaves_without_a_word(start: Any, start_up: Any, perfkit: Call) -> None:
    up = start_up("--workers", "1")
    waiting = start(
        "cluster", "submit", "--endpoint", up.endpoint, "--kind", "sleep", "--payload", 9
    )
    assigned = 0
    while not assigned:
        assert waiting.poll() is None, waiting.communicate()
        shown = perfkit("cluster", "status", "--endpoint", up.endpoint, "--json")
        assigned = json.loads(shown.stdout)["assigned"]
    waiting.send_signal(signal.SIGINT)
    out, said = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, said) == (130, "", "")
    os.kill(up.pids()[1], signal.SIGKILL)  # or stopping would wait until it has slept enough


def test_a_coordinator_that_goes_silent_is_an_error(
    start_up: Any, perfkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = start_up("--workers", "1")
    coordinator = up.pids()[0]
    asked = module.ask_status

    def ask_then_suspend(client: Client) -> Status:
        found = asked(client)
        os.kill(coordinator, signal.SIGSTOP)
        return found

    monkeypatch.setattr(module, "GRACE_S", 0.1)
    monkeypatch.setattr(module, "ask_status", ask_then_suspend)
    flags = ["--endpoint", up.endpoint, "--kind", "echo", "--timeout", "0.1"]
    for repeat in (1, 3):
        ended = perfkit("cluster", "submit", *flags, "--repeat", repeat)
        os.kill(coordinator, signal.SIGCONT)
        assert ended.exit_code == 1
        assert "has stopped answering" in ended.stderr
