"""Keeps one wrong setting from costing an archive.

A refusal that names no instance (a 4xx without a manifest, a 2xx that confirms nothing) says as
much about the setting as about the files. So it is acted upon (split, rejected) only when another
request succeeded since the refused one was sent. Until then the batch waits, five of them at most:
with the sixth, refused without one success in between, the setting is to blame and the run stops.
Before the first instance is stored by this journal, everything waits for that first success.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAITING = 5


class Trial(Generic[T]):
    """Counts successes and keeps the batches that wait for one. ``proven``: one was ever stored."""

    def __init__(self, *, proven: bool) -> None:
        self.proven = proven
        self.successes = 0
        self._waiting: list[T] = []
        self._batches: set[Hashable] = set()
        self._input_ended = False

    def may_act(self, successes_when_sent: int) -> bool:
        """Whether a refusal of what was sent at that count may be taken at its word."""
        return self.proven and (self._input_ended or self.successes > successes_when_sent)

    def wait(self, refused: T, batch: Hashable) -> bool:
        """Keep what was refused, of this batch. False when too many unrelated batches wait."""
        self._waiting.append(refused)
        self._batches.add(batch)
        return len(self._batches) <= MAX_WAITING

    def succeeded(self) -> list[T]:
        """A request stored something: returns the batches that waited for it."""
        self.successes += 1
        self.proven = True
        return self._release()

    def end_of_input(self) -> list[T]:
        """Nothing else is coming that could succeed: returns what waits, if it may be acted on."""
        self._input_ended = True
        return self._release() if self.proven else []

    def _release(self) -> list[T]:
        waited, self._waiting = self._waiting, []
        self._batches.clear()
        return waited

    def __len__(self) -> int:
        return len(self._waiting)
