"""Shows the tables of profiler magics in reports that run in batch.

`%prun` and `%lprun` hand their tables to IPython's pager. A kernel in batch sends them as a pager
payload, which papermill drops, so the report would lack the profile. A hook displays the text as an
ordinary output instead.

The module is an IPython extension that the report engine names on the kernel's command line, so no
notebook needs a line for it. In JupyterLab: `%load_ext perfkit.report.engine.pager`.
"""

from __future__ import annotations

from typing import Any

#: Lower runs first. The kernel's own hook, which sends the payload, sits at 99.
PRIORITY = 90


def load_ipython_extension(shell: Any) -> None:
    """Make `shell` display paged text as an output; IPython calls this for an extension."""
    from IPython.core.page import as_hook, display_page

    shell.set_hook("show_in_pager", as_hook(display_page), PRIORITY)
