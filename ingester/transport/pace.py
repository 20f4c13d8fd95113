"""How many requests a second a server takes, learned from its refusals (429, 503).

Without a complaint there is no pace. After one, requests start no faster than the server took them
since the complaint before, less a little; the pace then grows, slowly at first, so that a limit
that was lifted is found within minutes. What a hold kept back may be made up for afterwards, as a
server with a token bucket has saved it too. Pure: the caller gives the time, in monotonic seconds.

Why not only AIMD on concurrency: with a store that allows 20 requests/s it wasted 96 % of what it
sent, and 14 % with a hold for all (``shared`` measurements; ``tests/unit/transport/test_pace.py``
has the simulation that these constants come from).
"""

from __future__ import annotations

from math import log

SHARE = 0.98
"""Of what was measured: the measurement includes what the server had saved up."""
SHORTEST_CYCLE_S = 1.0
"""A burst says nothing of a rate; most limits are kept by the second."""
LEAST_GUESS = 10.0
"""Requests a second, at the first complaint: a limit below shows at once, one above takes long."""
LEAST_PACE = 0.2
"""Requests a second. Below it the holds and the pauses of an outage do the work."""
SMOOTHING_S = 0.25
"""So much of the pace may be caught up when the loop was late."""
CATCH_UP_S = 1.0
"""So much at most after a hold: the smallest bucket that is usual."""
GROWTH = 0.001
"""A second, at first; it doubles every DOUBLING_S."""
GROWTH_OF_A_GUESS = 0.02
"""The same, as long as no second measurement was CLOSE to the first."""
CLOSE = 0.8
DOUBLING_S = 30.0
ENOUGH = 1 - 1e-6
"""Of a token: what rounding leaves out is not worth a wait."""
GONE_AFTER_S = 600.0
"""The pace has grown a thousandfold by then."""


class Pace:
    """Counts what is taken, measures between complaints, and says when the next may start."""

    def __init__(self, now: float) -> None:
        self._base: float | None = None  # requests a second, at the last complaint
        self._complained_at = now  # or started
        self._taken = 0  # requests that the server took since then
        self._cycle_s = 0.0  # that the base was measured in
        self._is_guess = True
        self._tokens = 1.0
        self._filled_at = now
        self._held_until = now
        self._saved_s = 0.0  # of the pace, that a hold kept back and may be made up for

    def rate(self, now: float) -> float | None:
        """Requests a second; None: as fast as it goes."""
        since_s = now - self._complained_at
        if self._base is None or since_s > GONE_AFTER_S:
            return None
        growth = GROWTH_OF_A_GUESS if self._is_guess else GROWTH
        return self._base * (1 + growth * DOUBLING_S / log(2) * (2 ** (since_s / DOUBLING_S) - 1))

    def delay_s(self, now: float) -> float:
        """Seconds until the next request may start."""
        rate = self.rate(now)
        if rate is None:
            return 0.0
        self._fill(now, rate)
        return 0.0 if self._tokens >= ENOUGH else (1 - self._tokens) / rate

    def started(self, now: float) -> None:
        """A request goes out."""
        rate = self.rate(now)
        if rate is not None:
            self._fill(now, rate)
            self._tokens -= 1
            if now >= self._held_until and self._tokens < 1:
                self._saved_s = 0.0

    def took(self, started_at: float) -> None:
        """The server took a request that had started then."""
        if self._base is None or started_at > self._complained_at:
            self._taken += 1
        else:  # it was under way at the complaint: the measurement was too low by this one
            self._base += SHARE / self._cycle_s

    def complained(self, now: float, started_at: float, hold_s: float) -> None:
        """The server would not take a request that had started then; nobody sends for a while.

        Those that were under way at one complaint and meet the same refusal are part of it.
        """
        self._held_until = max(self._held_until, now + hold_s)
        self._saved_s = max(self._saved_s, min(hold_s, CATCH_UP_S))
        since_s = now - self._complained_at
        if self._base is not None and (
            started_at <= self._complained_at or since_s < SHORTEST_CYCLE_S
        ):
            return
        self._cycle_s = max(since_s, SHORTEST_CYCLE_S)
        measured = self._taken / self._cycle_s
        rate = self.rate(now)
        if rate is not None:
            measured = min(measured, rate) if self._taken else rate / 2
        base = max(SHARE * measured, LEAST_GUESS if rate is None else LEAST_PACE)
        self._is_guess = self._base is None or not CLOSE <= base / self._base <= 1 / CLOSE
        self._base = base
        self._complained_at, self._taken = now, 0
        self._tokens, self._filled_at = 0.0, now

    def forget(self, now: float) -> None:
        """The server is another now, or was away: what it took before says nothing."""
        self._base, self._complained_at, self._taken = None, now, 0

    def _fill(self, now: float, rate: float) -> None:
        most = max(1.0, max(SMOOTHING_S, self._saved_s) * rate)
        self._tokens = min(self._tokens + (now - self._filled_at) * rate, most)
        self._filled_at = now
