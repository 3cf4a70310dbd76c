"""Settings from a file, the environment and flags: which of them holds, and what a slip is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec import BASELINE
from perfkit.cli.config import (
    DEFAULT_BIND,
    SettingError,
    Settings,
    build_spec,
    load,
    parse_pairs,
)

NOT_GIVEN = object()


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "perfkit.toml"
        path.write_text(text)
        return path

    return write


def test_without_anything_the_defaults_hold(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {"HOME": "/x"}, {"workers": None}) == Settings()


@given(*[st.one_of(st.just(NOT_GIVEN), st.integers(0, 4096)) for _ in range(3)])
def test_a_flag_stands_above_the_environment_above_the_file(tmp_path_factory, file, env, flag):
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text("[cluster]\n" + ("" if file is NOT_GIVEN else f"workers = {file}\n"))
    environ = {} if env is NOT_GIVEN else {"PERFKIT_WORKERS": str(env)}
    flags = {"workers": None if flag is NOT_GIVEN else flag}
    wanted = next((v for v in (flag, env, file) if v is not NOT_GIVEN), 2)
    assert load(path, environ, flags).workers == wanted


def test_every_key_can_be_set_in_the_file_and_in_the_environment(write) -> None:
    path = write(
        """
        [cluster]
        bind = "tcp://127.0.0.1:5000"
        endpoint = "ipc:///run/perfkit"
        workers = 3
        capacity = 4
        models = ["magika", "digits"]
        handlers = "jobs:HANDLERS"
        spec = "baseline"
        insecure = true
        [cluster.set]
        credit = 5
        limits.heartbeat_s = 0.5
        """
    )
    environ = {
        "PERFKIT_BIND": "tcp://127.0.0.1:5000",
        "PERFKIT_ENDPOINT": "ipc:///run/perfkit",
        "PERFKIT_WORKERS": "3",
        "PERFKIT_CAPACITY": "4",
        "PERFKIT_MODELS": "magika, digits",
        "PERFKIT_HANDLERS": "jobs:HANDLERS",
        "PERFKIT_SPEC": "baseline",
        "PERFKIT_INSECURE": "true",
        "PERFKIT_SET": "credit=5,limits.heartbeat_s=0.5",
    }
    wanted = Settings(
        bind="tcp://127.0.0.1:5000",
        endpoint="ipc:///run/perfkit",
        workers=3,
        capacity=4,
        models=["magika", "digits"],
        handlers="jobs:HANDLERS",
        spec="baseline",
        set={"credit": 5, "limits": {"heartbeat_s": 0.5}},
        insecure=True,
    )
    assert load(path, {}, {}) == wanted
    assert load(write(""), environ, {}) == wanted


def test_knobs_of_all_three_places_are_joined(write) -> None:
    path = write("[cluster.set]\ncredit = 5\nlimits.heartbeat_s = 0.5\nlimits.deaths = 2\n")
    found = load(path, {"PERFKIT_SET": "limits.deaths=4"}, {"set": {"limits": {"heartbeat_s": 2}}})
    assert found.set == {"credit": 5, "limits": {"heartbeat_s": 2, "deaths": 4}}


def test_the_environment_names_the_file_unless_a_flag_does(write, tmp_path, monkeypatch) -> None:
    write("[cluster]\nworkers = 5")
    other = tmp_path / "other.toml"
    other.write_text("[cluster]\nworkers = 6")
    third = tmp_path / "third.toml"
    third.write_text("[cluster]\nworkers = 7")
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).workers == 5
    assert load(None, {"PERFKIT_CONFIG": str(other)}, {}).workers == 6
    assert load(third, {"PERFKIT_CONFIG": str(other)}, {}).workers == 7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[cluster]\nworkres = 2", "unknown key 'cluster.workres'; did you mean 'workers'?"),
        ("[cluster]\nxyzzy = 2", "unknown key 'cluster.xyzzy'; there are bind, endpoint, workers"),
        ("[cluster]\nworkers = 'two'", "cluster.workers: expected int, got str ('two' was given)"),
        ("[cluster]\nworkers = true", "cluster.workers: expected int, got bool"),
        ("[cluster]\nworkers = -1", "cluster.workers: expected int >= 0 (-1 was given)"),
        ("[cluster]\nmodels = 'magika'", "cluster.models: expected array, got str"),
        ("[cluster]\nset = 3", "cluster.set: expected object, got int"),
        ("[cluster]\nbind = 'localhost'", "cluster.bind: 'localhost' is no endpoint"),
        ("cluster = 3", "'cluster' must be a table"),
        ("[clutser]\nworkers = 2", "unknown key 'clutser'; settings belong in the table [cluster]"),
        ("workers = 2", "unknown key 'workers'; settings belong in the table [cluster]"),
        ("[cluster", "is not TOML: "),
    ],
)
def test_a_slip_in_the_file_is_told_with_file_and_key(write, text, complaint) -> None:
    path = write(text)
    with pytest.raises(SettingError) as raised:
        load(path, {}, {})
    assert complaint in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path) -> None:
    with pytest.raises(SettingError, match=r"cannot read .*none\.toml: No such file"):
        load(tmp_path / "none.toml", {}, {})
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match=r"x\.toml is not TOML"):
        load(tmp_path / "x.toml", {}, {})


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("PERFKIT_WORKERS", "two", "PERFKIT_WORKERS: expected int, got str ('two' was given)"),
        ("PERFKIT_WORKERS", "2.5", "PERFKIT_WORKERS: expected int, got float"),
        ("PERFKIT_INSECURE", "perhaps", "PERFKIT_INSECURE: expected bool"),
        ("PERFKIT_WORKRES", "2", "PERFKIT_WORKRES is no setting; did you mean PERFKIT_WORKERS?"),
        ("PERFKIT_MODEL", "magika", "did you mean PERFKIT_MODELS?"),
        ("PERFKIT_SET", "credit", "'credit' is no knob; write it as NAME=VALUE"),
    ],
)
def test_a_slip_in_the_environment_is_told(write, variable, text, complaint) -> None:
    with pytest.raises(SettingError) as raised:
        load(write(""), {variable: text}, {})
    assert complaint in str(raised.value)
    assert str(raised.value).startswith("environment: ")


def test_variables_of_other_parts_of_perfkit_are_let_be(write) -> None:
    others = {"PERFKIT_PROFILE": "0", "PERFKIT_REPORT_NOTEBOOK": "x"}
    assert load(write(""), others, {}) == Settings()


@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1:5577",
        "tcp://h",
        "tcp://h:0",
        "tcp://h:70000",
        "tcp://h:*",
        "http://h:80",
        "ipc://",
        "",
        "tcp://a b:5",
    ],
)
def test_what_is_no_endpoint_to_connect_to_is_refused(write, value) -> None:
    with pytest.raises(SettingError, match=r"--endpoint: .* is no endpoint"):
        load(write(""), {}, {"endpoint": value})


@pytest.mark.parametrize(
    "value", [DEFAULT_BIND, "tcp://[::1]:5577", "tcp://gpu-3.lan:1", "ipc://s"]
)
def test_what_is_an_endpoint_is_taken(write, value) -> None:
    assert load(write(""), {}, {"endpoint": value}).coordinator == value


def test_without_an_endpoint_the_coordinator_is_where_one_would_listen(write) -> None:
    def found(bind: str) -> str:
        return load(write(""), {}, {"bind": bind}).coordinator

    assert Settings().coordinator == DEFAULT_BIND
    assert found("tcp://127.0.0.1:6000") == "tcp://127.0.0.1:6000"
    assert found("tcp://0.0.0.0:6000") == "tcp://127.0.0.1:6000"
    assert found("tcp://*:6000") == "tcp://127.0.0.1:6000"
    assert found("ipc://socket") == "ipc://socket"
    with pytest.raises(SettingError, match="names no port to connect to; use --endpoint"):
        found("tcp://127.0.0.1:*")


def test_a_spec_without_knobs_is_the_named_one() -> None:
    assert build_spec("baseline", {}) is BASELINE


def test_turned_knobs_are_in_the_spec_and_in_its_name() -> None:
    spec = build_spec("baseline", parse_pairs(["credit=5", "limits.heartbeat_s=1"], "--set"))
    assert (spec.credit, spec.limits.heartbeat_s, spec.limits.deaths) == (5, 1.0, 3)
    assert spec.name == "baseline+credit-5+limits.heartbeat_s-1"
    assert build_spec("baseline", {"codec": "A:B"}).name == "baseline+codec-a-b"


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        (["credits=5"], "the spec has no knob 'credits'; did you mean 'credit'?"),
        (["heartbeat_s=5"], "the spec has no knob 'heartbeat_s'; there are codec, "),
        (["limits.hartbeat_s=5"], "did you mean 'limits.heartbeat_s'?"),
        (["name=x"], "the spec has no knob 'name'"),
        (["limits=5"], "'limits' is not one knob but several: limits.heartbeat_s, "),
        (["limits.deaths=0"], "knob limits.deaths: expected int >= 1 (0 was given)"),
        (["transport=udp"], "knob transport: invalid enum value 'udp'"),
        (["credit.x=1"], "knob credit: expected int, got object"),
    ],
)
def test_a_knob_that_cannot_be_turned_is_told(knobs, complaint) -> None:
    with pytest.raises(SettingError) as raised:
        build_spec("baseline", parse_pairs(knobs, "--set"))
    assert complaint in str(raised.value)


def test_an_unknown_spec_is_told() -> None:
    with pytest.raises(SettingError, match=r"no spec 'basline'.*did you mean 'baseline'"):
        build_spec("basline", {})


def test_knobs_are_read_as_toml_reads_values_and_else_as_text() -> None:
    pairs = ["a=1", "b.c=0.5", "b.d=adaptive", "e=True", "f='x y'", "g=m:C", "h="]
    assert parse_pairs(pairs, "--set") == {
        "a": 1, "b": {"c": 0.5, "d": "adaptive"}, "e": True, "f": "x y", "g": "m:C", "h": "",
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["", "=", "=1", "a", "a..b=1", ".a=1"])
def test_what_is_no_knob_is_refused(pair) -> None:
    with pytest.raises(SettingError, match=r"--set: .* is no knob"):
        parse_pairs([pair], "--set")
