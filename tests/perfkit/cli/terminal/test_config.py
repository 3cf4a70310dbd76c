"""Settings from a file, the environment and flags: their order, and the errors."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec import BASELINE
from perfkit.cli.terminal.config import DEFAULT_BIND, FIELDS, Settings, load
from perfkit.optimized.knobs import SettingError, build_spec, parse_pairs

NOT_GIVEN = object()


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "perfkit.toml"
        path.write_text(text)
        return path

    return write


@given(*[st.one_of(st.just(NOT_GIVEN), st.integers(0, 4096)) for _ in range(3)])
def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path_factory, file, env, flag):
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text("[cluster]\n" + ("" if file is NOT_GIVEN else f"workers = {file}\n"))
    environ = {} if env is NOT_GIVEN else {"PERFKIT_WORKERS": str(env)}
    flags = {} if flag is NOT_GIVEN else {"workers": flag}
    wanted = next((v for v in (flag, env, file) if v is not NOT_GIVEN), 2)
    assert load(path, environ, flags).worker_count == wanted


def test_every_key_can_be_set_in_the_file_and_in_the_environment(write) -> None:
    keys = {
        "bind": "tcp://127.0.0.1:5000", "endpoint": "ipc:///run/perfkit", "workers": 3,
        "capacity": 4, "models": ["magika", "digits"], "repository": "/srv",
        "handlers": "jobs:HANDLERS", "spec": "optimized", "insecure": True,
    }  # fmt: skip
    wanted = Settings(**keys, set={"credit": 5, "limits.heartbeat_s": 0.5})
    assert {*keys, "set"} == {*FIELDS}
    lines = [f"{name} = {json.dumps(value)}" for name, value in keys.items()]
    knobs = ["[cluster.set]", "credit = 5", "limits.heartbeat_s = 0.5"]
    assert load(write("\n".join(["[cluster]", *lines, *knobs])), {}, {}) == wanted
    texts = {**keys, "models": "magika, digits", "set": "credit=5,limits.heartbeat_s=0.5"}
    environ = {f"PERFKIT_{name.upper()}": str(text) for name, text in texts.items()}
    found = load(write(""), environ, {})
    assert found.cluster_spec() == wanted.cluster_spec()
    assert msgspec.structs.replace(found, set=wanted.set) == wanted


def test_knobs_of_all_three_places_are_joined(write) -> None:
    path = write("[cluster.set]\ncredit = 5\nlimits.heartbeat_s = 0.5\nlimits.deaths = 2\n")
    found = load(path, {"PERFKIT_SET": "limits.deaths=4"}, {"set": {"limits.heartbeat_s": "2"}})
    assert found.set == {"credit": 5, "limits.heartbeat_s": "2", "limits.deaths": "4"}


def test_the_environment_names_the_file_unless_a_flag_does(tmp_path, monkeypatch) -> None:
    for workers, name in enumerate(["perfkit.toml", "other.toml", "third.toml"], 5):
        (tmp_path / name).write_text(f"[cluster]\nworkers = {workers}")
    named = {"PERFKIT_CONFIG": str(tmp_path / "other.toml")}
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).workers == 5
    assert load(None, named, {}).workers == 6
    assert load(tmp_path / "third.toml", named, {}).workers == 7
    (tmp_path / "perfkit.toml").unlink()
    assert load(None, {}, {}) == Settings()


def test_the_users_own_file_comes_before_the_folders_and_alone_is_named_by_nobody(
    tmp_path, monkeypatch
) -> None:
    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"[cluster]\n{text}")
        return path

    own = write(tmp_path / "xdg" / "perfkit" / "perfkit.toml", 'workers = 5\nhandlers = "a:B"')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": "/nonexistent"}
    folders = write(tmp_path / "here" / "perfkit.toml", "workers = 6\ninsecure = false")
    monkeypatch.chdir(folders.parent)
    said: list[str] = []
    found = load(None, environ, {}, said.append)
    assert (found.workers, found.handlers) == (6, "a:B")
    assert said == [
        f"settings from {own}: workers = 5, handlers = 'a:B'",
        f"settings from {folders}: workers = 6, insecure = False",
    ]
    named = write(tmp_path / "named.toml", "capacity = 3")
    assert load(named, environ, {}) == Settings(capacity=3)
    monkeypatch.chdir(own.parent)
    assert load(None, environ, {}).handlers == "a:B"
    by_home = write(tmp_path / "home" / ".config" / "perfkit" / "perfkit.toml", "workers = 9")
    monkeypatch.chdir(tmp_path)
    assert (
        load(None, {"XDG_CONFIG_HOME": "relative", "HOME": str(tmp_path / "home")}, {}).workers == 9
    )
    by_home.unlink()
    assert load(None, {"HOME": str(tmp_path / "home")}, {}) == load(None, {}, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("insecure = true", "insecure"),
        ("insecure = 'yes'", "insecure"),
        ("spec = 'evil.json'", "spec"),
        ("handlers = 'evil:HANDLERS'", "handlers"),
        ("models = ['digits']", "models"),
        ("[cluster.set]\ncodec = 'evil:Codec'", "set.codec"),
        ("[cluster.set]\ncredit = 3\nqueue = 'evil:Queue'", "set.queue"),
        ("set = {policies = 'evil:POLICIES'}", "set.policies"),
        ("set.codec = 'evil:Codec'", "set.codec"),
    ],
)
def test_what_may_run_code_or_open_the_machine_is_refused_in_a_file_that_nobody_named(
    tmp_path, monkeypatch, write, text, key
) -> None:
    path = write(f"[cluster]\n{text}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError) as raised:
        load(None, {"HOME": "/home/me"}, {})
    assert str(raised.value) == (
        f"perfkit.toml: cluster.{key} may run code or open this machine, so it is not taken from "
        "a file that nobody named; if the file is yours, say --config perfkit.toml, or move the "
        "key to /home/me/.config/perfkit/perfkit.toml"
    )
    if "yes" not in text:
        assert load(path, {}, {}) == load(None, {"PERFKIT_CONFIG": str(path)}, {}) != Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[cluster]\nworkres = 2", "there is no key 'workres'; did you mean 'workers'?"),
        ("[cluster]\nxyzzy = 2", "there is no key 'xyzzy'; there are bind, endpoint, workers"),
        ("[cluster]\nworkers = 'two'", "cluster.workers: expected int, got str ('two' was given)"),
        ("[cluster]\nworkers = -1", "cluster.workers: expected int >= 0 (-1 was given)"),
        ("[cluster]\nmodels = 'magika'", "cluster.models: expected array, got str"),
        ("[cluster]\nbind = 'localhost'", "cluster.bind: 'localhost' is not an endpoint"),
        ("cluster = 3", "'cluster' must be a table"),
        ("[clutser]\nworkers = 2", "unknown key 'clutser'; settings belong in [cluster]"),
        ("workers = 2", "unknown key 'workers'; settings belong in [cluster]"),
        ("[cluster", "is not TOML: "),
    ],
)
def test_an_error_in_the_file_names_file_and_key(write, text, complaint) -> None:
    path = write(text)
    with pytest.raises(SettingError) as raised:
        load(path, {}, {})
    assert complaint in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_not_text_is_an_error(tmp_path) -> None:
    none = tmp_path / "none.toml"
    for flag, environ in ((none, {}), (None, {"PERFKIT_CONFIG": str(none)})):
        with pytest.raises(SettingError, match=r"cannot read .*none\.toml: No such file"):
            load(flag, environ, {})
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match=r"x\.toml is not TOML"):
        load(tmp_path / "x.toml", {}, {})


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("PERFKIT_WORKERS", "two", "PERFKIT_WORKERS: expected int, got str ('two' was given)"),
        ("PERFKIT_INSECURE", "perhaps", "PERFKIT_INSECURE: expected bool"),
        ("PERFKIT_WORKRES", "2", "WORKRES is not a setting; did you mean 'PERFKIT_WORKERS'?"),
        ("PERFKIT_MODEL", "magika", "did you mean 'PERFKIT_MODELS'?"),
        ("PERFKIT_SET", "credit", "'credit' is not NAME=VALUE"),
    ],
)
def test_an_error_in_the_environment_names_the_variable(write, variable, text, complaint) -> None:
    with pytest.raises(SettingError) as raised:
        load(write(""), {variable: text}, {})
    assert complaint in str(raised.value)
    assert str(raised.value).startswith("environment: ")


def test_variables_of_other_parts_of_perfkit_are_ignored(write) -> None:
    others = {"PERFKIT_PROFILE": "0", "PERFKIT_REPORT_NOTEBOOK": "x"}
    assert load(write(""), others, {}) == Settings()


@pytest.mark.parametrize(
    "value",
    [
        *("", "h:5577", "tcp://h", "http://h:80", "ipc://", "tcp://a b:5"),
        *("tcp://h:" + port for port in ("0", "70000", "*")),
    ],
)
def test_an_endpoint_that_nothing_can_connect_to_is_refused(write, value) -> None:
    with pytest.raises(SettingError, match=r"--endpoint: .* is not an endpoint"):
        load(write(""), {}, {"endpoint": value})


@pytest.mark.parametrize(
    "value", [DEFAULT_BIND, "tcp://[::1]:5577", "tcp://gpu-3.lan:1", "ipc://s"]
)
def test_an_endpoint_is_accepted(write, value) -> None:
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


def test_turned_knobs_are_in_the_spec_and_in_its_name() -> None:
    assert build_spec("baseline", {}) is BASELINE
    spec = build_spec("baseline", parse_pairs(["credit=5", "limits.heartbeat_s = 1"], "--set"))
    assert (spec.credit, spec.limits.heartbeat_s, spec.limits.deaths) == (5, 1.0, 3)
    assert spec.name == "baseline+credit-5+limits.heartbeat_s-1"
    assert build_spec("baseline", parse_pairs(["codec=A=B"], "")).name == "baseline+codec-a-b"


def test_a_spec_in_a_file_can_be_turned_too(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"name": "mine", "burst": 7}')
    spec = build_spec(str(tmp_path / "mine.json"), {"credit": "5"})
    assert (spec.name, spec.burst, spec.credit) == ("mine+credit-5", 7, 5)
    with pytest.raises(SettingError, match="cannot read the spec"):
        build_spec(str(tmp_path / "none.json"), {})


@pytest.mark.parametrize(
    ("knob", "complaint"),
    [
        ("credits=5", "there is no knob 'credits'; did you mean 'credit'?"),
        ("heartbeat_s=5", "did you mean 'limits.heartbeat_s'?"),
        ("limits.hartbeat_s=5", "did you mean 'limits.heartbeat_s'?"),
        ("xyz=5", "there is no knob 'xyz'; there are codec, queue, "),
        ("name=x", "there is no knob 'name'"),
        ("limits=5", "'limits' is several knobs: limits.heartbeat_s, "),
        ("limits.deaths=0", "knob limits.deaths: expected int >= 1 ('0' was given)"),
        ("transport=udp", "knob transport: invalid enum value 'udp'"),
        ("credit.x=1", "there is no knob 'credit.x'; did you mean 'credit'?"),
    ],
)
def test_a_wrong_knob_is_an_error_that_names_it(knob, complaint) -> None:
    with pytest.raises(SettingError) as raised:
        build_spec("baseline", parse_pairs([knob], "--set"))
    assert complaint in str(raised.value)


@pytest.mark.parametrize("pair", ["", "=", "=1", " =1", "a", "a..b=1", ".a=1"])
def test_text_without_name_or_equals_sign_is_not_a_pair(pair) -> None:
    with pytest.raises(SettingError, match=r"^--set: .* is not NAME=VALUE$"):
        parse_pairs([pair], "--set")
