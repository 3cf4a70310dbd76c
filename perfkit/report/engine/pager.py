"""Shows what profiler magics print, also when nobody is there to press a key.

`%prun` and `%lprun` hand their tables to IPython's pager. A kernel that runs in batch sends such
text as a pager payload, which papermill drops: the profile a notebook was written for is missing
from its report. A hook that displays the text as an ordinary output brings it back.

The module is an IPython extension, and the report engine names it on the kernel's command line,
so that no notebook needs a line for it. In JupyterLab: `%load_ext perfkit.report.engine.pager`.
"""

from __future__ import annotations

from typing import Any

#: Lower runs first. The kernel's own hook, which sends the payload, sits at 99.
PRIORITY = 90


def install(shell: Any = None) -> bool:
    """Make `shell` (the running IPython shell when None) display paged text as an output.

    Returns whether there was a shell to install into. Installing twice changes nothing.
    """
    from IPython.core.getipython import get_ipython
    from IPython.core.page import as_hook, display_page

    target: Any = shell if shell is not None else get_ipython()
    if target is None:
        return False
    if not getattr(target, "_perfkit_pager", False):
        target.set_hook("show_in_pager", as_hook(display_page), PRIORITY)  # type: ignore[no-untyped-call]
        target._perfkit_pager = True
    return True


def load_ipython_extension(shell: Any) -> None:
    """IPython's entry point for `%load_ext` and for extensions named on a command line."""
    install(shell)
