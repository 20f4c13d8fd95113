"""Whether what seemed to be through comes back: what guesses about the order of a root are worth.

Studies that come one after the other are through when the next ones have come, and the rest of one
can be sent. Where studies lie spread over directories they come back in the next of them, and each
guess has cost a request of a few files. So who guesses is told when a study came back: after some
of them the guessing pauses, twice as long each time; and as at first when it was right for as long.
"""

from __future__ import annotations

MAY_COME_BACK = 8
"""Beside ``ONE_IN``."""
ONE_IN = 8
"""At most a seventh more requests than studies. Where these come in one piece at most one in thirty
came back (``ct``), in a part that is spread nearly all."""
REMEMBERED = 1024
"""Guesses, before each counts half: what a root is like may change with its directories."""
PAUSE = 100_000
"""Instances, before the root is tried again. A trial costs as many small requests as there are
studies between a study's files, and a seventh."""


class Returning:
    """Of one root. ``now`` are the instances of it that have come so far."""

    def __init__(self) -> None:
        self._guesses = 0
        self._came_back = 0
        self._pause = PAUSE
        self._paused_until = 0

    def may_guess(self, now: int) -> bool:
        """Whether a study that seems to be through may be taken for it."""
        return now >= self._paused_until

    def guessed(self) -> None:
        """A study was taken for through."""
        self._guesses += 1
        if self._guesses == REMEMBERED:
            self._guesses //= 2
            self._came_back //= 2

    def came_back(self, now: int) -> None:
        """One of these was not."""
        if not self.may_guess(now):
            return
        self._came_back += 1
        if self._came_back > MAY_COME_BACK + self._guesses // ONE_IN:
            if now - self._paused_until >= self._pause:
                self._pause = PAUSE
            self._paused_until = now + self._pause
            self._pause *= 2
            self._guesses = self._came_back = 0
