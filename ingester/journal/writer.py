"""The thread that writes: takes what was handed over, commits it as one group, then says so.

Takes results, sightings, directories and their listings from any thread, without waiting. Gives
``on_commit`` the results that are on the disk, in its own thread. Bounds: callers ask for room, of
which there is none above 4,096 rows or 64 calls that are not committed. Ends when it is closed and
everything is written. Fails at the first error of a commit or of ``on_commit``: the error is kept
and raised to everybody who asks for room or closes; nothing after it is written or claimed.

Why a thread, and not a synchronous commit on the loop: 48 requests/s at 20 ms a fsync, against
635. The thread is a daemon: a process that ends without closing ends, as if it had been killed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future as Promise
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from ingester.errors import FatalError, JournalError
from ingester.items import Directory, FileRef, Listing, Result, Skipped
from ingester.journal.announcements import forget
from ingester.journal.announcer import Announcer
from ingester.journal.listings import write_listings
from ingester.journal.opening import journal_error
from ingester.journal.rows import Recorder
from ingester.journal.totals import NOTHING, Totals
from ingester.journal.waiters import Waiters
from ingester.threads import let_others_go_first, start

if TYPE_CHECKING:
    import apsw

MAX_UNCOMMITTED_ROWS: Final = 4_096
MAX_UNCOMMITTED_CALLS: Final = 64
_UPDATE_STANDING: Final = "UPDATE announcements SET highest = ?, synced = ?, open = ?"
READ_FOR_A_ROW: Final = 16
"""Files of a skipped directory: they are read and not written, by one statement."""

T = TypeVar("T")
Step = Callable[[], object]


class _Work:
    """What one commit takes."""

    def __init__(self) -> None:
        self.directories: list[Directory] = []
        self.skipped: list[Skipped] = []
        self.entries: list[tuple[Sequence[Result], Sequence[FileRef]]] = []
        self.listings: list[Listing] = []
        self.steps: list[tuple[Step, Promise[object]]] = []
        self.rows = 0
        self.calls = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.steps)

    @property
    def urgent(self) -> bool:
        """Whether it is worth a commit: directories and listings wait for what comes with them."""
        return bool(self.calls or self.steps) or self.rows >= MAX_UNCOMMITTED_ROWS // 2


class Writer:
    """Owns the connection that writes, from construction to ``close``."""

    def __init__(
        self,
        connection: apsw.Connection,
        path: str,
        announcer: Announcer,
        *,
        on_commit: Callable[[Sequence[Result]], None] | None = None,
        on_failure: Callable[[JournalError], None] | None = None,
    ) -> None:
        self.connection = connection
        self._path = path
        self._on_commit = on_commit
        self._on_failure = on_failure
        self.recorder = Recorder(connection)
        self._announcer = announcer
        self.failure: JournalError | None = None
        self.run_totals: Totals = NOTHING
        self.commits = 0
        self.nothing_open = False  # it has ended, and nothing that was announced counts
        self.uncommitted_rows = 0
        self._uncommitted_calls = 0
        self._inbox = _Work()
        self._changed = threading.Condition()
        self._waiters = Waiters(self._changed)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        start(self._thread)

    def hand_over(
        self,
        results: Sequence[Result] = (),
        refs: Sequence[FileRef] = (),
        directories: Sequence[Directory] = (),
        skipped: Sequence[Skipped] = (),
        listings: Sequence[Listing] = (),
    ) -> None:
        """Put rows into the next commit. Never waits. After a failure they are let go.

        The sequences must not change afterwards. Raises JournalError when the journal is closed.
        """
        rows = len(results) + len(refs) + len(directories) + len(listings)
        rows += sum(1 + one.files // READ_FOR_A_ROW for one in skipped)
        with self._changed:
            self._refuse_when_closed()
            if self.failure is not None:
                return
            inbox = self._inbox
            inbox.directories.extend(directories)
            inbox.skipped.extend(skipped)
            inbox.listings.extend(listings)
            if results or refs:
                inbox.entries.append((results, refs))
            if results or refs or skipped:
                inbox.calls += 1
                self._uncommitted_calls += 1
            inbox.rows += rows
            self.uncommitted_rows += rows
            if inbox.urgent:
                self._changed.notify_all()

    def call(self, step: Callable[[], T]) -> T:
        """Run ``step`` in the thread, after what was handed over, and wait for its commit.

        For the few writes that need an answer. Raises JournalError.
        """
        promise: Promise[object] = Promise()
        answer: list[T] = []
        with self._changed:
            self._refuse_when_closed()
            if self.failure is not None:
                raise self.failure
            self._inbox.steps.append((lambda: answer.append(step()), promise))
            self._changed.notify_all()
        promise.result()
        return answer[0]

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise JournalError(f"the journal is closed: {self._path}")

    @property
    def has_room(self) -> bool:
        """Whether more may be started whose results will be recorded."""
        return (
            self.uncommitted_rows < MAX_UNCOMMITTED_ROWS
            and self._uncommitted_calls < MAX_UNCOMMITTED_CALLS
        )

    async def wait_for_room(self) -> None:
        """Return when there is room. Raises JournalError when the writer has failed."""
        await self._waiters.wait_for(self._has_room_or_fails)

    def _has_room_or_fails(self) -> bool:
        if self.failure is not None:
            raise self.failure
        return self.has_room

    def close(self) -> None:
        """Write what was handed over and end the thread. Idempotent.

        Raises JournalError if the writer has failed, now or before.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        let_others_go_first()
        work = _Work()
        try:
            while work := self._take():
                self._commit(work)
                self._made_room(work)
            if not self._announcer.has_open:
                with suppress(Exception):  # all is recorded; the next start can do with both
                    forget(self.connection)
                    self.nothing_open = True
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._fail(error, work)
        finally:
            self._close_connection()

    def _take(self) -> _Work:
        """Everything there is, as soon as some of it is urgent; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._inbox.urgent or self._closing)
            work, self._inbox = self._inbox, _Work()
            return work

    def _commit(self, work: _Work) -> None:
        connection, recorder = self.connection, self.recorder
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO directories (dir_id, root_id, rel_path) VALUES (?, ?, ?)",
            [(one.dir_id, one.root.root_id, one.rel_path) for one in work.directories],
        )
        # First: what was met in a directory that was skipped has not moved from there.
        recorder.skipped(work.skipped)
        recorded: list[Result] = []
        gathered: list[Result] = []
        for results, refs in work.entries:
            gathered.extend(results)
            self._announcer.ended(results)
            if refs:
                recorded += recorder.record(gathered)
                gathered = []
                recorder.seen(refs)
        recorded += recorder.record(gathered)
        write_listings(connection, recorder.run_id, work.listings)
        for step, _ in work.steps:
            step()
        if (standing := self._announcer.standing()) is not None:
            connection.execute(_UPDATE_STANDING, standing)
        totals = recorder.run_totals()
        connection.execute("COMMIT")
        self._announcer.committed()
        self.run_totals = totals
        self.commits += 1
        if recorded and self._on_commit is not None:
            self._on_commit(recorded)

    def _made_room(self, work: _Work) -> None:
        with self._changed:
            self.uncommitted_rows -= work.rows
            self._uncommitted_calls -= work.calls
            self._waiters.wake()
        for _, promise in work.steps:
            promise.set_result(None)

    def _fail(self, error: BaseException, work: _Work) -> None:
        if isinstance(error, JournalError):
            failure = error
        elif type(error).__module__.startswith("apsw"):
            failure = journal_error(self._path, "written", error)
        elif isinstance(error, FatalError):
            failure = JournalError(error.message, error.hint)
        else:
            failure = JournalError(
                f"what was recorded could not be passed on: {type(error).__name__}",
                "the same command continues where the journal ends",
            )
        failure.__cause__ = error
        with suppress(Exception):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        with self._changed:
            self.failure = failure
            steps = work.steps + self._inbox.steps
            self._inbox = _Work()
            self._waiters.wake()
        for _, promise in steps:
            promise.set_exception(failure)
        if self._on_failure is not None:
            with suppress(Exception):  # the failure itself must reach those who wait
                self._on_failure(failure)

    def _close_connection(self) -> None:
        with suppress(Exception):  # busy readers keep the WAL: it is read at the next start
            self.connection.wal_checkpoint(mode=_truncate())
        with suppress(Exception):
            self.connection.close(force=True)


def _truncate() -> int:
    import apsw  # noqa: PLC0415 - loaded by whoever made the connection

    return apsw.SQLITE_CHECKPOINT_TRUNCATE
