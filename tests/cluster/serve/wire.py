"""Bare sockets: what no client library would send, and the answer to it."""

import socket
from contextlib import suppress


def raw_exchange(api, data, *, quiet_s=20.0):
    """Send bytes to a server, and read one answer, or all until it closes or stays quiet."""
    with socket.create_connection((api.host, api.port), quiet_s) as peer:
        with suppress(OSError):  # refused before it was all sent
            peer.sendall(data)
        found = b""
        try:
            while part := peer.recv(1 << 16):
                found += part
                if is_complete(found):
                    break
        except OSError:
            pass
    return found


def is_complete(answer):
    """Whether an answer of known length is all there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    return bool(end and lengths and len(body) >= lengths[0])
