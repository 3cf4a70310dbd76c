"""A program that is interrupted: its main thread submits and waits until it has heard SIGINT as
often as it was told; then its client must still work, and close.

Its handler raises KeyboardInterrupt, but not in ``main``, whose loop would end. Usage:
``python -m tests.faults.interrupted ENDPOINT SPEC INTERRUPTS``; it prints "ready" and "done".
"""

import faulthandler
import signal
import sys
from concurrent.futures import as_completed, wait

from cluster import BASELINE, Client
from perfkit.optimized.specs import OPTIMIZED

SPECS = {spec.name: spec for spec in (BASELINE, OPTIMIZED)}
TIMEOUT_S = 30
#: the slow task that is waited for
SLOW = []


def main() -> None:
    endpoint, spec, most = sys.argv[1], SPECS[sys.argv[2]], int(sys.argv[3])
    faulthandler.dump_traceback_later(100 + most / 50, exit=True)
    heard = 0

    def hear(number, frame):
        nonlocal heard
        heard += 1
        inside = frame is None or frame.f_code is not main.__code__
        if heard <= most and inside:
            raise KeyboardInterrupt

    client = Client(endpoint, spec=spec)
    client.status(TIMEOUT_S)
    signal.signal(signal.SIGINT, hear)
    print("ready", flush=True)
    rounds = 0
    while heard < most:
        try:
            use(client, rounds)
        except KeyboardInterrupt:
            continue
        finally:
            rounds += 1
    while closing(client):
        pass
    with Client(endpoint, spec=spec) as other:
        assert other.submit("echo", b"new").result(TIMEOUT_S) == b"new"
    print("done", rounds, flush=True)


def use(client, number):
    """Use the client in one of the ways there are."""
    way = number % 8
    if way < 4:
        assert client.submit("echo", b"%d" % number).result(TIMEOUT_S) == b"%d" % number
    elif way == 4:  # waits again for the same task after an interrupt
        if not SLOW:
            SLOW.append(client.submit("sleep", b"0.02"))
        assert SLOW[0].result(TIMEOUT_S) == b"0.02"
        SLOW.clear()
    elif way == 5:
        payloads = [b"%d" % n for n in range(20)]
        assert list(client.map("echo", payloads)) == payloads
    elif way == 6:
        futures = client.submit_batch("echo", [b"x"] * 5)
        assert not wait(futures, TIMEOUT_S).not_done
        assert len([*as_completed(futures, TIMEOUT_S)]) == 5
    else:
        client.submit("echo", b"unwanted").cancel()
        client.status(TIMEOUT_S)


def closing(client):
    """Whether the client still has to be closed; it works before that."""
    assert client.submit("echo", b"at last").result(TIMEOUT_S) == b"at last"
    payloads = [b"%d" % n for n in range(50)]
    assert [f.result(TIMEOUT_S) for f in client.submit_batch("echo", payloads)] == payloads
    signal.raise_signal(signal.SIGINT)
    client.close()
    client.close()
    return False


if __name__ == "__main__":
    main()
