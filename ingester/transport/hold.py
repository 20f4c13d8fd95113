"""What one worker learns from a 429 or 503 holds for all: nobody sends before the server wants."""

from __future__ import annotations

import time

from ingester.control import StopControl
from ingester.logs import INFO, log
from ingester.transport.retry import LONGEST_WAIT_S

LONGEST_HOLD_S = LONGEST_WAIT_S


class Hold:
    """A moment before which no request may start. Times are monotonic seconds."""

    def __init__(self, stop: StopControl) -> None:
        self._stop = stop
        self._until = 0.0

    def extend(self, seconds: float) -> None:
        """Nobody sends for the next ``seconds``."""
        log(INFO, "hold", seconds=round(seconds, 3))
        self._until = max(self._until, time.monotonic() + min(seconds, LONGEST_HOLD_S))

    async def wait(self) -> None:
        """Return when a request may start, or the run is to end."""
        while (left := self._until - time.monotonic()) > 0 and not self._stop.requested:
            await self._stop.sleep(left)
