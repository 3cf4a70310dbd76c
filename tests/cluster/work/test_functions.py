"""Functions as packs: what travels, what is refused and why, and what counts as changed."""

import functools
import linecache
import logging
import socket
import sys
import threading
from types import FunctionType, ModuleType, SimpleNamespace

import numpy as np
import pytest

from cluster import Handlers, LocalCluster
from cluster.vocabulary.errors import ClusterError
from cluster.work import travel
from cluster.work.functions import Functions, name_of, pack_work, unpack_work
from cluster.work.handlers import Told
from cluster.work.plain_data import pack_call, read_result


def call(handlers, name, *items):
    return read_result(handlers.single(name)(pack_call(items, name)))


def cell(source, **variables):
    """What a notebook's cell defines: functions without a file, whose text linecache knows."""
    path = f"/tmp/ipykernel_0/{abs(hash(source))}.py"
    linecache.cache[path] = len(source), None, source.splitlines(keepends=True), path
    space = {"__name__": "__main__", **variables}
    exec(compile(source, path, "exec"), space)
    return SimpleNamespace(**{k: v for k, v in space.items() if k[0] != "_"}, space=space)


def sent(work, name=None):
    """The handlers that a worker would have."""
    handlers = Handlers()
    for pack in pack_work(work, name):
        handlers.update(unpack_work(pack.data))
    return handlers


def test_functions_take_along_their_helpers_and_variables_and_any_callable_has_a_name():
    made = cell("def f(x):\n    return g(x) + k\ndef g(x):\n    return 2 * x\nk = 1")
    handlers = sent([made.f, len])
    assert handlers.kinds() == ["f", "len"]
    assert (call(handlers, "f", 3), call(handlers, "len", "abc")) == (7, 3)
    named = sent({"double": lambda x: 2 * x, "pair": functools.partial(divmod, 7), "up": "x".join})
    assert call(named, "double", 4) == 8
    assert call(named, "pair", 2) == [3, 1]
    assert call(named, "up", ["a", "b"]) == "axb"
    decorated = functools.lru_cache(made.f)
    assert call(sent(decorated), "f", 1) == 3


def test_a_registry_of_handlers_keeps_them_as_they_are_and_what_they_share():
    handlers, shared = Handlers(), []
    handlers.register("one")(lambda payload: shared.append(payload) or bytes(payload))
    handlers.register_batch("all", views=True)(
        lambda payloads: [b"%d" % len(shared)] * len(payloads)
    )
    found = sent(handlers)
    assert found.single("one")(b"x") == b"x"
    assert found.single("all") is None
    assert found["all"]([b"", b""]) == [b"1", b"1"]
    assert (found.converter("one"), found.converter("all") is bytes) == (bytes, False)
    assert shared == []


def test_a_failure_has_the_workers_traceback_with_the_lines_of_the_cell():
    made = cell("def outer(x):\n    return inner(x)\ndef inner(x):\n    return {}[x]")
    (pack,) = pack_work(made.outer)
    linecache.clearcache()  # a worker has no cells
    handlers = unpack_work(pack.data)
    with pytest.raises(Told, match=r"(?s)^5\n\nRaised .*return inner\(x\).*{}\[x\]") as told:
        call(handlers, "outer", 5)
    assert told.value.kind is KeyError
    assert "functions.py" not in str(told.value)
    chained = "try:\n        {}[x]\n    except KeyError as e:\n        raise OSError from e"
    made = cell(f"def f(x):\n    {chained}")
    with pytest.raises(Told, match=r"(?s)KeyError: 5.*direct cause.*OSError"):
        call(sent(made.f), "f", 5)
    made = cell("def shout(x):\n    raise ValueError('x' * 9_000)")
    with pytest.raises(Told, match=r"(?s)^x+\n…\nx+\n\nRaised .*in shout\n    raise ") as told:
        call(sent(made.shout), "shout", 5)
    assert len(str(told.value)) < 2_000


