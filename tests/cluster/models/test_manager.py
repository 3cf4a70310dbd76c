"""Models come and go while threads use them, within a bound of bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.models import manager as module
from cluster.models.inference import ModelError, ModelRepository
from cluster.models.manager import ModelManager
from tests.cluster.models.kinds.test_named_tensors import answer, frame
from tests.cluster.models.repository.test_folders import write_scale

ASK = frame(x=("FP32", [[1, 2]]))
WAIT_S = 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(("one", "two", "three"), 1):
        write_scale(tmp_path / name / "1" / "model.onnx", number)
    return tmp_path


def manager(root: Path, *names: str, fit: int = 9) -> ModelManager:
    """A manager with room for ``fit`` of these models, which are of nearly the same size."""
    size_bytes = (root / "one" / "1" / "model.onnx").stat().st_size
    return ModelManager(names, ModelRepository(root), bytes_max=size_bytes * fit + 16)


def ask(models: ModelManager, kind: str) -> Any:
    with models.using(kind) as model:
        (result,) = model.handle_batch([ASK])
    return answer(result)["y"][0][0]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that have been loaded, one for each load."""
    names: list[str] = []
    load = ModelRepository.load

    def counted(self: ModelRepository, name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        return load(self, name, *args, **options)

    monkeypatch.setattr(ModelRepository, "load", counted)
    return names


def test_a_model_is_served_by_name_and_version_until_it_is_unloaded(root: Path) -> None:
    models = manager(root, "one")
    assert (models.names(), models.kinds()) == (["one"], ["one", "one/1"])
    assert (ask(models, "one"), ask(models, "one/1")) == (1, 1)
    assert models.load("two").version == "1"
    assert models.kinds() == ["one", "one/1", "two", "two/1"]
    models.unload("one")
    assert models.kinds() == ["two", "two/1"]
    with pytest.raises(ModelError, match="model 'one' is not served; served: two"):
        ask(models, "one")
    with pytest.raises(ModelError, match="model 'one' is not served"):
        models.unload("one")
    with pytest.raises(ModelError, match="version 7 is not served; served: 1"):
        ask(models, "two/7")


def test_a_new_version_takes_over_and_an_old_one_on_request(root: Path) -> None:
    models = manager(root, "one")
    write_scale(root / "one" / "2" / "model.onnx", 20)
    assert models.load("one").version == "2"
    assert (models.kinds(), ask(models, "one")) == (["one", "one/2"], 20)
    assert models.load("one", 1).version == "1"
    assert models.kinds() == ["one", "one/1", "one/2"]
    assert (ask(models, "one"), ask(models, "one/1")) == (20, 1)


def test_a_changed_file_takes_effect_when_it_is_loaded_again(root: Path) -> None:
    models = manager(root, "one")
    write_scale(root / "one" / "1" / "model.onnx", 5)
    assert ask(models, "one") == 1
    models.load("one")
    assert ask(models, "one") == 5


def test_what_has_not_changed_is_not_loaded_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = manager(root, "one")
    model = models.using("one").__enter__()
    assert models.load("one") == model.describe()
    assert models.using("one").__enter__() is model
    (root / "one" / "config.toml").write_text('description = "new"')
    assert models.load("one").description == "new"


def test_a_file_that_is_served_is_loaded_again_by_its_name(root: Path) -> None:
    write_scale(root / "lone.onnx", 4)
    models = ModelManager([str(root / "lone.onnx")], ModelRepository(root))
    assert ask(models, "lone") == 4
    write_scale(root / "lone.onnx", 5)
    assert models.load("lone").name == "lone"
    assert ask(models, "lone") == 5


def test_a_model_in_constant_use_is_replaced_and_read_questions_get_its_old_answers(
    root: Path,
) -> None:
    models = manager(root, "one")
    with models.using("one") as old:
        question = old.prepare(ASK)
        write_scale(root / "one" / "1" / "model.onnx", 5)
        models.load("one")
        assert ask(models, "one") == 5
        with models.using("one") as new:
            assert new is not old
            results = new.run([question, new.prepare(ASK)])  # type: ignore[list-item]
        assert [answer(it)["y"][0][0] for it in results] == [1, 5]


def test_a_load_that_fails_leaves_what_was_served(root: Path) -> None:
    models = manager(root, "one")
    (root / "one" / "2").mkdir()
    (root / "one" / "2" / "model.onnx").write_bytes(b"torn")
    with pytest.raises(ModelError, match="model 'one': onnxruntime cannot run"):
        models.load("one")
    assert (models.kinds(), ask(models, "one")) == (["one", "one/1"], 1)
    with pytest.raises(ModelError, match="no model 'ones'; did you mean 'one'"):
        models.load("ones")


def test_the_least_recently_used_is_dropped_and_loaded_again_when_asked_for(
    root: Path, loads: list[str]
) -> None:
    models = manager(root, "one", "two", fit=2)
    ask(models, "one")
    models.load("three")
    assert (ask(models, "one"), ask(models, "three")) == (1, 3)
    assert loads == ["one", "two", "three"]
    assert models.kinds() == [it for name in ("one", "three", "two") for it in (name, f"{name}/1")]
    assert (ask(models, "two"), ask(models, "three"), ask(models, "one")) == (2, 3, 1)
    assert loads == ["one", "two", "three", "two", "one"]


def test_a_model_over_the_bound_is_refused(root: Path) -> None:
    with pytest.raises(ModelError, match=r"model 'one' has \d+ bytes; at most 16 fit"):
        manager(root, "one", fit=0)


def test_a_model_in_use_is_never_dropped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = manager(root, "one", "two", fit=1)
    monkeypatch.setattr(module, "ROOM_WAIT_S", 0.01)
    with models.using("one"):
        with pytest.raises(ModelError, match="model 'two' finds no room: one in use, and at most"):
            ask(models, "two")
        assert ask(models, "one") == 1
    assert ask(models, "two") == 2


def test_a_model_that_finds_no_room_is_loaded_when_it_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = manager(root, "one", fit=1)
    monkeypatch.setattr(module, "ROOM_WAIT_S", 0.01)
    with models.using("one"):
        models.load("two")
        assert (models.names(), ask(models, "one")) == (["one", "two"], 1)
    assert ask(models, "two") == 2


def test_unloading_waits_for_runs_in_flight(root: Path) -> None:
    models = manager(root, "one")
    unloading = threading.Thread(target=models.unload, args=["one"])
    with models.using("one") as model:
        unloading.start()
        while models.kinds():  # it is refused from now on, …
            pass
        with pytest.raises(ModelError, match="is not served"):
            ask(models, "one")
        assert unloading.is_alive()
        assert answer(model.handle_batch([ASK])[0])["y"] == [[1, 2]]  # … but still runs here
    unloading.join(WAIT_S)
    assert not unloading.is_alive()


def test_threads_that_ask_for_a_dropped_model_load_it_once(root: Path, loads: list[str]) -> None:
    models = manager(root, "one", "two", fit=1)
    loads.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ask(models, "one"), range(32)))
    assert (found, loads) == ([1] * 32, ["one"])


def test_threads_with_unlike_wishes_get_what_they_ask_for(root: Path) -> None:
    models = manager(root, "one", "two", "three", fit=2)
    wishes = [("one", 1), ("two", 2), ("three", 3)] * 12
    stop = threading.Event()

    def reload() -> int:
        count = 0
        while not stop.is_set():
            models.unload("three")
            models.load("three")
            count += 1
        return count

    def wish(it: tuple[str, int]) -> bool:
        try:
            return bool(ask(models, it[0]) == it[1])
        except ModelError as error:
            return it[0] == "three" and "is not served" in str(error)

    with ThreadPoolExecutor(5) as pool:
        reloads = pool.submit(reload)
        try:
            assert all(pool.map(wish, wishes))
        finally:
            stop.set()
        assert reloads.result(WAIT_S) > 0
