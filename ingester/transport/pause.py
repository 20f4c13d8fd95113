"""The pause after credentials have expired: no request goes out, their source is asked again.

Keys of the environment cannot change, but a file, a login or a helper's keys can, mostly within
seconds: so everybody waits for ``patience_s``, in which the source is asked every 5 s. Then the
run ends, with every file pending, rather than hide for hours that somebody has to log in.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from ingester.auth.refreshing import NoCredentials, Refreshing
from ingester.control import StopControl
from ingester.logs import INFO, WARNING, log

ASK_EVERY_S = 5.0

V = TypeVar("V")


class Pause(Generic[V]):
    """One for all requests of a run."""

    def __init__(self, source: Refreshing[V], patience_s: float, stop: StopControl) -> None:
        self._source = source
        self._patience_s = patience_s
        self._ask_every_s = min(ASK_EVERY_S, patience_s / 4)
        self._stop = stop
        self._expired: V | None = None
        self._ends = 0.0  # monotonic

    async def over(self) -> None:
        """Wait until there is no pause, or the run is to end. Raises NoCredentials."""
        if self._expired is not None:
            await self.until_renewed(self._expired)

    async def until_renewed(self, expired: V) -> bool:
        """Wait for something else than what has expired. False: the run is to end first.

        Raises:
            NoCredentials: nothing else came in time.
        """
        if self._expired is None:
            self._expired, self._ends = expired, time.monotonic() + self._patience_s
            log(WARNING, "pause", reason="credentials_expired", at_most_s=self._patience_s)
        while not self._stop.requested:
            left_s = self._ends - time.monotonic()
            if left_s <= 0:
                raise self.gone(f"and nothing newer came in {self._patience_s:g} s")
            other = await self._source.refresh_now(expired, left_s, interval_s=self._ask_every_s)
            if other is not None:
                if self._expired is expired:
                    self._expired = None
                    log(INFO, "pause_over")
                return True
            await self._stop.sleep(min(self._ask_every_s, left_s))
        return False

    def gone(self, what_then: str = "") -> NoCredentials:
        """The error that names what has expired."""
        return NoCredentials(
            " ".join(filter(None, (f"{self._source.origin} has expired", what_then))),
            "renew it where it comes from; the same command goes on",
        )
