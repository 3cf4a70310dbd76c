"""The table of exit codes: complete, ordered, and equal to what the documentation says."""

import itertools
from pathlib import Path

from perfkit.report.engine.outcome import MEANING, SEVERITY, ExitCode, Failure, Status, most_severe

README = Path(__file__).parents[4] / "reports" / "README.md"


def test_the_codes_are_those_a_program_relies_on() -> None:
    names = "DONE CELL_FAILED BAD_ARGUMENTS REGRESSION INCONCLUSIVE KERNEL_DIED TIMED_OUT"
    assert [code.name for code in ExitCode] == names.split()
    assert list(map(int, ExitCode)) == [0, 1, 2, 3, 4, 5, 6]
    assert set(MEANING) == set(SEVERITY) == set(ExitCode)
    documented = README.read_text()
    assert all(f"| {code.value} | " in documented for code in ExitCode)
    assert [status.exit_code.value for status in Status] == [0, 1, 5, 6]


def test_the_most_severe_code_wins_in_any_order() -> None:
    for first, second in itertools.combinations(SEVERITY, 2):
        assert most_severe([first, second]) is most_severe([second, first]) is first
    assert most_severe([]) is ExitCode.DONE


def test_a_failure_reads_as_a_sentence() -> None:
    assert Failure(None, "Load", "page", "too large").sentence == "page: too large"
    assert Failure(None, "Load", "KeyError", "").sentence == "KeyError"
