"""What a connection did: the events of a ZeroMQ socket, and the packets of a port.

The socket's monitor tells when it connected, lost its peer, tried again and shook hands. Packets
come from the kernel (AF_PACKET), which needs CAP_NET_RAW; the file opens in Wireshark.
"""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import zmq
from zmq.utils.monitor import recv_monitor_message

#: Of each packet the headers and the beginning of what it carries are kept, of all this much.
KEPT_BYTES, FILE_BYTES_MAX = 128, 64 << 20
#: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html: magic, version 2.4, no time zone,
#: length kept, Ethernet.
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, KEPT_BYTES, 1)
_ALL_PROTOCOLS, _OUTGOING = 0x0003, 4
_ETHERNET_BYTES, _IPV4, _TCP = 14, b"\x08\x00", 6
_READ_TIMEOUT_S = 0.05


class watch_socket:  # noqa: N801 -- a context manager, named as those are
    """Note the events of a ZeroMQ socket during a `with` block.

    `events` has the name of each, such as `connected` or `connect_retried`, and its time in seconds
    from the start. The socket may belong to another thread. It has one monitor at a time.
    """

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self.events: list[tuple[float, str]] = []
        self._watched = watched
        self._began_s = 0.0

    @property
    def counts(self) -> Counter[str]:
        """How often each event came."""
        return Counter(name for _, name in self.events)

    def series(self) -> dict[str, list[float | None]]:
        """For each event a column of the times at which it came: `connected_at_s`."""
        columns: dict[str, list[float | None]] = {}
        for at_s, name in self.events:
            columns.setdefault(f"{name}_at_s", []).append(at_s)
        return columns

    def __enter__(self) -> Self:
        self._began_s = time.perf_counter()
        monitor = self._watched.get_monitor_socket()
        self._thread = threading.Thread(target=self._run, args=(monitor,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._thread.join()

    def _run(self, monitor: zmq.Socket[bytes]) -> None:
        while True:
            event = zmq.Event(recv_monitor_message(monitor)["event"])
            if event == zmq.Event.MONITOR_STOPPED:
                break
            self.events.append((time.perf_counter() - self._began_s, str(event.name).lower()))
        monitor.close(linger=0)


class capture_packets:  # noqa: N801 -- a context manager, named as those are
    """Write the TCP packets of a port on the loopback interface to a pcap file in a `with` block.

    `reason` says why none were captured; "" if they were. `packets` and `wire_bytes` count them
    with their Ethernet, IP and TCP headers; `dropped` were beyond FILE_BYTES_MAX. The file is
    readable by its owner only.
    """

    def __init__(self, port: int, path: Path) -> None:
        self.path = path
        self.reason = ""
        self.packets = self.wire_bytes = self.dropped = 0
        self._port = struct.pack("!H", port)
        self._until_s = math.inf
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)
            )
            self._socket.bind(("lo", 0))
        except (AttributeError, OSError) as error:
            self.reason = f"not captured: {error}; it needs Linux and CAP_NET_RAW"
            return self
        self._socket.settimeout(_READ_TIMEOUT_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # What has arrived by now waits in the socket and is still read.
        self._until_s = time.monotonic() + _READ_TIMEOUT_S
        if not self.reason:
            self._thread.join()
            self._socket.close()

    def _run(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            self.path.chmod(0o600)
            file.write(PCAP_HEADER)
            while True:
                try:
                    packet, (_, _, direction, *_) = self._socket.recvfrom(1 << 16)
                except TimeoutError:
                    packet, direction = b"", _OUTGOING
                if time.monotonic() > self._until_s:
                    return
                # The loopback interface shows each packet as sent and as received.
                if direction == _OUTGOING or not self._is_ours(packet):
                    continue
                self.packets += 1
                self.wire_bytes += len(packet)
                if file.tell() > FILE_BYTES_MAX:
                    self.dropped += 1
                    continue
                second, rest = divmod(time.time_ns(), 1_000_000_000)
                kept = packet[:KEPT_BYTES]
                head = struct.pack("<IIII", second, rest // 1_000, len(kept), len(packet))
                file.write(head + kept)

    def _is_ours(self, packet: bytes) -> bool:
        """Whether it is TCP over IPv4 from or to the port."""
        if packet[12:14] != _IPV4 or packet[_ETHERNET_BYTES + 9] != _TCP:
            return False
        tcp = _ETHERNET_BYTES + 4 * (packet[_ETHERNET_BYTES] & 15)
        return self._port in (packet[tcp : tcp + 2], packet[tcp + 2 : tcp + 4])
