"""Ctrl-C at any moment leaves a client usable, and ``close`` returns."""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from cluster import Client
from tests.faults import interrupted

TIMEOUT_S = 20
#: files in which an interrupt may strike: the client's, and those it relies on
STRUCK = "/cluster/shells/", "/cluster/transport/", "/concurrent/futures/_base.py", "/threading.py"


def interrupt(local, spec, count, longest_s=0.004):
    """Run the driver and interrupt it at random moments; returns its last line."""
    chance = random.Random(count)
    driver = subprocess.Popen(
        [sys.executable, "-m", interrupted.__name__, local.endpoint, spec.name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with driver:
        try:
            assert driver.stdout.readline() == "ready\n"
            end_s = time.monotonic() + 60 + count / 50
            while driver.poll() is None and time.monotonic() < end_s:
                driver.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(chance.uniform(0.0, longest_s))
                if chance.random() < 0.1:  # and two at once
                    driver.send_signal(signal.SIGINT)
            return driver.stdout.read()
        finally:
            driver.kill()


def test_a_few_hundred_interrupts_at_random_moments(local, spec):
    assert interrupt(local, spec, 400).startswith("done")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_interrupts_at_random_moments(local, spec):
    assert interrupt(local, spec, 10_000).startswith("done")


class Strike:
    """Sends SIGINT to this process before the nth bytecode that the main thread runs in a client;
    counts the bytecodes.
    """

    def __init__(self, number):
        self.number = number
        self.passed = 0

    def __enter__(self):
        self.tracer = sys.gettrace()
        sys.settrace(self.enter)

    def __exit__(self, *error):
        sys.settrace(self.tracer)  # coverage's: without it nothing more counts in this process

    def enter(self, frame, event, argument):
        if not any(place in frame.f_code.co_filename for place in STRUCK):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame, event, argument):
        if event == "opcode":
            self.passed += 1
            if self.passed == self.number:
                signal.raise_signal(signal.SIGINT)
        return self.step


def lone(client):
    assert client.submit("echo", b"lone").result(TIMEOUT_S) == b"lone"


def batch(client):
    assert [f.result(TIMEOUT_S) for f in client.submit_batch("echo", [b"a", b"b"])] == [b"a", b"b"]


def mapped(client):
    assert list(client.map("echo", [b"a", b"b"])) == [b"a", b"b"]


def asked(client):
    assert client.status(TIMEOUT_S).workers


@pytest.mark.parametrize("use", [lone, batch, mapped, asked])
def test_an_interrupt_at_each_bytecode(local, spec, use):
    with Client(local.endpoint, spec=spec) as client:
        use(client)
        number = 1
        while True:
            strike = Strike(number)
            try:
                with strike:
                    use(client)
            except KeyboardInterrupt:
                pass
            if strike.passed < number:
                break
            number += 1
            if not number % 20:
                lone(client)
        lone(client)
    assert number > 100


def test_an_interrupt_at_each_bytecode_of_close(local, spec):
    number = 1
    while True:
        client, strike = Client(local.endpoint, spec=spec), Strike(number)
        future = client.submit("sleep", b"0.01")
        try:
            with strike:
                client.close()
        except KeyboardInterrupt:
            client.close()
        assert future.done()
        if strike.passed < number:
            break
        number += 5
    assert number > 50
