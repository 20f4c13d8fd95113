"""The journal of a run: what the pipeline holds, around everything else.

    with Journal.open(path, target=…) as journal:
        run_id = journal.start_run(RunInfo(…))
        root_ids = journal.register_roots([(name, path), …])
        …  # known_files for the walk, find_holders for the claims, record and seen for the ends
        journal.finish_run(run_id, exit_code, RunFigures(…))

Memory: 16 MiB of pages for the writer and what a commit changes, 4 for each reader, 20,000 series,
and 4,096 rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

import msgspec

from ingester.dicomweb.outcome import SETTLED, Outcome
from ingester.errors import JournalError, WrongTargetError
from ingester.items import (
    Directory,
    FileRef,
    Holder,
    Instance,
    InstanceKey,
    Listing,
    Result,
    Skipped,
)
from ingester.journal.announcement_file import SESSION_BYTES
from ingester.journal.announcements import begin, recover
from ingester.journal.announcer import Announcer
from ingester.journal.holders import Holders
from ingester.journal.lock import RunLock, refuse_network_file_system
from ingester.journal.lookup import Ids, KnownFiles, stored_samples
from ingester.journal.names import announced_file
from ingester.journal.opening import connect_writer, create_private, journal_error
from ingester.journal.runs import RunFigures, RunInfo, end_run, insert_run
from ingester.journal.schema import HIGHEST_DROPPED
from ingester.journal.totals import Totals
from ingester.journal.writer import Writer
from ingester.real_path import real_path

if TYPE_CHECKING:
    import apsw


class Journal:
    """An open journal: one a process, and one process a journal. Made by ``Journal.open``."""

    def __init__(
        self,
        path: str,
        target: str,
        lock: RunLock,
        writer: Writer,
        announcer: Announcer,
        ids: Ids,
    ) -> None:
        self.path = path
        self.target = target
        self._lock = lock
        self._writer = writer
        self._announcer = announcer
        self._ids = ids
        self._known_files: list[KnownFiles] = []
        self._holders: Holders | None = None
        self._settled: AbstractSet[Outcome] = SETTLED
        self._run_id = 0

    @classmethod
    def open(
        cls,
        path: str,
        *,
        target: str,
        rebind: bool = False,
        on_commit: Callable[[Sequence[Result]], None] | None = None,
        on_failure: Callable[[JournalError], None] | None = None,
    ) -> Journal:
        """Lock, check and open the journal, or make it.

        ``target`` is the normalised address of the store, which the journal belongs to once a run
        has started; one of another store is taken only with ``rebind``. Both callbacks are called
        in the writer's thread: ``on_commit`` with results that are on the disk, in their order, as
        they were recorded; ``on_failure`` when nothing more can be recorded, or nothing more
        announced, there in the announcer's thread.

        Raises JournalError: held by another live run, on a network file system, no such
        directory, not writable, foreign, damaged, newer. WrongTargetError: of another target.
        UsageError: relative to a directory that is gone.
        """
        real = real_path(path)
        refuse_network_file_system(real)
        with ExitStack() as unless_opened:
            lock = RunLock(real)
            unless_opened.callback(lock.release)
            create_private(real)
            connection = connect_writer(real)
            unless_opened.callback(_close_quietly, connection)
            ids = _prepare(connection, real, target, rebind=rebind)
            announcer = Announcer(announced_file(real), os.urandom(SESSION_BYTES), on_failure)
            unless_opened.callback(announcer.close, remove=False)
            unless_opened.callback(announcer.end)
            writer = Writer(connection, real, announcer, on_commit=on_commit, on_failure=on_failure)
            unless_opened.pop_all()
        return cls(real, target, lock, writer, announcer, ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except JournalError:
            if error is None:
                raise

    def close(self) -> None:
        """Write what was handed over, take the WAL over, let go of the lock. Idempotent.

        The file of what was announced goes, unless some of it has no end in the journal.

        Raises JournalError if the writer has failed, now or before.
        """
        try:
            # Readers first: the last to close takes the WAL away, and they may not.
            for known in self._known_files:
                known.close()
            if self._holders is not None:
                self._holders.close()
            self._announcer.end()
            self._writer.close()
        finally:
            self._announcer.close(remove=self._writer.nothing_open)
            self._lock.release()

    def start_run(self, info: RunInfo) -> int:
        """A run starts; what is recorded from now on is of it. Waits for the commit."""

        def step() -> int:
            run_id = insert_run(self._writer.connection, info, self.target)
            begin(self._writer.connection, self._announcer.session)
            self._writer.recorder.start_run(run_id)
            return run_id

        self._run_id = self._writer.call(step)
        self._lock.describe(self._run_id)
        return self._run_id

    def finish_run(self, run_id: int, exit_code: int | None, figures: RunFigures) -> None:
        """The run ends. Waits for the commit of everything before it.

        The exit code depends on what was committed: without one, its figures are written and the
        run's totals are complete, so that it can be told.
        """
        connection = self._writer.connection
        self._writer.call(lambda: end_run(connection, run_id, exit_code, figures))

    def register_roots(self, sources: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Name and path of each source of this run to its root_id. Waits for the one commit.

        The name is the key; where it lies may have changed.
        """

        def step() -> list[int]:
            rows = self._writer.connection.executemany(
                "INSERT INTO roots (name, path) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET path = excluded.path RETURNING root_id",
                sources,
            )
            return [root_id for (root_id,) in rows]

        return self._writer.call(step)

    def known_files(self, retry: AbstractSet[Outcome] = frozenset()) -> KnownFiles:
        """Look-ups for the walk's thread; ``retry`` are settled outcomes to be sent again."""
        self._settled = SETTLED - retry
        known = KnownFiles(self.path, self._ids, self._add_directory, retry)
        self._known_files.append(known)
        return known

    def _add_directory(self, directory: Directory) -> None:
        self._writer.hand_over(directories=(directory,))

    def find_holders(self, keys: Sequence[InstanceKey]) -> list[Holder | None]:
        """Who holds the claims, as committed. Reads the disk: call it in a thread."""
        if self._holders is None:
            self._holders = Holders(self.path, self._settled)
        return self._holders.find(keys)

    def find_copies(self, key: InstanceKey, but: int) -> list[Holder]:
        """Files but one that were found to be what the store has. Reads the disk, as above."""
        return [] if self._holders is None else self._holders.copies(key, but)

    def stored_samples(self) -> list[tuple[FileRef, bytes | None]]:
        """Small files that the store has, of the latest, with their digests. Reads the disk."""
        return stored_samples(self.path)

    def record(self, result: Result) -> None:
        """What became of one file. Never waits; callable from any thread."""
        self.record_all((result,))

    def record_all(self, results: Sequence[Result]) -> None:
        """What became of these files. Never waits; the sequence must not change afterwards.

        After a failure nothing is recorded, and nothing is claimed: ``failure`` says so.
        """
        self._require_run()
        self._writer.hand_over(results=results)

    def announce(self, instances: Sequence[Instance]) -> int:
        """These are about to be sent together: wait for ``wait_announced`` of this ticket first.

        Never waits itself. The sequence must not change afterwards. Raises JournalError.
        """
        self._require_run()
        return self._announcer.announce(self._run_id, instances)

    async def wait_announced(self, ticket: int) -> None:
        """Return when that announcement is on the disk, and results can be. Raises JournalError."""
        await self._announcer.wait_synced(ticket)
        if self._writer.failure is not None:
            raise self._writer.failure

    def seen(self, refs: Sequence[FileRef]) -> None:
        """Files that were met and need no work: they count as what they were. Never waits."""
        self._require_run()
        self._writer.hand_over(refs=refs)

    def skipped(self, directories: Sequence[Skipped]) -> None:
        """Directories as an earlier run left them: their files count as met. Never waits."""
        self._require_run()
        self._writer.hand_over(skipped=directories)

    def listed(self, listings: Sequence[Listing]) -> None:
        """How directories were listed, for the run that resumes this one. Never waits."""
        self._require_run()
        self._writer.hand_over(listings=listings)

    def _require_run(self) -> None:
        if not self._run_id:
            raise JournalError("no run was started")

    @property
    def uncommitted(self) -> int:
        """Rows handed over and not committed."""
        return self._writer.uncommitted_rows

    @property
    def has_room(self) -> bool:
        """Whether work may be started whose results will be recorded here."""
        return self._writer.has_room

    async def wait_for_room(self) -> None:
        """Return when there is room. Raises JournalError when the writer has failed."""
        await self._writer.wait_for_room()

    @property
    def failure(self) -> JournalError | None:
        """Why nothing is recorded any more; what cannot be announced is told who announces."""
        return self._writer.failure

    @property
    def run_totals(self) -> Totals:
        """Files met in this run, by outcome, as committed. No look-up."""
        return self._writer.run_totals


