"""A notebook in JupyterLab as a user has it: in a real browser, by its buttons and the keyboard."""

import re
import shutil
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
).split()
WINDOW = {"width": 1400, "height": 900}
DEADLINE_MS = 60_000
NUMBER = re.compile(r"\[\d+\]")


@contextmanager
def browser():
    """A page of a browser without a screen; close it before its server ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = opened.new_page(viewport=WINDOW)
            page.set_default_timeout(DEADLINE_MS)
            yield page
        finally:
            opened.close()


class Notebook:
    """The open notebook of a page."""

    def __init__(self, page):
        self.page = page
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.wait_until_idle()

    def type(self, source):
        """Run `source` in the last cell, which another then follows; the cell."""
        cells = self.page.locator(".jp-Notebook .jp-Cell")
        count = cells.count()
        cell = cells.nth(count - 1)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
        cells.nth(count).wait_for()
        return cell

    def run(self, source, timeout_ms=DEADLINE_MS):
        """The output of `source`, when its cell has ended."""
        cell = self.type(source)
        self.ended(cell, timeout_ms)
        return self.output(cell)

    def ended(self, cell, timeout_ms=DEADLINE_MS):
        """Wait until the cell has a number."""
        cell.locator(".jp-InputPrompt", has_text=NUMBER).wait_for(timeout=timeout_ms)

    def output(self, cell):
        return "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts())

    def press(self, command):
        """A button of the toolbar."""
        self.page.locator(f".jp-NotebookPanel-toolbar [data-command='{command}']").click()

    def interrupt(self):
        self.press("notebook:interrupt-kernel")

    def save(self):
        """Save the notebook; what is open must be this alone."""
        self.press("docmanager:save")
        self.page.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached")

    def wait_until_all_ran(self, timeout_ms):
        """Wait until no cell runs or waits to run."""
        indicator = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
        self.page.locator(indicator).wait_for(timeout=timeout_ms)

    def restart(self):
        """Restart the kernel, as the dialog asks for confirmation."""
        self.press("notebook:restart-kernel")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        self.wait_until_idle()

    def wait_until_idle(self):
        """Wait until the status bar says that the kernel is there and does nothing."""
        self.page.get_by_text("(perfkit) | Idle").wait_for()
