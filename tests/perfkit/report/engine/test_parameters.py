"""What a parameter cell declares, and which values get past it to a kernel."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report.engine.parameters import Parameter, ParameterError, parse_parameters, resolve

CELL = """\
# Where it says how much
profile: str = "quick"  # quick|full|soak: how long to measure
seed: int = 3  # of everything random
tasks: int = 20_000  # 1..1_000_000: how many tasks
share: float = 0.5  # 0.0..1.0
limit: float | None = None  # 0.1..
depth: "int" = 4  # ..10: at most
warm = True
files: list[str] = [
    "a",  # not this comment
]  # paths to read
note = 'has # inside'
model: Optional[str] = None
anything = None
derived = seed * 2
print("ignored")
"""


@pytest.fixture
def declared() -> dict[str, Parameter]:
    return parse_parameters(CELL, "n.ipynb")


def test_a_cell_declares_names_types_rules_and_help(declared: dict[str, Parameter]) -> None:
    assert declared == {
        "profile": Parameter(
            "profile", "str", "quick", choices=("quick", "full", "soak"), help="how long to measure"
        ),
        "seed": Parameter("seed", "int", 3, help="of everything random"),
        "tasks": Parameter("tasks", "int", 20_000, low=1, high=1_000_000, help="how many tasks"),
        "share": Parameter("share", "float", 0.5, low=0, high=1),
        "limit": Parameter("limit", "float", None, optional=True, low=0.1),
        "depth": Parameter("depth", "int", 4, high=10, help="at most"),
        "warm": Parameter("warm", "bool", True),
        "files": Parameter("files", "list", ["a"], help="paths to read"),
        "note": Parameter("note", "str", "has # inside"),
        "model": Parameter("model", "str", None, optional=True),
        "anything": Parameter("anything", None, None, optional=True),
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tasks", "2_000", 2000),
        ("tasks", 1, 1),
        ("tasks", "1_000_000", 1_000_000),
        ("share", "1", 1.0),
        ("share", 1, 1.0),
        ("limit", "none", None),
        ("warm", "No", False),
        ("warm", "on", True),
        ("files", "['x', 'y']", ["x", "y"]),
        ("note", "12", "12"),
        ("note", Path("a/b"), "a/b"),
        ("anything", "{'a': 1}", {"a": 1}),
        ("anything", "plain words", "plain words"),
    ],
)
def test_text_from_a_command_line_becomes_the_declared_type(
    declared: dict[str, Parameter], name: str, text: object, value: object
) -> None:
    assert resolve({"n": declared}, {name: text}, {}) == {"n": {name: value}}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("tasks", "many", "'tasks' of n must be an int, not 'many'"),
        ("tasks", 2.5, "must be an int, not 2.5"),
        ("tasks", 0, "is 0, outside its range 1 to 1,000,000"),
        ("share", float("nan"), "is nan, outside its range 0 to 1"),
        ("limit", 0.01, "outside its range from 0.1 upwards"),
        ("depth", 11, "outside its range up to 10"),
        ("warm", "maybe", "must be a bool, not 'maybe'"),
        ("files", "a.txt", "must be a list, not 'a.txt'"),
        ("profile", "profile", "is the profile of the whole run"),
        ("out_dir", "x", "cannot be set"),
        ("worker", 1, "'worker' is unknown (there are anything, depth, files"),
        ("task", 1, "'task' is unknown; did you mean 'tasks'?"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    declared: dict[str, Parameter], name: str, value: object, complaint: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        resolve({"n": declared}, {name: value}, {})
    assert complaint in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_told_at_once(declared: dict[str, Parameter]) -> None:
    with pytest.raises(ParameterError, match="3 parameters are wrong: ") as caught:
        resolve({"n": declared}, {"task": 1, "depth": "deep", "share": 2.0}, {})
    assert len(caught.value.problems) == 3
    with pytest.raises(ParameterError, match="no notebook of this run takes any"):
        resolve({"n": {}}, {"x": 1}, {})


def test_a_value_reaches_each_notebook_that_declares_it(declared: dict[str, Parameter]) -> None:
    other = {"seed": Parameter("seed", "int", 0), "out_dir": Parameter("out_dir", "str", ".")}
    common = {"profile": "full", "out_dir": "results"}
    chosen = resolve({"n": declared, "other": other}, {"seed": "7"}, common)
    assert chosen["n"] == {"seed": 7, "profile": "full"}
    assert chosen["other"] == {"seed": 7, "out_dir": "results"}


@given(st.from_type(type).flatmap(st.from_type) | st.text() | st.floats())
def test_any_value_is_either_of_the_type_or_refused(value: object) -> None:
    for type_name, kind in {"int": int, "str": str, "bool": bool, "list": list}.items():
        parameter = Parameter("p", type_name, None)
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        assert (parameter.problem(value) is None) == fits


@given(st.text(st.characters(exclude_categories=["C", "N"], exclude_characters="|"), max_size=40))
def test_no_comment_can_break_the_reading(comment: str) -> None:
    line = "n: int = 3  # " + " ".join(comment.split())
    (parameter,) = parse_parameters(line, "n.ipynb").values()
    assert (parameter.name, parameter.type_name, parameter.default) == ("n", "int", 3)


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("n: int = 9  # 1..5", r"the default of 'n' in n\.ipynb is 9, outside"),
        ("a = 1\n%magic = 2", r"not plain Python \(line 2\)"),
    ],
)
def test_a_cell_with_a_mistake_is_refused(cell: str, complaint: str) -> None:
    with pytest.raises(ParameterError, match=complaint):
        parse_parameters(cell, "n.ipynb")
