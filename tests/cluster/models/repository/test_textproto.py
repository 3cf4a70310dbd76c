"""Protobuf's text format, as people write it; anything else is an error with its line."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.repository.textproto import TextprotoError, parse_textproto

CASES: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("# a comment\n", {}),
    ('name: "a"', {"name": ["a"]}),
    ("name:'a' # why\nmax: 8,other: -1;x : 1.5e-3", {
        "name": ["a"], "max": ["8"], "other": ["-1"], "x": ["1.5e-3"],
    }),
    ("dims: [ -1, 3 ] dims: 4", {"dims": ["-1", "3", "4"]}),
    ("dims: []", {"dims": []}),
    ("input { name: 'a' } input: < name: 'b' >", {"input": [{"name": ["a"]}, {"name": ["b"]}]}),
    ("input [ { a: 1 }, { a: 2 } ]", {"input": [{"a": ["1"]}, {"a": ["2"]}]}),
    (r'x: "a\"b\n\x41\101" "c"', {"x": ['a"b\nAAc']}),
    ("[a.b/c]: 1", {"a.b/c": ["1"]}),
    ("flag: true kind: KIND_CPU", {"flag": ["true"], "kind": ["KIND_CPU"]}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_people_write_is_read(text: str, expected: dict[str, Any]) -> None:
    assert parse_textproto(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: ", "line 1: it ends too early"),
        ("a {\n b: 1", "line 2: it ends too early"),
        ("a: 1\n}", "line 2: expected a field's name, found '}'"),
        ("a: 1 b", "line 1: it ends too early"),
        ("a 1", "line 1: a field without : before its value"),
        ("a: }", "line 1: expected a value, found '}'"),
        ("a: [1", "line 1: it ends too early"),
        ("[a", "line 1: it ends too early"),
        ("\n\n a: @", "line 3: '@' is not protobuf's text format"),
        ('a: "torn\n"', "line 1: '\"torn"),
        ("a {" * 40, "line 1: messages are nested more than 32 deep"),
        ("a: 1\n" * 300_000, "it has 1,500,000 characters; at most 1,048,576 fit"),
    ],
)
def test_what_is_torn_or_too_much_is_an_error_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(TextprotoError) as raised:
        parse_textproto(text)
    assert str(raised.value).startswith(complaint)


@given(text=st.text(alphabet="ab12:{}[]<>\"'\\,;#-/. \n@") | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_textproto(text)
    except TextprotoError:
        return
    assert all(isinstance(values, list) for values in found.values())


values = st.recursive(
    st.integers().map(str) | st.sampled_from(["TYPE_FP32", "true"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.lists(inner, min_size=1), max_size=3),
    max_leaves=8,
)


def written(message: dict[str, Any]) -> str:
    return "\n".join(
        f"{name} {{ {written(it)} }}" if isinstance(it, dict) else f"{name}: {it}"
        for name, all_of in message.items()
        for it in all_of
    )


@given(message=st.dictionaries(st.sampled_from("abc"), st.lists(values, min_size=1), max_size=3))
def test_what_is_written_is_read_back_and_a_torn_end_is_no_crash(message: dict[str, Any]) -> None:
    text = written(message)
    assert parse_textproto(text) == message
    for end in range(0, len(text), max(1, len(text) // 7)):
        test_any_text_is_read_or_refused.hypothesis.inner_test(text[:end])  # type: ignore[attr-defined]


def test_hostile_comments_take_no_time() -> None:
    assert parse_textproto("#" * 500_000) == {}
    with pytest.raises(TextprotoError):
        parse_textproto("#" * 1000 + "\n@")
