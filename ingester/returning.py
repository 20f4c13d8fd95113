"""Whether what seemed to be through comes back: what guesses about the order of a root are worth.

Studies that come one after the other are through when the next ones have come, and the rest of one
can be sent. Where studies lie spread over directories they come back in the next of them, and each
guess has cost a request of a few files. So every study of which a batch was sent early is kept for
a while: when some of them have come back, the guessing pauses, each time for twice as long.
"""

from __future__ import annotations

from collections import OrderedDict

MAY_COME_BACK = 8
"""Beside one in so many."""
KEPT = 16_384
"""Studies, with 200 bytes each: spread further, no batch would have grown while it was open."""
PAUSE = 100_000
"""Instances, before the root is tried again. A trial costs as many small requests as there are
studies between a study's files."""


class Returning:
    """Of one root. ``now`` are the instances of it that have come so far."""

    def __init__(self) -> None:
        self._sent_early: OrderedDict[str, None] = OrderedDict()
        self._guesses = 0
        self._came_back = 0
        self._pause = PAUSE
        self._paused_until = 0

    def may_guess(self, now: int) -> bool:
        """Whether a study that seems to be through may be taken for it."""
        return now >= self._paused_until

    def sent_early(self, study: str) -> None:
        """It was taken for through."""
        self._guesses += 1
        self._sent_early[study] = None
        if len(self._sent_early) > KEPT:
            self._sent_early.popitem(last=False)

    def opened(self, study: str, now: int) -> None:
        """A batch begins with an instance of this study."""
        if study not in self._sent_early:
            return
        del self._sent_early[study]
        self._came_back += 1
        if self._came_back > MAY_COME_BACK + self._guesses // MAY_COME_BACK:
            self._paused_until = now + self._pause
            self._pause *= 2
            self._guesses = self._came_back = 0
            self._sent_early.clear()
