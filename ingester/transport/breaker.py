"""When to try again a server that takes nothing: seldom, and for as long as one is willing to wait.

Open while the server is away: nothing is sent but one probe at a time. The wait between probes is
an eighth of the time the server has been away so far, from one second to five minutes, so an outage
of 20 minutes costs at most two and a half more. Pure: the caller gives the time, in monotonic
seconds.
"""

from __future__ import annotations

SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
SHARE_OF_OUTAGE = 1 / 8


class Breaker:
    """Closed at first."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next_probe = 0.0

    @property
    def open(self) -> bool:
        """Whether the server is away."""
        return self._since is not None

    def away_s(self, now: float) -> float:
        """Seconds since it took nothing any more."""
        return 0.0 if self._since is None else now - self._since

    def probe_in_s(self, now: float) -> float:
        """Seconds until the next probe may start."""
        return max(0.0, self._next_probe - now)

    def trip(self, now: float) -> None:
        """The server takes nothing; it is away from now on."""
        if self._since is None:
            self._since = now
            self._next_probe = now + SHORTEST_WAIT_S

    def failed(
        self, now: float, least_wait_s: float = 0.0, most_wait_s: float = float("inf")
    ) -> None:
        """A probe was not taken; ``least_wait_s`` is what the server asked for.

        ``most_wait_s``: there is no time for more.
        """
        share_s = self.away_s(now) * SHARE_OF_OUTAGE
        wait_s = min(max(share_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
        self._next_probe = now + min(max(wait_s, least_wait_s), most_wait_s)

    def close(self) -> None:
        """The server took something, or refused it for what it is."""
        self._since = None
