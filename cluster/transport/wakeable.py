"""Waiting for a socket with the system's poll, and a channel whose wait another thread can end."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from functools import partial

import zmq

from cluster.spec import ClusterSpec
from cluster.transport.channel import Channel
from cluster.vocabulary.errors import ClusterError

#: what a context and a socket take, and some
SPARE_DESCRIPTORS = 20


class Waker:
    """Wakes a poller from another thread or a signal handler."""

    def __init__(self) -> None:
        self._hears_signals = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read.fileno()

    def wake(self) -> None:
        """Make the poller return; a full pipe has woken it already."""
        try:
            self._write.send(b"\0")
        except OSError:
            return

    def hear_signals(self) -> None:
        """Make the poller return for every signal that has a handler, even one that arrives just
        before the poll. Call it from the main thread.
        """
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._hears_signals = True

    def clear(self) -> None:
        """Forget all wake-ups so far."""
        try:
            while len(self._read.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the descriptors; call it from the main thread after hear_signals."""
        if self._hears_signals:
            signal.set_wakeup_fd(-1)
            self._hears_signals = False
        self._read.close()
        self._write.close()


class Listener:
    """Waits for a message or a wake-up with the system's own poll.

    ZeroMQ's poller asks each socket before and after it waits; this asks once. A socket's
    descriptor signals news only once, and any use of the socket takes the signal: hence the
    question before each wait.
    """

    def __init__(self, channel: Channel, waker: Waker) -> None:
        self._channel, self._waker = channel, waker
        self._fds = select.poll()
        self._fd, self._waker_fd = int(channel.socket.getsockopt(zmq.FD)), waker.fileno()
        self._fds.register(self._fd, select.POLLIN)
        self._fds.register(self._waker_fd, select.POLLIN)
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call a function when a wait finds another descriptor readable."""
        self._fds.register(fd, select.POLLIN)
        self._watched[fd] = call

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait until there may be a message or a wake-up, or the time is up; tells whether it was
        a wake-up.
        """
        return not self._channel.readable() and self.poll(timeout_ms)

    def poll(self, timeout_ms: int | None) -> bool:
        """The same when the caller knows that no message is there."""
        woken = False
        for fd, _ in self._fds.poll(timeout_ms):
            if fd == self._fd:
                self._channel.is_signalled = True
            elif fd == self._waker_fd:
                self._waker.clear()
                woken = True
            elif fd in self._watched:
                self._watched[fd]()
        return woken


class SharedContext:
    """One ZeroMQ context for all clients of a process, which saves each two threads and five
    descriptors. The last to leave ends it, so that its goodbye is sent.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may close a client in ``enter``
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._users = 0

    def enter(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The context, for one more user."""
        with self._lock:
            if self._context is None:
                self._context = zmq.Context()
            self._users += 1
            return self._context

    def leave(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Count a user less."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            self._context = None
        context.term()


#: a forked child begins with another one: its parent's threads are not there
_shared = SharedContext()
os.register_at_fork(after_in_child=_shared.__init__)  # type: ignore[misc]


def check_descriptors() -> None:
    """Raise ClusterError if so few descriptors are left that ZeroMQ would abort the process."""
    taken: list[int] = []
    try:
        for _ in range(SPARE_DESCRIPTORS // 2):
            taken += os.pipe()
    except OSError as error:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise ClusterError(
            f"no descriptors are left for a connection: this process may open {most} (ulimit -n); "
            "close what it does not need, or raise the limit"
        ) from error
    finally:
        for fd in taken:
            os.close(fd)


class WakeableChannel(Channel):
    """A channel with a context of its own or a shared one; another thread can wake the one that
    waits on it. Raises ClusterError if there is no descriptor for it.
    """

    def __init__(self, kind: int, spec: ClusterSpec, *, shared: bool = False) -> None:
        check_descriptors()
        context: zmq.Context[zmq.Socket[bytes]] = _shared.enter() if shared else zmq.Context()
        end_context = partial(_shared.leave, context) if shared else context.term
        self._context = context
        try:
            super().__init__(context, kind, spec)
        except zmq.ZMQError as error:
            end_context()
            raise ClusterError(f"no further connection in this process: {error}") from error
        self.waker = Waker()
        self.listener = Listener(self, self.waker)
        #: all sockets of the context: one that is open would block its end
        self.sockets = [self.socket]
        # The collector may finalize the context before its sockets, and would wait for ever.
        self._release = weakref.finalize(self, _release, self.sockets, end_context, self.waker)
        self._release.atexit = False

    def close(self) -> None:
        """Close the sockets, their context unless others use it, and the waker."""
        self._release()


def _release(
    sockets: list[zmq.Socket[bytes]], end_context: Callable[[], None], waker: Waker
) -> None:
    for each in sockets:
        each.close()
    end_context()
    waker.close()