def test_a_module_beside_the_notebook_travels_by_value_and_an_installed_one_by_name(
    module, monkeypatch
):
    __import__(name := module("import json\ndef add(x):\n    return x + len(json.dumps(x))"))
    helper = sys.modules[name]
    made = cell("def f(x):\n    return helper.add(x)\ndef g(x):\n    return add(x)",
                helper=helper, add=helper.add)  # fmt: skip
    packs = pack_work([made.f, made.g])
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    assert [call(unpack_work(p.data), n, 3) for p, n in zip(packs, "fg", strict=True)] == [4, 4]
    assert travel._is_own(helper)
    assert not any(map(travel._is_own, (logging, pytest, travel, pytest.raises)))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"it": threading.Lock()}, "its variable 'it' is a lock .*: leave it out"),
        ({"it": {"a": [open(__file__)]}}, r"'it'\['a'\]\[0\] is a TextIOWrapper .* open it inside"),  # noqa: SIM115
        ({"it": socket.socket()}, "is a socket .*; connect inside the function"),
        ({"it": (x for x in "ab")}, "is a generator .*; make it a list"),
        ({"it": SimpleNamespace(event=threading.Event())}, r"'it'\.event\._cond\._lock is a lock"),
        ({"it": LocalCluster(0)}, "is a LocalCluster .*: hand in its tasks from here"),
        ({"it": functools.partial(print, file=socket.socket())}, r"its part 'keywords'\['file'\]"),
    ],
)
def test_what_cannot_travel_is_named_with_the_variable_that_holds_it(variables, words):
    made = cell("def f(x):\n    return g(x)\ndef g(x):\n    return it", **variables)
    with pytest.raises(ClusterError, match=f"f can't travel .* its variable 'g' → .*{words}"):
        pack_work([made.f])
    handlers = Handlers()
    handlers.register("kind")(made.f)
    with pytest.raises(ClusterError, match="kind can't travel"):
        pack_work(handlers)


def test_a_function_with_too_much_to_take_along_is_refused(monkeypatch):
    monkeypatch.setattr(travel, "BYTES_MAX", 1 << 20)
    made = cell("def f(x):\n    return small, big", small=bytes(1_000), big=bytes(2 << 20))
    with pytest.raises(ClusterError, match=r"f has 2 MiB .* its variable 'big'; .*pass it as an"):
        pack_work(made.f)


async def coroutine(x):
    return x


def generator(x):
    yield x


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (123, "not 123"),
        (None, "handlers are a Handlers registry"),
        ([3], "no function but 3"),
        ({"x": "y"}, "x is no function but 'y'"),
        ({3: len}, "name is a str of printable characters, not 3"),
        ({"": len}, "name is a str of printable characters, not ''"),
        ({"a\ud800": len}, "name is a str of printable characters"),
        ([lambda x: x], "^a lambda has no name; give it one: cluster.register"),
        (functools.partial(len), "^a partial has no name"),
        ([len, len], "two functions have one name: len, len"),
        (SimpleNamespace, "SimpleNamespace is a class"),
        (coroutine, "coroutine is a coroutine function; .*asyncio.run"),
        (functools.partial(coroutine), "has no name"),
        (generator, "generator function; have it return a list"),
        ({"x" * 129: len}, "at most 128 characters"),
    ],
)
def test_what_is_no_function_of_plain_data_is_refused(work, words):
    with pytest.raises(ClusterError, match=words):
        LocalCluster(0, handlers=work)


def test_a_name_is_for_a_single_function():
    with pytest.raises(ClusterError, match="the name 'x' is for a single function"):
        pack_work([len], "x")


def test_models_are_served_by_name_and_a_package_that_is_missing_is_said_so(monkeypatch):
    handlers = Handlers()
    handlers.models["digits"] = None
    with pytest.raises(ClusterError, match="models"):
        pack_work(handlers)
    monkeypatch.setitem(sys.modules, "absent_here", absent := ModuleType("absent_here"))
    (pack,) = pack_work(cell("def f(x):\n    return absent_here", absent_here=absent).f)
    monkeypatch.delitem(sys.modules, "absent_here")
    with pytest.raises(ClusterError, match="f can't be loaded in a worker: ModuleNotFoundError"):
        unpack_work(pack.data)


