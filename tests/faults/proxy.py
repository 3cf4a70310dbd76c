"""A TCP proxy on loopback in front of a coordinator, which passes bytes on or does them harm."""

import socket
import threading

from tests.faults.raw import port_of


class Proxy:
    """Passes on what ``alter`` makes of the bytes of a connection, given those that have passed on
    it in this direction; of None nothing, not even the end.
    """

    def __init__(self, endpoint, alter):
        self._target = "127.0.0.1", port_of(endpoint)
        self._alter = alter
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        #: the connections, each a peer's end and the coordinator's
        self.pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)  # a thread that accepts would not see it closed
        self._listening.close()
        for pair in self.pairs:
            for end in pair:
                end.close()

    def _accept(self):
        try:
            while True:
                pair = self._listening.accept()[0], socket.create_connection(self._target)
                self.pairs.append(pair)
                for one, other in (pair, pair[::-1]):
                    args = (pair, one, other)
                    threading.Thread(target=self._pass_on, args=args, daemon=True).start()
        except OSError:
            return

    def _pass_on(self, pair, one, other):
        passed = 0
        try:
            while data := one.recv(1 << 16):
                altered = self._alter(pair, passed, data)
                passed += len(data)
                if altered is not None:
                    other.sendall(altered)
            if self._alter(pair, passed, b"") is not None:
                other.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
