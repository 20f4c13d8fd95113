"""The door all requests go through: how many at a time, how fast, and none while the server rests.

Takes turns, first come first served; gives each a ``Turn`` when it may send. What one worker learns
from an answer holds for all: a Retry-After keeps everybody, a refusal for load slows everybody
down, and while the server is away one probe at a time goes out. Event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from ingester.control import StopControl
from ingester.logs import INFO, WARNING, log
from ingester.transport.breaker import Breaker
from ingester.transport.limiter import Limiter
from ingester.transport.pace import Pace
from ingester.transport.retry import LONGEST_WAIT_S

End = Literal["good", "throttled", "lost", "other"]
"""How a request ended: taken; refused for its rate; no answer or a 5xx; anything else."""


class Turn(NamedTuple):
    """Leave to send one request now. ``probe``: the server is away, nobody else sends."""

    started_at: float
    probe: bool


class Admission:
    """``max_concurrency`` is the most that the limit may grow to."""

    def __init__(
        self,
        max_concurrency: int,
        stop: StopControl,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breaker = Breaker()
        self.in_flight = 0
        self._stop = stop
        self._clock = clock
        self._limiter = Limiter(max_concurrency)
        self._pace = Pace(clock())
        self._held_until = 0.0
        self._waiting: deque[asyncio.Future[Turn | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        stop.when_requested(self._let_go)

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return 1 if self.breaker.open else self._limiter.limit

    @property
    def is_shut(self) -> bool:
        """Whether nobody is let in now: the server is away, or asked everybody to wait."""
        return self.breaker.open or self._held_until > self._clock()

    @property
    def away_s(self) -> float:
        """Seconds since the server took nothing any more; 0 while it takes something."""
        return self.breaker.away_s(self._clock())

    def hold(self, seconds: float) -> None:
        """Nobody sends for the next ``seconds``."""
        if seconds <= 0:
            return
        log(INFO, "hold", seconds=round(seconds, 3))
        self._held_until = max(self._held_until, self._clock() + min(seconds, LONGEST_WAIT_S))

    async def enter(self) -> Turn | None:
        """Wait for a turn; None when the run is to end. Whoever has a turn calls ``leave``."""
        if self._stop.requested:
            return None
        turn: asyncio.Future[Turn | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is not None:
                self._gone()  # it had its turn and cannot take it
            raise

    def leave(self, turn: Turn, end: End, hold_s: float = 0.0) -> None:
        """The request has ended. ``hold_s``: what a server under load asks everybody to wait."""
        now = self._clock()
        if end == "good":
            self._limiter.good(self.in_flight)
            self._pace.took(turn.started_at)
        elif end == "throttled":
            self._limiter.strained(now, turn.started_at)
            self._pace.complained(now, turn.started_at, hold_s)
        elif end == "lost":
            self._limiter.strained(now, turn.started_at)
        self.hold(hold_s)
        self._gone()

    def is_away(self, reason: str) -> None:
        """The server takes nothing, and why one thinks so: from now on one probe at a time."""
        if not self.breaker.open:
            log(WARNING, "outage", reason=reason, limit=self._limiter.limit)
        self.breaker.trip(self._clock())

    def probe_failed(self, least_wait_s: float, most_wait_s: float) -> None:
        """It still takes nothing. The next probe is between so many seconds from now."""
        self.breaker.failed(self._clock(), least_wait_s, most_wait_s)

    def is_back(self) -> None:
        """The server answers again."""
        if self.breaker.open:
            log(WARNING, "outage_over", away_s=round(self.away_s, 3))
            self.breaker.close()
            self._limiter.restart()
            self._pace.forget(self._clock())
            self._admit()

    def _gone(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        """Give turns to those who wait, as far as one may send now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self.in_flight < self.limit:
            now = self._clock()
            delay_s = max(self._pace.delay_s(now), self._held_until - now)
            if self.breaker.open:
                delay_s = max(delay_s, self.breaker.probe_in_s(now))
            if delay_s > 0:
                self._timer = asyncio.get_running_loop().call_later(delay_s, self._admit)
                return
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                self._pace.started(now)
                turn.set_result(Turn(now, self.breaker.open))

    def _let_go(self) -> None:
        """The run is to end: nobody waits any longer."""
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
