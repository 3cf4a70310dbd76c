"""Peers on bare TCP that speak just enough ZMTP (https://rfc.zeromq.org/spec/23) to misbehave, and
a coordinator in a process of its own, whose memory and processor time can be read.
"""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from cluster.spec import encode_spec

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
#: an empty frame that is not a message's last
EMPTY = b"\x01\x00"
LAST = b"\x00\x00"
PAGE_BYTES = resource.getpagesize()
TICKS = os.sysconf("SC_CLK_TCK")


def port_of(endpoint):
    return int(endpoint.rpartition(":")[2])


def connect(endpoint, hello=True):
    """A raw connection that has shaken hands, and has said hello unless told not to."""
    raw = socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=10)
    raw.sendall(GREETING)
    read(raw, 64)
    raw.sendall(b"\x04" + bytes([len(READY)]) + READY + (LAST if hello else b""))
    return raw


def read(raw, size):
    data = b""
    while len(data) < size:
        data += raw.recv(size - len(data)) or b"\0" * size
    return data


def is_cut(raw, timeout_s=5.0):
    """Whether the other side ends the connection in time; what it says before is skipped."""
    raw.settimeout(timeout_s)
    try:
        while raw.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


class Coordinator:
    """A coordinator's process."""

    def __init__(self, process, endpoint):
        self.process, self.endpoint = process, endpoint

    @property
    def resident_bytes(self):
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    @property
    def busy_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def coordinator(spec, descriptors=None, bind="tcp://127.0.0.1:*"):
    """A coordinator in a process of its own, which may be allowed few descriptors."""

    command = [sys.executable, "-m", "cluster.process", "coordinator"]
    command += ["--spec", encode_spec(spec), "--bind", bind]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Coordinator(process, json.loads(process.stdout.readline())["endpoint"])
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)
