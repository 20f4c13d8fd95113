"""Every file met and not yet decided, and the one door to the journal.

Whatever happens to a run, what is left here is what it met and did not finish: the pending files.
So no stage has to hand its contents over when it is cancelled. Bounded by the channels and by the
cap on open instances. Event loop only; nothing here waits but ``wait_for_room``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ingester.items import FileRef, Instance, Listing, Result, Skipped


class Record(Protocol):
    """The journal, as those who decide see it."""

    def record_all(self, results: Sequence[Result]) -> None:
        """Hand over to the writer thread, without waiting."""
        ...

    def seen(self, files: Sequence[FileRef]) -> None:
        """Stamp unchanged files with this run."""
        ...

    def skipped(self, directories: Sequence[Skipped]) -> None:
        """Stamp directories with this run, and with them all their files."""
        ...

    def listed(self, listings: Sequence[Listing]) -> None:
        """Keep how directories were listed, for the run that resumes this one."""
        ...

    def announce(self, instances: Sequence[Instance]) -> int:
        """These are about to be sent together; a ticket."""
        ...

    async def wait_announced(self, ticket: int) -> None:
        """Return when that announcement is on the disk."""
        ...

    async def wait_for_room(self) -> None:
        """Return when few enough rows are not yet committed."""
        ...


class Ledger:
    """Counts files in, and each out once."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._undecided: dict[int, FileRef] = {}
        self._listeners: list[Callable[[Sequence[Result]], None]] = []
        self.files_met = 0
        self.bytes_met = 0
        self.directories_skipped = 0
        self._room_wait_s = 0.0
        self._waiting = 0
        self._waiting_since = 0.0

    def listen(self, listener: Callable[[Sequence[Result]], None]) -> None:
        """Tell ``listener`` of every decision in the tick in which it is made."""
        self._listeners.append(listener)

    def met(self, files: Iterable[FileRef]) -> list[FileRef]:
        """The walk hands these over; returns those that are not on their way already.

        A directory that changes, or is far away, may list a name twice.
        """
        new = []
        for file in files:
            if file.file_id not in self._undecided:
                self._undecided[file.file_id] = file
                self.files_met += 1
                self.bytes_met += file.size
                new.append(file)
        return new

    def seen(self, files: Sequence[FileRef]) -> None:
        """The walk found these unchanged and settled."""
        if files:
            self.files_met += len(files)
            self.bytes_met += sum(file.size for file in files)
            self._record.seen(files)

    def skipped(self, directories: Sequence[Skipped]) -> None:
        """The walk found these as an earlier run left them, with nothing to do in them."""
        if directories:
            self.directories_skipped += len(directories)
            self.files_met += sum(each.files for each in directories)
            self.bytes_met += sum(each.size for each in directories)
            self._record.skipped(directories)

    def listed(self, listings: Sequence[Listing]) -> None:
        """The walk has met all files of these, or begins to."""
        if listings:
            self._record.listed(listings)

    def announce(self, instances: Sequence[Instance]) -> int:
        """These are about to be sent together. Returns a ticket for ``wait_announced``."""
        return self._record.announce(instances)

    async def wait_announced(self, ticket: int) -> None:
        """Return when a crash would not forget them. Raises JournalError."""
        await self._record.wait_announced(ticket)

    def decide(self, results: Sequence[Result]) -> None:
        """These files have ended. Raises KeyError for a file that already had: that is a bug."""
        if not results:
            return
        for result in results:
            del self._undecided[result.file.file_id]
        self._record.record_all(results)
        for listener in self._listeners:
            listener(results)

    def awaits(self, file_id: int) -> bool:
        """Whether this file was met in this run, and has not ended yet."""
        return file_id in self._undecided

    async def wait_for_room(self) -> None:
        """Return when the journal keeps up. Raises JournalError when it cannot be written."""
        if self._waiting == 0:
            self._waiting_since = time.monotonic()
        self._waiting += 1
        try:
            await self._record.wait_for_room()
        finally:
            if self._waiting == 1:
                self._room_wait_s = self.room_wait_s
            self._waiting -= 1

    @property
    def room_wait_s(self) -> float:
        """Seconds during which anybody waited for the journal, a wait that goes on included."""
        waiting_s = time.monotonic() - self._waiting_since if self._waiting else 0.0
        return self._room_wait_s + waiting_s

    @property
    def undecided(self) -> Sequence[FileRef]:
        """What was met and has not ended yet."""
        return list(self._undecided.values())

    def __len__(self) -> int:
        return len(self._undecided)
