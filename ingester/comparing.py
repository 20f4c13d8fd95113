"""Settles instances that meet a decided claim: compared in reader threads, decided on the loop.

A file that is not any more as it was sent is stood for by its copies, as the journal has them.
Each step runs in a thread of the root of the file that it touches; where the other file hangs, it
cannot be read. Gives results to the ledger, and an instance's buffer back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from ingester.compare import (
    CANNOT_BE_READ,
    Sameness,
    There,
    look_here,
    look_there,
    without_the_other,
)
from ingester.dicomweb.outcome import Outcome
from ingester.files import SourceChanged
from ingester.items import Holder, Instance, InstanceKey, Result, ended, pending
from ingester.ledger import Ledger
from ingester.readers import SOURCE_PAUSED, Readers, SourcePausedError, failure_of
from ingester.threads import ReadTimeoutError

COMPARED_AT_ONCE = 64
"""Comparisons handed to the readers together."""

FindCopies = Callable[[InstanceKey, int], Sequence[Holder]]
Found = Sameness | OSError | SourceChanged
"""What a comparison shows, or why it could not be made."""


class Comparer:
    """For the grouping stage."""

    def __init__(
        self,
        readers: Readers,
        ledger: Ledger,
        conflict_words: str,
        lookups: Executor,
        find_copies: FindCopies,
    ) -> None:
        self._readers = readers
        self._ledger = ledger
        self._conflict_words = conflict_words
        self._lookups = lookups
        self._find_copies = find_copies

    async def decide(self, instances: Sequence[Instance], holder: Holder) -> None:
        """Decide what has the UIDs of a decided holder; as many at a time as there are readers."""
        for instance in instances:
            _give_back(instance)
        if not holder.is_there:
            reason = "not sent: another file with its UIDs is in doubt"
            self._ledger.decide(
                [
                    ended(instance, Outcome.FAILED, "other_file_in_doubt", reason)._replace(
                        other_file_id=holder.file_id
                    )
                    for instance in instances
                ]
            )
            return
        for start in range(0, len(instances), COMPARED_AT_ONCE):
            some = instances[start : start + COMPARED_AT_ONCE]
            found = await asyncio.gather(*(self.sameness(each, holder) for each in some))
            self.end(some, holder, found)
            await self._ledger.wait_for_room()

    async def sameness(self, instance: Instance, holder: Holder) -> Found:
        """Compare an instance with the file that holds its claim."""
        run = asyncio.get_running_loop().run_in_executor
        own = self._readers.of(instance.file.directory.root)
        try:
            here = await run(own, look_here, instance, holder)
            if isinstance(here, Sameness):
                return here
            there = await self._look_there(holder, here)
            if there.sameness is not None:
                return there.sameness
            found = await run(own, without_the_other, instance, holder, there)
            if found not in {Sameness.SAME, Sameness.MOVED}:
                found = await self._by_copies(instance, here, found)
        except (OSError, SourceChanged) as error:
            return error
        return found

    async def _by_copies(self, instance: Instance, here: bytes | None, found: Sameness) -> Sameness:
        """What is to be said of an instance that is not ``found`` to be what was sent."""
        run = asyncio.get_running_loop().run_in_executor
        key, file = instance.key, instance.file
        for copy in await run(self._lookups, self._find_copies, key, file.file_id):
            there = await self._look_there(copy, here)
            if there.sameness is Sameness.SAME:
                return Sameness.SAME
        return found

    async def _look_there(self, holder: Holder, here: bytes | None) -> There:
        run = asyncio.get_running_loop().run_in_executor
        try:
            return await run(self._readers.holding(holder.path), look_there, holder, here)
        except ReadTimeoutError:
            return CANNOT_BE_READ

    def end(self, instances: Sequence[Instance], holder: Holder, found: Sequence[Found]) -> None:
        """They end as comparisons showed: together, for the journal counts how often it is told."""
        results = []
        for instance, sameness in zip(instances, found, strict=True):
            _give_back(instance)
            if sameness is Sameness.MOVED and self._ends_by_itself(holder, instance):
                sameness = Sameness.SAME  # noqa: PLW2901 - this run has met them both
            results.append(_compared(instance, holder, sameness, self._conflict_words))
        self._ledger.decide(results)

    def _ends_by_itself(self, holder: Holder, instance: Instance) -> bool:
        """Whether the holder's file was listed before it went: its row is for the end of that."""
        own = holder.file_id == instance.file.file_id
        return not own and self._ledger.awaits(holder.file_id)


def _give_back(instance: Instance) -> None:
    if instance.buffer is not None:
        instance.buffer.give_back()


def _compared(instance: Instance, holder: Holder, found: Found, conflict_words: str) -> Result:
    if isinstance(found, SourcePausedError):
        return pending(instance.file, SOURCE_PAUSED)._replace(header=instance.header)
    if isinstance(found, OSError | SourceChanged):
        return ended(instance, Outcome.UNREADABLE, *failure_of(found))
    if found is Sameness.SAME:
        result = ended(instance, Outcome.DUPLICATE, "same_data_set")
    elif found is Sameness.MOVED:
        result = ended(instance, holder.outcome, "moved")._replace(moved_from=holder.file_id)
    elif found is Sameness.DIFFERENT:
        result = ended(instance, Outcome.CONFLICT, "other_data_set", conflict_words)
    elif found is Sameness.CHANGED:
        reason = "the file that was sent with its UIDs has changed, is gone, or cannot be read"
        result = ended(instance, Outcome.FAILED, "other_file_changed", reason)
    else:
        reason = "the file that was stored is gone, and no digest of it was kept"
        result = ended(instance, Outcome.CONFLICT, "cannot_compare", reason)
    return result._replace(other_file_id=holder.file_id)
