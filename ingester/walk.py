"""The first stage: lists directories as it goes and hands over what needs work.

Takes sources; gives lists of FileRef. What needs no work is stamped and never opened (``walker``,
``listing``). Bounds: one chunk, and the channel. Ends when all sources are listed. A directory that
cannot be listed, or does not answer, is counted and named, a file that cannot be asked for its size
is an outcome; a root that vanished or cannot be listed is paused.

Each of a few lanes walks some of the roots, one after the other, into a channel of its own: a root
that hangs holds neither the walk of the others nor their way to the readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from ingester.catalog import Catalog, UnreadableDirectory, WalkChunk, WalkOptions
from ingester.channel import Sink
from ingester.errors import SourceError
from ingester.items import FileRef, Root
from ingester.ledger import Ledger
from ingester.readers import Readers
from ingester.threads import ReadTimeoutError
from ingester.walker import Walker

LIST_FILES = 64
"""Files handed over at once: a hand-over an item costs 20 times one a list (measurements)."""
LIST_BYTES = 8 << 20
"""No list larger than this, so that one reader thread is not busy for long."""


def lists_of(files: Sequence[FileRef]) -> Iterator[list[FileRef]]:
    """``files`` in lists of at most LIST_FILES and, but for one larger file, LIST_BYTES."""
    current: list[FileRef] = []
    size = 0
    for file in files:
        if current and (len(current) == LIST_FILES or size + file.size > LIST_BYTES):
            yield current
            current, size = [], 0
        current.append(file)
        size += file.size
    if current:
        yield current


class WalkReport(Protocol):
    """Who wants to know how the walk goes."""

    def unreadable_directories(self, found: Collection[UnreadableDirectory]) -> None:
        """Directories that could not be listed."""
        ...

    def discovered_all(self) -> None:
        """The walk has ended: how many files there are is known now."""
        ...


class Walk:
    """The stage; of ``lane`` there run ``lanes``, each with a channel of files of its own."""

    def __init__(
        self,
        options: WalkOptions,
        catalog: Catalog,
        readers: Readers,
        ledger: Ledger,
        report: WalkReport,
        lanes: int,
    ) -> None:
        self._options = options
        self._catalog = catalog
        self._readers = readers
        self._ledger = ledger
        self._report = report
        self._lanes = lanes

    async def lane(self, roots: Sequence[Root], out: Sink[list[FileRef]]) -> None:
        """Walk these roots and hand over what is found, as fast as there is room."""
        try:
            for root in roots:
                await self._walk(root, out)
            self._lanes -= 1
            if self._lanes == 0:
                self._report.discovered_all()
        finally:
            out.close()

    async def _walk(self, root: Root, out: Sink[list[FileRef]]) -> None:
        walker = Walker(root, self._options, self._catalog)
        readers = self._readers.of(root)
        loop = asyncio.get_running_loop()
        try:
            while readers.cause is None:
                await self._ledger.wait_for_room()
                try:
                    chunk = await loop.run_in_executor(readers.walker, walker.step)
                except ReadTimeoutError:
                    walker, chunk = walker.past_the_stuck()
                if chunk is None:
                    return
                await self._hand_over(chunk, out)
        except SourceError as cause:
            readers.pause(cause)
        finally:
            readers.walker.submit(walker.close)  # there: a step may be under way
        self._report.unreadable_directories(
            [UnreadableDirectory(root.path, "its source is paused")]
        )

    async def _hand_over(self, chunk: WalkChunk, out: Sink[list[FileRef]]) -> None:
        if chunk.unreadable:
            self._report.unreadable_directories(chunk.unreadable)
        self._ledger.skipped(chunk.skipped)
        self._ledger.listed(chunk.forgotten)
        self._ledger.seen(chunk.seen)
        new = set(self._ledger.met([result.file for result in chunk.decided]))
        self._ledger.decide([result for result in chunk.decided if result.file in new])
        for listed in lists_of(chunk.files):
            if files := self._ledger.met(listed):
                await out.put(files, weight=len(files))
        self._ledger.listed(chunk.listings)
