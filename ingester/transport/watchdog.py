"""Ends a request that makes no progress: no byte of the body leaves, or no answer comes.

There is no total timeout, a gigabyte may take hours. aiohttp's own ``sock_read`` does not fire
while a body stalls, so the bytes that left for the kernel are looked at. Waiting for a name server
or a connection counts as no progress; waiting for our own disk does not.

aiohttp closes a connection on which an answer goes on with what is no HTTP (a chunk without its
length), but does not tell who reads that answer: that is looked for, too.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from aiohttp import ClientResponse, UploadTracker

from ingester.transport.payload import BodyPayload


class Watchdog:
    """Expires ``deadline`` when a limit is passed; ``expired`` then says which."""

    def __init__(
        self,
        deadline: asyncio.Timeout,
        tracker: UploadTracker,
        payload: BodyPayload | None,
        *,
        stall_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        self.expired: Literal["stalled", "answer_timeout", "broken_off"] | None = None
        self.answer: ClientResponse | None = None  # that is being read
        self._deadline = deadline
        self._tracker = tracker
        self._payload = payload
        self._stall_timeout_s = stall_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._loop = asyncio.get_running_loop()
        self._progress = 0
        self._since = self._loop.time()
        self._interval_s = min(stall_timeout_s, answer_timeout_s, 20.0) / 4
        self._timer = self._loop.call_later(self._interval_s, self._look)

    def stop(self) -> None:
        """The request has ended."""
        self._timer.cancel()

    def answer_progress(self) -> None:
        """A piece of the answer came."""
        self._since = self._loop.time()

    def _look(self) -> None:
        now = self._loop.time()
        if self.answer is not None and _is_broken_off(self.answer):
            self.expired = "broken_off"
            self._deadline.reschedule(now)
            return
        progress = self._tracker.bytes_written
        payload = self._payload
        if progress != self._progress or (payload is not None and payload.reading):
            self._progress, self._since = progress, now
        complete = payload is None or payload.complete
        limit_s = self._answer_timeout_s if complete else self._stall_timeout_s
        if now - self._since >= limit_s:
            self.expired = "answer_timeout" if complete else "stalled"
            self._deadline.reschedule(now)
            return
        self._timer = self._loop.call_later(self._interval_s, self._look)


def _is_broken_off(answer: ClientResponse) -> bool:
    """Whether its end has not come, and cannot come any more."""
    connection = answer.connection  # None once all has come
    return connection is not None and connection.closed and not answer.content.is_eof()
