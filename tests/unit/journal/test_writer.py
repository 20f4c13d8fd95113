from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

import apsw
import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.errors import JournalError
from ingester.items import Result
from ingester.journal import Journal, RunInfo
from ingester.journal.writer import MAX_UNCOMMITTED_CALLS, MAX_UNCOMMITTED_ROWS
from tests.unit.journal.made import TARGET, Session, recount, stored


class Gate:
    """An ``on_commit`` that holds the writer until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, _: Sequence[Result]) -> None:
        self.entered.set()
        assert self.open.wait(60)


class Gated(Session):
    """A session whose first commit is held after it was made."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.gate = Gate()
        self.journal._writer._on_commit = self.gate
        self.journal.record(Result(self.ref(b"first"), Outcome.NOT_DICOM))
        assert self.gate.entered.wait(60)


class TestACommit:
    def test_is_on_the_disk_before_anybody_is_told(self, path: str) -> None:
        visible: list[tuple[int, int]] = []

        def look(results: Sequence[Result]) -> None:
            db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
            for result in results:
                query = "SELECT count(*) FROM files WHERE file_id = ?"
                visible.append((result.file.file_id, db.execute(query, (result.file.file_id,)).get))
            db.close()

        session = Session(path)
        session.journal._writer._on_commit = look
        for ref in session.refs([b"%d" % number for number in range(50)]):
            session.journal.record(stored(ref))
        session.end()
        assert visible == [(number, 1) for number in range(1, 51)]

    def test_tells_the_writer_thread_and_nobody_elses(self, path: str) -> None:
        names: set[str] = set()
        session = Session(path)
        session.journal._writer._on_commit = lambda _: names.add(threading.current_thread().name)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        assert names == {"journal"}

    def test_takes_everything_that_came_during_the_one_before(self, path: str) -> None:
        session = Gated(path)
        before = session.journal._writer.commits
        for ref in session.refs([b"%d" % number for number in range(60)]):
            session.journal.record(stored(ref))
        assert session.journal.uncommitted >= 61
        session.gate.open.set()
        session.journal.close()
        assert session.journal._writer.commits == before + 1
        assert session.journal.uncommitted == 0
        recount(path)

    async def test_is_not_made_for_directories_alone(self, path: str) -> None:
        """They come with their first file: each alone would be an fsync for nothing."""
        session = Session(path)
        session.journal._writer.call(lambda: None)
        commits = session.journal._writer.commits
        for number in range(200):
            session.known.directory(session.root, b"%d" % number)
        await asyncio.sleep(0.05)
        assert session.journal._writer.commits == commits
        session.journal.record(stored(session.ref(b"a", rel_path=b"7")))
        session.journal.close()
        assert session.journal._writer.commits == commits + 1
        recount(path)

    async def test_is_made_for_directories_alone_when_they_are_many(self, path: str) -> None:
        session = Session(path)
        for number in range(3 * MAX_UNCOMMITTED_ROWS):
            session.known.directory(session.root, b"%d" % number)
            await asyncio.wait_for(session.journal.wait_for_room(), 60)
        session.end()

    def test_writes_a_directory_before_its_files(self, path: str) -> None:
        session = Session(path)
        for number in range(200):
            session.journal.record(stored(session.ref(b"a", rel_path=b"%d" % number)))
        session.end()
        recount(path)


class TestTheThread:
    @pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has it")
    def test_takes_the_processor_from_nobody(self, path: str) -> None:
        session = Session(path)
        seen: list[int] = []
        session.journal._writer._on_commit = lambda _: seen.append(os.sched_getscheduler(0))
        session.journal.record(Result(session.ref(b"a"), Outcome.NOT_DICOM))
        session.journal.close()
        assert seen == [os.SCHED_BATCH]


