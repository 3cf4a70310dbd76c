"""Headline findings on their way from a notebook to the index and the exit code."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report import ExitCode, Headline, ReportError, Verdict, headlines


def test_a_finding_comes_back_as_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(headlines.NOTEBOOK_VARIABLE, "01_baseline")
    path = headlines.record(
        tmp_path / "new", "Task overhead", 0.2, "ms", 0.1, 0.3, 15, "faster", note="p50", gate=True
    )
    assert path.name == "headline-01_baseline-task-overhead.json"
    assert json.loads(path.read_text())["schema"] == 1
    (found,) = headlines.load(tmp_path / "new")
    assert found == Headline(
        "Task overhead", 0.2, "ms", low=0.1, high=0.3, claim=15.0, verdict=Verdict.FASTER,
        note="p50", gate=True, notebook="01_baseline", recorded_utc=found.recorded_utc,
    )  # fmt: skip


def test_findings_keep_their_order_and_the_last_of_a_title_wins(tmp_path: Path) -> None:
    headlines.record(tmp_path, "Zebra", 1, "x")
    headlines.record(tmp_path, "Ape", None, "x", claim="about the same")
    headlines.record(tmp_path, "Bear", 3, "x", low=2)
    headlines.record(tmp_path, "Ape", 2, "x")
    found = [(headline.title, headline.value) for headline in headlines.load(tmp_path)]
    assert found == [("Zebra", 1.0), ("Bear", 3.0), ("Ape", 2.0)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"title": " "}, "needs a title"),
        ({"verdict": "great"}, "verdict 'great' is none of met, missed"),
        ({"value": float("nan")}, "value is nan, which is no figure"),
        ({"claim": float("inf")}, "claim is inf"),
        ({"low": 3, "high": 2}, "low 3 is above high 2"),
        ({"low": 2}, "value 1 is outside its interval, 2 to inf"),
        ({"high": 0.5}, "value 1 is outside its interval, -inf to 0.5"),
    ],
)
def test_what_is_no_finding_is_refused(
    tmp_path: Path, arguments: dict[str, object], complaint: str
) -> None:
    given = {"title": "T", "value": 1.0, "unit": "ms", **arguments}
    with pytest.raises(ReportError, match=complaint):
        headlines.record(tmp_path, **given)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ("", "Nothing was judged."),
        ("measured", "Nothing was judged."),
        ("met", "1 of 1 goal met."),
        ("met missed met", "2 of 3 goals met; missed: B."),
        ("missed inconclusive met", "1 of 3 goals met; missed: A; inconclusive: B."),
        (
            "missed " * 6,
            "0 of 6 goals met; missed: A, B, C, D and 2 more.",
        ),
        ("regression met", "1 regression: A. 1 of 1 goal met."),
        ("faster faster? same inconclusive?", "Comparisons: 2 faster, 1 same, 1 inconclusive."),
        ("met slower inconclusive?", "1 of 1 goal met. Comparisons: 1 slower, 1 inconclusive."),
    ],
)
def test_the_verdict_is_one_sentence_that_names_what_is_not_met(verdicts: str, told: str) -> None:
    """A question mark is a comparison, which is no goal."""
    found = [
        Headline(title, 1.0, "x", verdict=Verdict(word.rstrip("?")), compares=word.endswith("?"))
        for title, word in zip("ABCDEF", verdicts.split(), strict=False)
    ]
    assert headlines.sentence(found) == told


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "verdict": "odd"}', '{"schema": 1}']
)
def test_a_file_that_is_no_headline_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "headline-x.json").write_text(text)
    with pytest.raises(ReportError, match=r"headline-x\.json is not a headline of schema 1"):
        headlines.load(tmp_path)


@given(
    st.lists(st.tuples(st.sampled_from(Verdict), st.booleans()), max_size=6),
    st.booleans(),
)
def test_only_gates_decide_the_exit_code(parts: list[tuple[Verdict, bool]], every: bool) -> None:
    found = [Headline("t", 1.0, "x", verdict=verdict, gate=gate) for verdict, gate in parts]
    deciding = {verdict for verdict, gate in parts if gate or every}
    expected = ExitCode.INCONCLUSIVE if Verdict.INCONCLUSIVE in deciding else ExitCode.DONE
    bad = {Verdict.REGRESSION, Verdict.SLOWER, Verdict.MISSED} & deciding
    assert headlines.exit_code(found, gate=every) is (ExitCode.REGRESSION if bad else expected)