def _close_quietly(connection: apsw.Connection) -> None:
    with suppress(Exception):  # what it was closed for must reach whoever opened it
        connection.close()


def _prepare(connection: apsw.Connection, path: str, target: str, *, rebind: bool) -> Ids:
    """Check that it is of this target, or of none yet; the numbers to go on with."""
    import apsw  # noqa: PLC0415 - loaded by whoever made the connection

    try:
        bound = connection.execute("SELECT value FROM meta WHERE key = 'target'").get
        if bound not in {None, target} and not rebind:
            raise WrongTargetError(
                f"the journal belongs to another target ({bound}, not {target}): {path}",
                "if it is the same store under a new name, add --rebind; "
                "else name another file with --journal",
            )
        recover(connection, path)
        with connection:
            max_file_id = connection.execute("SELECT max(file_id) FROM files").get
            dropped = connection.execute("SELECT value FROM meta WHERE key = ?", (HIGHEST_DROPPED,))
            max_file_id = max(max_file_id or 0, int(dropped.get or 0))
            max_dir_id = connection.execute("SELECT max(dir_id) FROM directories").get
    except (apsw.Error, UnicodeError, msgspec.MsgspecError) as error:
        raise journal_error(path, "opened", error) from error
    return Ids(max_file_id + 1, (max_dir_id or 0) + 1)
