"""The second stage: the readers of all sources, and what they hand on.

Takes lists of FileRef; gives Scanned, everything else is decided here. A hundred bugs of this
program stop the run, one is a file's outcome. A file that does not answer is given up: it ends, and
what follows it in its list goes to another thread. The files of a paused root end as pending. Ends
when the walk has ended and all lists are scanned.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from ingester.channel import Channel, Sink
from ingester.dicomweb.outcome import IN_THE_STORE, Outcome
from ingester.errors import FatalError
from ingester.items import FileRef, Instance, Result, Scanned, pending
from ingester.ledger import Ledger
from ingester.readers import SOURCE_PAUSED, Readers, SourcePausedError, failure_of
from ingester.scan import Found, Scanner, ScanOptions
from ingester.threads import ReadTimeoutError

MAX_INTERNAL_ERRORS = 100
READ_FILES = 1024
"""Of all workers, in short lists that are read as one. Each list changes threads six times; with 64
files in each ``small`` takes 12 % longer (benchmarks). Sixteen readers of a network join nothing:
there a file takes longer than all of these."""
READ_SHARE = 3
"""These files fill at most a third of the memory: more could not be cached."""


class ScanStage:
    """The readers of all sources: ``workers`` of ``worker`` run, some for each channel of files."""

    def __init__(
        self,
        scanner: Scanner,
        readers: Readers,
        ledger: Ledger,
        out: Sink[Scanned],
        options: ScanOptions,
        lanes: Sequence[Channel[list[FileRef]]],
    ) -> None:
        """``lanes``: of each worker the channel that it takes from."""
        self._joined_files = READ_FILES // len(lanes)
        self._joined_bytes = scanner.memory_bytes // READ_SHARE // len(lanes)
        self._workers = Counter(lanes)
        self._lists = Counter[int]()  # taken, by root
        self._scanner = scanner
        self._readers = readers
        self._ledger = ledger
        self._out = out
        self._options = options
        self._internal_errors = 0
        self._resends = 0

    async def worker(self, lists: Channel[list[FileRef]]) -> None:
        """Scan lists until there are no more. Raises FatalError as the options say."""
        try:
            async for files in lists:
                await self._read(self._with_those_that_wait(files, lists))
        finally:
            self._workers[lists] -= 1
            if not self._workers.total():
                self._out.close()

    def _with_those_that_wait(
        self, files: list[FileRef], lists: Channel[list[FileRef]]
    ) -> list[FileRef]:
        """Short lists of a root in one, where there are enough of them for every worker."""
        root = files[0].directory.root
        together = list(files)
        size = self._scanner.cached_bytes(files)

        def fits(more: list[FileRef]) -> bool:
            return (
                more[0].directory.root.root_id == root.root_id
                and len(together) + len(more) <= self._joined_files
                and size + self._scanner.cached_bytes(more) <= self._joined_bytes
            )

        while len(lists) >= self._workers[lists] and (more := lists.get_now(fits)) is not None:
            together += more
            size += self._scanner.cached_bytes(more)
        return together

    async def _read(self, files: Sequence[FileRef]) -> None:
        """Scan one list, whatever becomes of its files."""
        root_id = files[0].directory.root.root_id
        self._lists[root_id] += 1
        number = self._lists[root_id]
        while files:
            found = await self._scan(files)
            files = files[len(found) :]
            instances = self._decide(found)
            if instances or not files:
                scanned = Scanned(instances, root_id, number, whole=not files)
                await self._out.put(scanned, weight=max(1, len(instances)))

    async def _scan(self, files: Sequence[FileRef]) -> list[Found]:
        """What the first of these are, of one at least."""
        found: list[Found] = []
        readers = self._readers.of(files[0].directory.root)
        loop = asyncio.get_running_loop()
        promise = await self._scanner.promise(files)
        stuck = False
        try:
            await loop.run_in_executor(readers, self._scanner.scan, files, found, promise)
        except ReadTimeoutError as error:
            stuck = True
            unread = files[len(found) : len(found) + 1]
            found += [Result(file, Outcome.UNREADABLE, *failure_of(error)) for file in unread]
        except SourcePausedError:
            found += [pending(file, SOURCE_PAUSED) for file in files[len(found) :]]
        finally:
            promise.end(stuck=stuck)
        return found

    def _decide(self, found: Sequence[Found]) -> list[Instance]:
        """Keep the results; returns what is left."""
        results = [item for item in found if isinstance(item, Result)]
        instances = [item for item in found if isinstance(item, Instance)]
        self._ledger.decide(results)
        self._count(results, instances)
        return instances

    def _count(self, results: Sequence[Result], instances: Sequence[Instance]) -> None:
        self._internal_errors += sum(r.reason_code == "internal_error" for r in results)
        if self._internal_errors >= MAX_INTERNAL_ERRORS:
            raise FatalError(
                f"{MAX_INTERNAL_ERRORS} files met a bug of this program",
                "please report it; the files are recorded as invalid: internal_error",
            )
        known = [each.file.previous for each in instances if each.file.previous is not None]
        self._resends += sum(each.settled and each.outcome in IN_THE_STORE for each in known)
        if self._resends > self._options.max_resends:
            raise FatalError(
                f"{self._resends} files that are stored have changed since",
                "if that is meant, raise --max-resend",
            )
