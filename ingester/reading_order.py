"""In which order the lists of a root were taken to be read, and up to which all have been read.

Readers overtake each other by whole lists. A study that comes as one piece is through when all
lists up to the one after its last are: no sooner, however much has come since.
"""

from __future__ import annotations


class ReadingOrder:
    """Of one root. Lists are numbered from 1, as the walk met them."""

    def __init__(self) -> None:
        self._taken = 0
        self._in_hand: dict[int, None] = {}  # the oldest first

    def take(self) -> int:
        """A reader takes the next list: its number."""
        self._taken += 1
        self._in_hand[self._taken] = None
        return self._taken

    def read_up_to(self, handed_over: int | None) -> int:
        """All lists up to this one are read, if ``handed_over`` is by what is handed over now."""
        oldest = next((one for one in self._in_hand if one != handed_over), self._taken + 1)
        return oldest - 1

    def read(self, number: int) -> None:
        """This list was handed over as a whole, or given up."""
        del self._in_hand[number]
