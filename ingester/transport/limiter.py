"""How many requests may be under way: doubled until the server shows strain, then by feel.

Slow start adds one for each good answer (which doubles the limit in the time of an answer) until
the first sign of strain; from then on a whole limit of good answers adds one, and strain takes
0.7 of it, once a second at most. Only a limit that is used grows. Pure: the caller gives the time,
in monotonic seconds.
"""

from __future__ import annotations

START = 4
DECREASE = 0.7
DECREASE_INTERVAL_S = 1.0


class Limiter:
    """``limit`` is between 1 and ``maximum``."""

    def __init__(self, maximum: int) -> None:
        self._maximum = float(maximum)
        self._limit = min(float(START), self._maximum)
        self._slow_start = True
        self._decreased_at = float("-inf")

    @property
    def limit(self) -> int:
        """Requests that may be under way."""
        return int(self._limit)

    def good(self, in_flight: int) -> None:
        """An answer came while so many requests were under way, this one included."""
        if in_flight >= self.limit:
            step = 1.0 if self._slow_start else 1.0 / self._limit
            self._limit = min(self._maximum, self._limit + step)

    def strained(self, now: float, started_at: float) -> None:
        """The server refused for its load, or was lost, in a request that had started then."""
        self._slow_start = False
        if now - self._decreased_at >= DECREASE_INTERVAL_S and started_at > self._decreased_at:
            self._decreased_at = now
            self._limit = max(1.0, self._limit * DECREASE)

    def restart(self) -> None:
        """The server is back after it was away: begin as with a new one."""
        self._limit = min(float(START), self._maximum)
        self._slow_start = True
