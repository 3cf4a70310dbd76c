"""The hook that turns paged text into an output; whole kernels are tested in test_run."""

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from perfkit.report.engine import pager


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_without_a_shell_there_is_nothing_to_install() -> None:
    InteractiveShell.clear_instance()
    assert pager.install() is False


def test_paged_text_is_displayed_once(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pager.install() is True
    pager.load_ipython_extension(shell)
    shell.hooks.show_in_pager("the profile", start=0, screen_lines=0)
    assert capsys.readouterr().out == "the profile\n"
