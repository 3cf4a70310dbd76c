"""``perfkit lab`` as a user has it: JupyterLab in a real browser, on a copy of the notebooks.

One lab serves all tests. What a test starts in a kernel must be gone when the cell is interrupted,
the kernel restarted, or the lab closed: processes and ports.
"""

import re

import nbformat
import psutil
import pytest

from perfkit.jupyter.live_html import as_html
from perfkit.profile.activity.board import Board, Curve
from perfkit.report.figures.charts import Bar, bars_with_intervals
from tests.perfkit.jupyter.browsing import CHROMIUM, Notebook, browser
from tests.perfkit.jupyter.labs import Lab, all_ports, descendants, ports

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="JupyterLab is looked at in Chromium"),
    pytest.mark.timeout(300),
]
WORKERS = 4
PYTHON = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
}
#: As small as notebook 01 takes.
SMALL = {"tasks: int = 4_000": "tasks: int = 20", r"= \"magika\"": r"= \"digits\""}
#: A cluster that nobody stops, a child, and one that has left the kernel's process group.
LEFT_RUNNING = """\
import subprocess
from cluster import LocalCluster
left = LocalCluster(2).start()
child = subprocess.Popen(["sleep", "600"])
stubborn = subprocess.Popen(["sleep", "600"], start_new_session=True)
"""


#: A function of a cell that takes long enough for each worker to get some of it.
OWN_WORK = """\
import os, time
from cluster import LocalCluster
from perfkit.jupyter.live import live

%perfkit
def worker_of(number):
    time.sleep(0.05)
    return os.getpid()

own = LocalCluster(4, handlers=[worker_of]).start()
view = live(own)
view
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab with a cluster; closed, it leaves nothing of what the tests have started in it."""
    lab = Lab(tmp_path_factory.mktemp("lab"), "--workers", WORKERS)
    yield lab
    left = lab.tree()
    taken = ports(left)
    assert len(left) > WORKERS
    code, said = lab.stop()
    assert (code, "stopping JupyterLab" in said) == (0, True)
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert taken.isdisjoint(all_ports())


@pytest.fixture(scope="module")
def page(lab):
    with browser() as page:
        page.goto(lab.facts["url"])
        page.locator(".jp-Launcher").wait_for()
        yield page


def address(lab, name):
    """Where one notebook of the copy is open, and nothing else."""
    return f"{lab.facts['url'].partition('?')[0]}/tree/{name}?reset"


@pytest.fixture(scope="module")
def open_notebook(lab, page):
    """Opens a notebook and waits for its kernel."""

    def opened(name):
        page.goto(address(lab, name))
        return Notebook(page)

    return opened


@pytest.fixture(scope="module")
def notebook(lab, open_notebook):
    """A notebook that tests write on, one after another."""
    nbformat.write(nbformat.v4.new_notebook(metadata=PYTHON), lab.folder / "scratch.ipynb")
    return open_notebook("scratch.ipynb")


def test_a_tile_for_each_notebook_opens_it(page):
    tiles = page.locator(".jp-LauncherCard-label", has_text=re.compile(r"^0\d "))
    tiles.nth(6).wait_for()
    assert tiles.all_inner_texts()[:3] == ["00 A tour", "01 The baseline", "02 Hot paths"]
    tiles.nth(1).click()
    page.get_by_role("heading", name="The baseline: what the plain cluster does here").wait_for()


def test_a_client_in_a_cell_finds_the_cluster_of_the_lab(lab, notebook):
    said = notebook.run(
        "from cluster import Client\n"
        "with Client() as client:\n"
        "    print(client.endpoint, len(client.status().workers), *client.map('echo', [b'a']))"
    )
    assert f"{lab.facts['endpoint']} {WORKERS} b'a'" in said


def test_a_function_of_a_cell_runs_on_four_workers_and_the_live_view_moves(notebook):
    shown = notebook.type(OWN_WORK)
    shown.get_by_text("done 0").wait_for()
    assert notebook.run("len(set(own.client().map(worker_of, range(40))))").split()[-1] == "4"
    shown.get_by_text("done 40").wait_for()
    notebook.run("own.stop()")


def test_an_interrupt_and_a_restart_leave_no_process_and_no_port(notebook):
    said = notebook.run("import os\nfrom cluster import LocalCluster\nos.getpid()")
    pid = int(said.split()[-1])
    before = ports([psutil.Process(pid)])
    cell = notebook.type(
        "with LocalCluster(2) as own, own.client() as client:\n"
        "    print('endpoint', own.endpoint, flush=True)\n"
        "    client.submit('sleep', b'600').result()"
    )
    cell.get_by_text("endpoint").last.wait_for()
    notebook.interrupt()
    notebook.ended(cell)
    assert "KeyboardInterrupt" in notebook.output(cell)
    assert descendants(pid) == []
    assert ports([psutil.Process(pid)]) == before

    notebook.run(LEFT_RUNNING)
    left = descendants(pid)
    taken = ports(left)
    assert len(left) >= 6
    assert taken
    notebook.restart()
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert taken.isdisjoint(all_ports())
    assert notebook.run("import os\nos.getpid()").split()[-1] != str(pid)
    notebook.run(LEFT_RUNNING)  # for the end of the lab


def test_pictures_of_a_notebook_from_elsewhere_are_pictures(lab, page):
    bars = [Bar("a", 1.0), Bar("b", 2.0)]
    drawn = bars_with_intervals(bars, "ms", title="time", caption="Made up.")
    curve = Curve("queued", "4", [(0.0, 9.0), (1.0, 4.0)])
    board = Board("a board", "live", True, now_s=1.0, span_s=2.0, curves=(curve,))
    bundles = drawn._repr_mimebundle_(), {"text/html": as_html(board)}
    cells = [
        nbformat.v4.new_code_cell(
            "shown", outputs=[nbformat.v4.new_output("display_data", bundle)], execution_count=1
        )
        for bundle in bundles
    ]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=PYTHON), lab.folder / "sent.ipynb"
    )
    page.goto(address(lab, "sent.ipynb"))
    for name in ("time", "queued over the last 2 s, now 4"):
        picture = page.get_by_role("img", name=name)
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        assert picture.bounding_box()["height"] > 40
    assert page.locator(".pk-live style").count() == 0, "the notebook is untrusted"


@pytest.mark.slow
def test_the_baseline_runs_to_its_end_and_a_long_cell_says_so(lab, open_notebook):
    path = lab.folder / "01_baseline.ipynb"
    for text, small in SMALL.items():
        assert text in path.read_text()
        path.write_text(path.read_text().replace(text, small))
    # Else a cell that is out of sight is not in the page, and the one that takes long may be.
    settings = lab.folder.parent / "settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    notebook = open_notebook(path.name)
    notebook.press("notebook:restart-run-all")
    notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
    notebook.page.get_by_text(re.compile("^runs for .* s")).first.wait_for()
    notebook.wait_until_all_ran(240_000)
    notebook.save()
    cells = [it for it in nbformat.read(path, 4).cells if it.cell_type == "code"]
    assert [it.execution_count for it in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds == {"display_data", "execute_result"}
