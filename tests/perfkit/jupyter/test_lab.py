"""How a ``perfkit lab`` ends: told twice, by JupyterLab's menu, killed outright."""

import json
import signal
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from jupyter_client import BlockingKernelClient

from perfkit.jupyter.lab import STOP_S
from tests.perfkit.jupyter.labs import Lab, all_ports, ports


def ask(lab: Lab, path: str) -> object:
    """Post to the server's API as JupyterLab does."""
    parts = urlsplit(lab.facts["url"])
    token = parse_qs(parts.query)["token"][0]
    request = Request(
        f"http://{parts.netloc}/api/{path}",
        b"{}",
        {"Authorization": f"token {token}", "Content-Type": "application/json"},
    )
    with urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


@pytest.fixture
def lab(tmp_path, request):
    lab = Lab(tmp_path, "--workers", 0, *getattr(request, "param", ()))
    yield lab
    if lab.process.poll() is None:
        lab.stop()


def kernel(lab: Lab) -> psutil.Process:
    """Start a kernel; its process, once it answers: one that only starts is ended at once."""
    ask(lab, "kernels")
    (started,) = (it for it in lab.tree() if "ipykernel_launcher" in it.cmdline())
    command = started.cmdline()
    client = BlockingKernelClient(connection_file=command[command.index("-f") + 1])
    client.load_connection_file()
    # Without the heartbeat, which takes a kernel that needs a second to start for a dead one.
    client.start_channels(hb=False)
    client.kernel_info(reply=True, timeout=60)
    client.stop_channels()
    return started


@pytest.mark.parametrize(
    "lab", [("--", "--KernelManager.shutdown_wait_time=600")], indirect=True, ids=["patient"]
)
def test_a_second_interrupt_kills_what_the_first_would_have_waited_for(lab):
    kernel(lab).suspend()
    left = lab.tree()
    taken = ports(left)
    lab.process.send_signal(signal.SIGINT)
    assert "stopping JupyterLab and its kernels …\n" in iter(lab.process.stderr.readline, "")
    lab.process.send_signal(signal.SIGINT)
    lab.process.communicate(timeout=STOP_S / 2)
    assert lab.process.returncode == 0
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert taken.isdisjoint(all_ports())


def test_shut_down_in_the_browser_it_ends_well(lab):
    left = [kernel(lab), *lab.tree()]
    ask(lab, "shutdown")
    _, said = lab.process.communicate(timeout=60)
    assert lab.process.returncode == 0
    assert "JupyterLab was shut down" in said
    assert psutil.wait_procs(left, timeout=20)[1] == []


def test_killed_outright_it_takes_its_server_and_kernels_along(lab):
    left = [kernel(lab), *lab.tree()]
    lab.process.kill()
    assert psutil.wait_procs(left, timeout=20)[1] == []
    lab.process.communicate()
