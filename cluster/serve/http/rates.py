"""How often a client may ask: a token bucket for each.

A bucket holds ``burst`` requests and fills at ``rate_per_s``; an empty one tells how long to wait
(https://en.wikipedia.org/wiki/Token_bucket).
"""

from __future__ import annotations

from collections import OrderedDict

CLIENTS_MAX = 8_192


class Buckets:
    """The buckets of all clients, the longest unused forgotten first; a rate of 0 sets no bound."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self.rate_per_s = rate_per_s
        self.burst = max(1, burst or round(rate_per_s))
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now_s: float) -> float:
        """0.0 if a request may go on; otherwise the seconds until the next one may."""
        if self.rate_per_s <= 0:
            return 0.0
        left, since_s = self._left.get(client, (float(self.burst), now_s))
        left = min(self.burst, left + (now_s - since_s) * self.rate_per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self.rate_per_s
        self._left[client] = (left - 1 if not wait_s else left, now_s)
        self._left.move_to_end(client)
        if len(self._left) > CLIENTS_MAX:
            self._left.popitem(last=False)
        return wait_s
