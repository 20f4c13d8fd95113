"""The thread that writes down what is about to be sent, beside the one that writes results.

Takes batches from the loop, without waiting, and says when they are on the disk. Knows which of
them may still be on the wire: the writer asks for that in each commit (``standing``), so that what
a record of the file is worth is decided in the same transaction as what became of its files.
Bounds: those of the stages, for each batch has its worker or a place in the channel before them.
Fails at the first error of the file: it is kept, and raised to everybody who announces or waits.
What was sent before is recorded all the same.

Why it does not let others go first, as the journal's thread does: a batch waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from ingester.errors import JournalError
from ingester.items import Instance, Result
from ingester.journal.announcement_file import AnnouncementFile
from ingester.journal.announcements import encode, encode_numbers
from ingester.journal.opening import write_error
from ingester.journal.waiters import Waiters
from ingester.threads import start


class Standing(NamedTuple):
    """What a commit says of the records."""

    highest: int  # later ones count: the commit does not know what became of them
    synced: int  # up to this one all that count are on the disk
    open: bytes  # MessagePack: the numbers up to ``highest`` that count


class Announcer:
    """Owns the file from construction to ``close``. Raises JournalError.

    ``on_failure`` is called in its thread, once: nothing more can be sent.
    """

    def __init__(
        self,
        path: str,
        session: bytes,
        on_failure: Callable[[JournalError], None] | None = None,
    ) -> None:
        self.session = session
        self._path = path
        self._on_failure = on_failure
        try:
            self._file = AnnouncementFile(path, session)
        except OSError as error:
            raise write_error(path, error) from error
        self._changed = threading.Condition()
        self._waiters = Waiters(self._changed)
        self._inbox: list[tuple[int, int, Sequence[Instance]]] = []
        self._highest = 0
        self._synced = 0
        self._number_of: dict[int, int] = {}  # by file_id
        self._left: dict[int, int] = {}  # files without an end, by number
        self._ended: list[int] = []  # by the transaction that is open
        self._blocks: dict[int, range] = {}
        self._told = True  # whether the last commit said all this
        self._closing = False
        self._failure: JournalError | None = None
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        start(self._thread)

    def announce(self, run_id: int, instances: Sequence[Instance]) -> int:
        """These are about to be sent together; a ticket to wait for. The sequence must not change.

        Raises JournalError.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closing:
                raise JournalError("the journal is closed")
            self._highest = number = self._highest + 1
            self._left[number] = len(instances)
            self._number_of.update((instance.file.file_id, number) for instance in instances)
            self._told = False
            self._inbox.append((number, run_id, instances))
            self._changed.notify_all()
        return number

    async def wait_synced(self, ticket: int) -> None:
        """Return when that announcement is on the disk. Raises JournalError."""
        await self._waiters.wait_for(lambda: self._is_synced(ticket))

    def _is_synced(self, ticket: int) -> bool:
        if self._failure is not None:
            raise self._failure
        return self._synced >= ticket

    def ended(self, results: Iterable[Result]) -> None:
        """What became of these files is in the transaction that is open."""
        with self._changed:
            for result in results:
                number = self._number_of.pop(result.file.file_id, None)
                if number is not None:
                    self._left[number] -= 1
                    if not self._left[number]:
                        del self._left[number]
                        self._ended.append(number)
                        self._told = False

    def standing(self) -> Standing | None:
        """For the transaction that is open; None where the last one said the same."""
        with self._changed:
            if self._told:
                return None
            self._told = True
            return Standing(self._highest, self._synced, encode_numbers(list(self._left)))

    def committed(self) -> None:
        """That transaction is on the disk: what has ended in it counts no more."""
        with self._changed:
            for number in self._ended:
                blocks = self._blocks.pop(number, None)
                if blocks is not None:
                    self._file.free(blocks)
            self._ended.clear()

    @property
    def has_open(self) -> bool:
        """Whether any record counts, as of what was committed."""
        return bool(self._left)

    def end(self) -> None:
        """Announce nothing any more: what was is written, and the thread ends. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def close(self, *, remove: bool) -> None:
        """After the last commit; ``remove``: the journal needs no file any more. Idempotent."""
        self._file.close(remove=remove)

    def _run(self) -> None:
        try:
            while batches := self._take():
                self._write(batches)
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            failure = write_error(self._path, error)
            failure.__cause__ = error
            with self._changed:
                self._failure = failure
                self._waiters.wake()
            if self._on_failure is not None:
                with suppress(Exception):  # the failure itself must reach those who wait
                    self._on_failure(failure)

    def _take(self) -> Sequence[tuple[int, int, Sequence[Instance]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._closing)
            batches, self._inbox = self._inbox, []
            return batches

    def _write(self, batches: Sequence[tuple[int, int, Sequence[Instance]]]) -> None:
        for number, run_id, instances in batches:
            payload = encode(run_id, instances)
            with self._changed:
                if number not in self._left:  # it has ended without being sent
                    continue
                blocks = self._blocks[number] = self._file.take(len(payload))
            # Given back meanwhile, it is still nobody else's: only this thread takes.
            self._file.write(blocks, number, payload)
        self._file.sync()
        with self._changed:
            self._synced = batches[-1][0]
            self._told = False
            self._waiters.wake()
