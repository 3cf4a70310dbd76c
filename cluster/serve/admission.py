"""Who may go next: a bounded window for each kind of task, and fair queues before it.

Sans-IO: time is an argument, and nothing here knows of sockets or futures. A `Ticket` is a task
that a request waits for. What has no room in its kind's window waits in a queue of its client's;
clients are served in turn, so one with a thousand tasks can't starve one with a single task. What
can't be made by its deadline is refused at once, by the rate that was measured while the window was
full. Every queue has a bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: Tasks of a kind in flight: what is answered in `WINDOW_S`, within these bounds. Workers batch
#: what they hold, so the window is many batches; what waits beyond it can still be reordered.
WINDOW_MIN, WINDOW_MAX, WINDOW_S = 64, 2_048, 0.25
#: tasks that may pass a waiting one of lower priority
BYPASSES = 16
PRIORITIES = 4
#: a rate is measured over at least this time and these tasks
MEASURED_S, MEASURED_TASKS = 0.1, 8


class Refused(Exception):
    """A task that is not taken: ``is_own`` tells if the client's own bound is the reason."""

    def __init__(self, reason: str, retry_after_s: float, *, is_own: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_own = is_own


@dataclass(slots=True, eq=False)
class Ticket:
    """A task that waits or is in flight. Times are on the caller's clock, in seconds."""

    kind: str
    payload: bytes
    client: str
    priority: int
    due_s: float
    queued_s: float
    sent_s: float | None = None
    is_over: bool = False
    #: the caller's
    waiter: Any = None
    task: Any = None

    @property
    def queue_s(self) -> float:
        """How long it waited for its turn; 0.0 while it waits."""
        return 0.0 if self.sent_s is None else self.sent_s - self.queued_s


class Turns:
    """Queues of clients that are served in turn."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, OrderedDict[Ticket, None]] = OrderedDict()
        self.count = 0

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for queue in self._queues.values() for ticket in queue)

    @property
    def clients(self) -> int:
        """How many clients wait."""
        return len(self._queues)

    def waiting(self, client: str) -> int:
        """How many tasks of a client wait."""
        return len(self._queues.get(client, ()))

    def append(self, ticket: Ticket) -> None:
        """Add a task at the end of its client's queue."""
        queue = self._queues.get(ticket.client)
        if queue is None:
            queue = self._queues[ticket.client] = OrderedDict()
        queue[ticket] = None
        self.count += 1

    def popleft(self) -> Ticket:
        """Take the next client's first task; that client is the last then."""
        client, queue = next(iter(self._queues.items()))
        ticket, _ = queue.popitem(last=False)
        self.count -= 1
        if queue:
            self._queues.move_to_end(client)
        else:
            del self._queues[client]
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a task out."""
        queue = self._queues[ticket.client]
        del queue[ticket]
        self.count -= 1
        if not queue:
            del self._queues[ticket.client]


@dataclass(slots=True)
class Lane:
    """The tasks of one kind. ``rate_per_s`` is None until the window has once been full."""

    in_flight: int = 0
    turns: tuple[Turns, ...] = field(default_factory=lambda: tuple(Turns() for _ in range(4)))
    passed: int = 0
    rate_per_s: float | None = None
    full_since_s: float | None = None
    done_since: int = 0

    @property
    def window(self) -> int:
        """How many may be in flight."""
        rate = self.rate_per_s or 0.0
        return max(WINDOW_MIN, min(WINDOW_MAX, int(rate * WINDOW_S)))

    @property
    def queued(self) -> int:
        """How many wait."""
        urgent, high, normal, low = self.turns  # asked several times for each task
        return urgent.count + high.count + normal.count + low.count

    def next_turns(self) -> tuple[Turns, int] | None:
        """The queues to serve, and for how many tasks: the highest priority's, but lower ones are
        passed over only `BYPASSES` times. None if nothing waits.
        """
        waiting = [turns for turns in self.turns if turns.count]
        if len(waiting) <= 1:
            self.passed = 0
            return (waiting[0], waiting[0].count) if waiting else None
        if self.passed >= BYPASSES:
            self.passed = 0
            return waiting[1], 1
        self.passed += 1
        return waiting[0], 1

    def measure(self, now_s: float) -> None:
        """Learn the rate, while the window is full: otherwise it is that of the requests."""
        if not self.queued:
            self.full_since_s = None
        elif self.full_since_s is None:
            self.full_since_s, self.done_since = now_s, 0
        elif now_s - self.full_since_s >= MEASURED_S and self.done_since >= MEASURED_TASKS:
            rate = self.done_since / (now_s - self.full_since_s)
            old = self.rate_per_s
            self.rate_per_s = rate if old is None else 0.7 * old + 0.3 * rate
            self.full_since_s, self.done_since = now_s, 0

    def wait_s(self, ticket: Ticket) -> float | None:
        """How long a new task would take to its result; None if nothing is known."""
        if self.rate_per_s is None or self.in_flight < self.window:
            return None
        ahead = self.in_flight
        for priority, turns in enumerate(self.turns[: ticket.priority + 1]):
            own = turns.waiting(ticket.client) + 1
            is_own = priority == ticket.priority
            ahead += min(turns.count, own * max(1, turns.clients)) if is_own else turns.count
        return ahead / self.rate_per_s


class Admission:
    """The lanes of all kinds, within bounds: tasks that wait for one kind, and of one client."""

    def __init__(self, queued_per_client: int = 4_096, queued_per_kind: int = 16_384) -> None:
        self._per_client = queued_per_client
        self._per_kind = queued_per_kind
        self._lanes: dict[str, Lane] = {}
        self._waiting: set[str] = set()

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits for its turn."""
        return bool(self._waiting)

    @property
    def queued(self) -> int:
        """How many tasks wait for their turn."""
        return sum(self._lanes[kind].queued for kind in self._waiting)

    @property
    def in_flight(self) -> int:
        """How many tasks are with the backend."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def lane(self, kind: str) -> Lane:
        """The lane of a kind."""
        if kind not in self._lanes:
            self._lanes[kind] = Lane()
        return self._lanes[kind]

    def offer(self, ticket: Ticket, now_s: float) -> None:
        """Queue a task. Raises Refused at a bound, or if it can't be made by its deadline."""
        lane = self._lanes.get(ticket.kind) or self.lane(ticket.kind)
        turns = lane.turns[ticket.priority]
        if turns.waiting(ticket.client) >= self._per_client:
            raise Refused(
                f"{self._per_client} requests of yours wait for {ticket.kind!r} already",
                self._per_client / (lane.rate_per_s or self._per_client),
                is_own=True,
            )
        if lane.queued >= self._per_kind:
            raise Refused(
                f"{self._per_kind} requests wait for {ticket.kind!r} already",
                self._per_kind / (lane.rate_per_s or self._per_kind),
            )
        wait_s = lane.wait_s(ticket)
        left_s = ticket.due_s - now_s
        if wait_s is not None and wait_s > left_s:
            raise Refused(
                f"{ticket.kind!r} answers {lane.rate_per_s:.3g} requests a second now, so this one "
                f"would take {wait_s:.3g} s, and its timeout is {left_s:.3g} s",
                wait_s - left_s,
            )
        turns.append(ticket)
        self._waiting.add(ticket.kind)

    def take(self, now_s: float) -> tuple[list[Ticket], list[Ticket]]:
        """The tasks to send now, and those whose deadline has passed in the queue."""
        sent: list[Ticket] = []
        late: list[Ticket] = []
        for kind in tuple(self._waiting):
            lane = self._lanes[kind]
            room = lane.window - lane.in_flight
            while room > 0 and (found := lane.next_turns()) is not None:
                turns, count = found
                for _ in range(min(room, count)):
                    ticket = turns.popleft()
                    if ticket.due_s <= now_s:
                        ticket.is_over = True
                        late.append(ticket)
                        continue
                    ticket.sent_s = now_s
                    lane.in_flight += 1
                    room -= 1
                    sent.append(ticket)
            lane.measure(now_s)
            if not lane.queued:
                self._waiting.discard(kind)
        return sent, late

    def expire(self, now_s: float) -> list[Ticket]:
        """The waiting tasks whose deadline has passed, which are taken out."""
        late = [
            ticket
            for kind in self._waiting
            for turns in self._lanes[kind].turns
            for ticket in turns
            if ticket.due_s <= now_s
        ]
        for ticket in late:
            self.drop(ticket, now_s)
        return late

    def drop(self, ticket: Ticket, now_s: float) -> None:
        """Forget a task whose client does not wait any more, wherever it is."""
        if ticket.is_over:
            return
        if ticket.sent_s is not None:
            self._leave(ticket)
            return
        ticket.is_over = True
        lane = self._lanes[ticket.kind]
        lane.turns[ticket.priority].remove(ticket)
        lane.measure(now_s)
        if not lane.queued:
            self._waiting.discard(ticket.kind)

    def settle(self, ticket: Ticket) -> None:
        """A task in flight has ended: there is room for another. Does nothing if it is over."""
        if not ticket.is_over:
            self._lanes[ticket.kind].done_since += 1
            self._leave(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """A task in flight was lost and can be sent again: it waits once more."""
        if not ticket.is_over:
            lane = self._lanes[ticket.kind]
            lane.in_flight -= 1
            lane.turns[ticket.priority].append(ticket)
            ticket.sent_s = None
            self._waiting.add(ticket.kind)

    def _leave(self, ticket: Ticket) -> None:
        ticket.is_over = True
        self._lanes[ticket.kind].in_flight -= 1