# What the workers have


def registered(function, name=None):
    functions = Functions()
    for pack in pack_work(function, name):
        functions.add(pack)
    return functions


SOURCE = "def f(x):\n    return g(x) * k\ndef g(x):\n    return x\nk = 1_000"


def other_code(made):
    """As %autoreload does it."""
    made.f.__code__ = (lambda x: x).__code__


def other_helper(made):
    made.space["g"] = lambda x: -x


def other_value(made):
    made.space["k"] = 7


@pytest.mark.parametrize(
    ("change", "what"),
    [(other_code, "it"), (other_helper, "'g', which it uses,"), (other_value, "'k', which")],
)
def test_a_function_that_was_changed_is_not_called_as_it_was(change, what):
    made = cell(SOURCE)
    functions = registered(made.f)
    assert functions.name_of(made.f) == "f"
    change(made)
    with pytest.raises(ClusterError, match=f"before {what} .*cluster.register\\(f\\) sends it"):
        functions.name_of(made.f)
    for pack in pack_work(made.f):
        functions.add(pack)
    assert functions.name_of(made.f) == "f"


INSIDE = """
class Base:
    known = {}

class Settings(Base):
    rate = 1

class Thing(Base):
    size = 1

def f(x, *, extra={}):
    return x * Settings.rate + sum(listed) + sum(named.values()) + made[0] + thing.size
"""


def listed(made):
    made.listed.append(1)


def named(made):
    made.named["a"]["b"] = 2


def made(made):
    made.made[0] = 3


def thing(made):
    made.space["thing"].size = 4


def known(made):
    made.Base.known["a"] = 1


def size(made):
    made.Thing.size = 2


def rate(made):
    made.Settings.rate = 5


def test_many_calls_see_what_was_changed_inside_a_variable_and_a_single_call_says_it_does_not():
    for change in (listed, named, made, thing, rate, known, size):
        found = cell(INSIDE, listed=[], named={"a": {}}, made=np.zeros(3))
        found.space["thing"] = found.Thing()
        functions = registered(found.f)
        assert functions.name_of(found.f, closely=True) == "f"
        change(found)
        assert functions.name_of(found.f) == "f"
        what = f"before '{change.__name__}', which it uses, was changed here"
        with pytest.raises(ClusterError, match=what):
            functions.name_of(found.f, closely=True)
    assert "does not look inside" in LocalCluster.register.__doc__


def test_what_is_too_large_to_be_compared_at_each_map_is_left_alone():
    found = cell("def f(x):\n    return huge", huge=["y" * (travel.INSIDE_BYTES_MAX + 1)])
    functions = registered(found.f)
    found.huge[0] = "z"
    assert functions.name_of(found.f, closely=True) == "f"


def test_a_cell_that_is_run_again_unchanged_defines_the_same_function():
    made = cell(SOURCE)
    functions = registered(made.f)
    again = cell(SOURCE)
    assert functions.name_of(again.f) == "f"
    made.space["k"] = int("1000")  # another object, but equal
    assert functions.name_of(made.f) == "f"
    edited = cell(SOURCE.replace("return x", "return -x"))
    with pytest.raises(ClusterError, match="workers have f as it was before it was changed here"):
        functions.name_of(edited.f)


def test_a_method_or_a_named_lambda_is_found_again_and_a_stranger_is_not():
    text = "abc"
    functions = registered(text.count)
    assert functions.name_of(text.count) == "count"
    double: FunctionType = lambda x: 2 * x  # noqa: E731
    functions = registered(double, "double")
    assert functions.name_of(double) == "double"
    assert functions.name_of("any kind") == "any kind"
    for stranger, words in ((len, r"len is not registered: cluster.register\(len\)"),
                            (3, "no kind 3"), (lambda x: x, "has no name")):  # fmt: skip
        with pytest.raises(ClusterError, match=words):
            functions.name_of(stranger)
    functions.forget(["double"])
    with pytest.raises(ClusterError, match="has no name"):
        functions.name_of(double)
    assert name_of(double, "x") == "x"
