"""Up to which all lists of a root have come, whatever the order they come in.

Readers overtake each other by whole lists. A study that comes as one piece is through when all
lists up to the one after its last have come, however much of others came before.
"""

from __future__ import annotations

FURTHEST = 32
"""Lists by which one may be overtaken and is waited for: twice the readers of a network mount. With
a file that hangs nothing of its root would be through until it is given up."""


class ReadingOrder:
    """Of one root. Lists are numbered from 1 as readers take them."""

    def __init__(self) -> None:
        self.read_up_to = 0
        self._beyond: set[int] = set()  # at most FURTHEST

    def came(self, number: int) -> None:
        """This list has come as a whole."""
        self._beyond.add(number)
        self.read_up_to = max(self.read_up_to, number - FURTHEST)
        while self.read_up_to + 1 in self._beyond:
            self.read_up_to += 1
        self._beyond = {one for one in self._beyond if one > self.read_up_to}
