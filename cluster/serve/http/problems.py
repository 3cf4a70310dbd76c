"""A request that can't be answered as asked, as an exception that any handler may raise."""

from __future__ import annotations

import math
from http import HTTPStatus


class Problem(Exception):
    """An HTTP error: its status, and in words what was wrong, where, and what to do.

    ``retry_after_s`` tells the client when to try again. ``code`` is a word for programs, and
    ``param`` the field at fault, where a protocol has room for them. ``closes`` ends the
    connection after the answer, for requests whose body is not read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after_s: float | None = None,
        code: str | None = None,
        param: str | None = None,
        closes: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = HTTPStatus(status)
        self.message = message
        self.retry_after_s = retry_after_s
        self.code = code
        self.param = param
        self.closes = closes
        self.extra_headers = headers

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the answer carries besides its type and length."""
        found = dict(self.extra_headers)
        if self.retry_after_s is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.closes:
            found["connection"] = "close"
        return found
