"""Growth by type: a planted leak is found to the object, and nothing is made of garbage."""

from __future__ import annotations

import sys

import pytest

from perfkit.profile.growth import ObjectGrowth, object_growth


class Leaked:
    """What is left behind."""

    def __init__(self) -> None:
        self.me = self


LEAKED = f"{Leaked.__module__}.{Leaked.__qualname__}"


def test_a_planted_leak_is_counted_to_the_object() -> None:
    pytest.importorskip("objgraph")
    kept: list[Leaked] = []
    found = object_growth(lambda: kept.extend(Leaked() for _ in range(137)), "the leak")
    assert found.of(LEAKED) == len(kept) == 137
    assert found.types[0].type == LEAKED
    assert found.growth_objects is not None
    assert found.growth_objects >= 137
    assert found.findings()[0].growth_count == 137
    assert f"<td>{LEAKED}</td><td>137</td><td>+137</td>" in found._repr_html_()


def test_garbage_even_in_circles_is_no_growth() -> None:
    pytest.importorskip("objgraph")
    found = object_growth(lambda: [Leaked() for _ in range(137)] and None)
    assert found.of(LEAKED) == 0


def test_without_objgraph_the_reason_is_given_and_no_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "objgraph", None)
    done: list[int] = []
    found = object_growth(lambda: done.append(1))
    assert done == []
    assert (found.of(LEAKED), found.growth_objects, found.findings()) == (None, None, ())
    assert found.reason is not None
    assert 'pip install "perfkit[profile]"' in found.reason
    assert "unknown" in found._repr_html_()


def test_what_the_work_raises_passes() -> None:
    pytest.importorskip("objgraph")
    with pytest.raises(ZeroDivisionError):
        object_growth(lambda: 1 // 0)
    assert ObjectGrowth("x").of("y") is None