class TestRoom:
    async def test_is_there_without_waiting(self, path: str) -> None:
        session = Session(path)
        await session.journal.wait_for_room()
        assert session.journal.has_room
        session.end()

    @pytest.mark.parametrize("rows", [1, MAX_UNCOMMITTED_ROWS // MAX_UNCOMMITTED_CALLS + 1])
    async def test_ends_at_the_bound_and_comes_back_for_every_waiter(
        self,
        path: str,
        rows: int,
    ) -> None:
        session = Gated(path)
        refs = session.refs([b"%05d" % number for number in range(MAX_UNCOMMITTED_CALLS * rows)])
        calls = 0
        while session.journal.has_room:
            part = refs[calls * rows : (calls + 1) * rows]
            session.journal.record_all([Result(ref, Outcome.NOT_DICOM) for ref in part])
            calls += 1
        assert calls == MAX_UNCOMMITTED_CALLS - 1  # and the first
        waiting = [asyncio.create_task(session.journal.wait_for_room()) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        session.gate.open.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        session.end()

    async def test_a_waiter_may_be_cancelled(self, path: str) -> None:
        session = Gated(path)
        refs = session.refs([b"%05d" % number for number in range(MAX_UNCOMMITTED_ROWS)])
        session.journal.record_all([Result(ref, Outcome.NOT_DICOM) for ref in refs])
        waiting = [asyncio.create_task(session.journal.wait_for_room()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        session.gate.open.set()
        await asyncio.wait_for(waiting[1], 60)
        assert waiting[0].cancelled()
        session.end()


def broken(path: str, failures: list[JournalError]) -> Session:
    """A session whose next commit fails: somebody took a table away."""
    session = Session(path)
    session.journal._writer._on_failure = failures.append
    other = apsw.Connection(path)
    other.execute("DROP TABLE instances")
    other.close()
    return session


class TestAFailedCommit:
    async def test_is_told_to_everybody_and_nothing_after_it_is_claimed(self, path: str) -> None:
        failures: list[JournalError] = []
        session = broken(path, failures)
        a, b = session.refs([b"a", b"b"])
        session.journal.record(stored(a))
        session.journal._writer._thread.join(60)
        with pytest.raises(JournalError, match="cannot be written"):
            await session.journal.wait_for_room()
        session.journal.record(stored(b))
        assert failures == [session.journal.failure]
        with pytest.raises(JournalError):
            session.journal.start_run(RunInfo())
        with pytest.raises(JournalError):
            session.journal.close()
        assert session.committed == []
        db = apsw.Connection(path)
        assert db.execute("SELECT count(*) FROM files").get == 0
        db.close()

    def test_wakes_those_who_wait_for_an_answer(self, path: str) -> None:
        session = broken(path, [])
        session.journal.record(stored(session.ref(b"a")))
        with pytest.raises(JournalError):
            session.end()
        with pytest.raises(JournalError):
            session.journal.close()

    def test_lets_go_of_the_lock(self, path: str) -> None:
        failures: list[JournalError] = []
        session = broken(path, failures)
        session.journal.record(stored(session.ref(b"a")))
        with pytest.raises(JournalError):
            session.journal.close()
        Session(path).end()

    def test_does_not_hide_the_error_that_ended_the_run(self, path: str) -> None:
        def run() -> None:
            with Journal.open(path, target=TARGET) as journal:
                journal._writer.failure = JournalError("x")
                raise KeyError

        with pytest.raises(KeyError):
            run()


class TestAFailedTelling:
    def test_stops_the_writer_without_the_words_of_the_error(self, path: str) -> None:
        def refuse(_: Sequence[Result]) -> None:
            raise OSError(28, "No space left on device", "/archive/PATIENT")

        session = Session(path)
        session.journal._writer._on_commit = refuse
        session.journal.record(stored(session.ref(b"a")))
        with pytest.raises(JournalError, match="OSError") as caught:
            session.journal.close()
        assert "PATIENT" not in str(caught.value)
        recount(path)


class TestAClosedJournal:
    def test_refuses_results(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        session.end()
        with pytest.raises(JournalError, match="closed"):
            session.journal.record(stored(ref))

    def test_has_written_everything_before_it_closed(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"%05d" % number for number in range(5_000)])
        session.journal.record_all([Result(ref, Outcome.NOT_DICOM) for ref in refs])
        session.journal.close()
        assert len(session.committed) == 5_000
        recount(path)
