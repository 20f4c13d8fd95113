"""Directories that a run which is resumed does not list again, and what their files count as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from ingester.dicomweb.outcome import SETTLED, Outcome
from ingester.items import DirectoryStamp, FileRef, ListedBefore, Listing, Result, Skipped
from ingester.journal import Count, iter_files, read_all_runs, read_status
from ingester.journal.writer import MAX_UNCOMMITTED_ROWS, READ_FOR_A_ROW
from tests.unit.journal.made import Session, header, recount, stored
from tests.unit.journal.test_writer import Gated

SCHEMA_2 = Path(__file__).parents[2] / "vectors" / "journal_schema2.sql"
STAMP = DirectoryStamp(77, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002)
NAMES = [b"a", b"b", b"c"]


def listed(session: Session, refs: list[FileRef], files: int | None = None) -> None:
    """The directory of these was listed to its end."""
    count = len(refs) if files is None else files
    session.journal.listed([Listing(refs[0].directory, STAMP, count)])


def before(session: Session, rel_path: bytes = b"d") -> ListedBefore | None:
    return session.known.listed_before(session.known.directory(session.root, rel_path))


def skipped(session: Session, rel_path: bytes = b"d") -> Skipped | None:
    """What the walk finds out about a directory that has not changed."""
    directory = session.known.directory(session.root, rel_path)
    found = session.known.listed_before(directory)
    return None if found is None else session.known.skipped(directory, found)


def skip(session: Session, rel_path: bytes = b"d") -> None:
    one = skipped(session, rel_path)
    assert one is not None
    session.journal.skipped([one])


def interrupted(path: str, exit_code: int = 1) -> None:
    """A run that stores three files of a directory, and is stopped."""
    session = Session(path)
    refs = session.refs(NAMES)
    session.journal.record_all([stored(ref, f"1.2.{ref.file_id}") for ref in refs])
    listed(session, refs)
    session.end(exit_code)


def seen_run_ids(path: str) -> list[int]:
    return [row.seen_run_id for row in iter_files(path)]


class TestADirectoryThatWasListed:
    @pytest.mark.parametrize("exit_code", [1, 4, 129, 130, 143])
    def test_is_known_to_the_run_that_resumes(self, path: str, exit_code: int) -> None:
        interrupted(path, exit_code)
        session = Session(path)
        assert before(session) == ListedBefore(1, STAMP, 3)
        one = skipped(session)
        assert one is not None
        assert (one.listed_run_id, one.files, one.size) == (1, 3, 300)
        session.end()

    def test_is_known_after_a_kill(self, path: str) -> None:
        interrupted(path)
        connection = apsw.Connection(path)
        for killed in ("finished_at = NULL, exit_code = NULL", "exit_code = NULL"):
            connection.execute(f"UPDATE runs SET {killed}")  # noqa: S608 - a constant
            session = Session(path)
            assert skipped(session) is not None
            session.end(1)
        connection.close()

    @pytest.mark.parametrize("exit_code", [0, 3])
    def test_is_not_after_a_run_that_ended(self, path: str, exit_code: int) -> None:
        interrupted(path, exit_code)
        session = Session(path)
        assert before(session) is None
        session.end(1)
        session = Session(path)
        assert before(session) is None  # nor later: its files were not looked at since
        session.end()

    def test_is_known_through_any_number_of_runs_that_were_stopped(self, path: str) -> None:
        interrupted(path)
        for _ in range(3):
            session = Session(path)
            skip(session)
            session.end(143)
            recount(path)
        assert seen_run_ids(path) == [4, 4, 4]

    def test_is_forgotten_when_it_is_listed_again_and_not_to_its_end(self, path: str) -> None:
        interrupted(path)
        session = Session(path)
        session.journal.listed([Listing(session.refs(NAMES)[0].directory, None)])
        session.end(1)
        session = Session(path)
        assert before(session) is None
        session.end()


class TestItIsComplete:
    def test_only_when_all_that_was_listed_is_recorded(self, path: str) -> None:
        """The listing may be committed before its files are."""
        session = Session(path)
        refs = session.refs(NAMES)
        listed(session, refs)
        session.journal.record_all([stored(ref, f"1.2.{ref.file_id}") for ref in refs[:2]])
        session.end(1)
        session = Session(path)
        assert skipped(session) is None
        session.end()

    def test_only_with_rows_that_are_as_young_as_the_listing(self, path: str) -> None:
        """That of a file of long ago, which is there no more, stands for none that is missing."""
        session = Session(path)
        session.journal.record(stored(session.ref(b"gone")))
        session.end()
        session = Session(path)
        refs = session.refs([b"a", b"b"])
        session.journal.record(stored(refs[0], "1.2.4"))
        listed(session, refs)
        session.end(1)
        session = Session(path)
        assert skipped(session) is None
        session.journal.record(stored(session.ref(b"b"), "1.2.5"))
        session.end(1)
        session = Session(path)
        one = skipped(session)
        assert one is not None
        assert one.files == 2
        session.journal.skipped([one])
        session.end(1)
        recount(path)
        assert seen_run_ids(path) == [1, 3 + 1, 3 + 1]

    @pytest.mark.parametrize("outcome", Outcome)
    def test_only_when_every_file_is_settled(self, path: str, outcome: Outcome) -> None:
        session = Session(path)
        refs = session.refs(NAMES)
        session.journal.record_all([stored(ref, f"1.2.{ref.file_id}") for ref in refs[:2]])
        session.journal.record(Result(refs[2], outcome))
        listed(session, refs)
        session.end(1)
        session = Session(path)
        assert (skipped(session) is not None) is (outcome in SETTLED)
        session.end(1)
        session = Session(path, retry=frozenset({outcome}))
        assert skipped(session) is None
        session.end()

    def test_only_when_every_time_stamp_is_trusted(self, path: str) -> None:
        session = Session(path)
        refs = session.refs(NAMES)
        session.journal.record_all(
            [
                stored(ref, f"1.2.{ref.file_id}")._replace(mtime_trusted=ref.name != b"b")
                for ref in refs
            ]
        )
        listed(session, refs)
        session.end(1)
        session = Session(path)
        assert skipped(session) is None
        session.end()

    def test_with_nothing_in_it(self, path: str) -> None:
        session = Session(path)
        directory = session.known.directory(session.root, b"empty")
        session.journal.listed([Listing(directory, STAMP, 0)])
        session.end(1)
        session = Session(path)
        skip(session, b"empty")
        session.end()
        recount(path)


class TestASkippedDirectory:
    def test_counts_its_files_as_what_they_are(self, path: str) -> None:
        session = Session(path)
        refs = session.refs(NAMES)
        session.journal.record_all(
            [
                stored(refs[0]),
                stored(refs[1], "1.2.4")._replace(
                    outcome=Outcome.STORED_WITH_WARNING, warning_code=0xB110
                ),
                Result(refs[2], Outcome.REJECTED, header=header("1.5", sop="1.5.1")),
            ]
        )
        listed(session, refs)
        session.end(1)
        session = Session(path)
        skip(session)
        session.end(3)
        recount(path)
        status = read_status(path)
        assert status.run_totals.outcomes == {
            Outcome.STORED: Count(1, 100),
            Outcome.STORED_WITH_WARNING: Count(1, 100),
            Outcome.REJECTED: Count(1, 100),
        }
        assert status.run_totals.pixel_warnings == 1
        assert status.run_totals == status.totals
        assert [run.studies for run in read_all_runs(path)] == [2, 2]
        assert session.committed == []

    def test_writes_no_row_of_a_file(self, path: str) -> None:
        interrupted(path)
        session = Session(path)
        skip(session)
        session.end()
        connection = apsw.Connection(path)
        assert connection.execute("SELECT DISTINCT seen_run_id FROM files").fetchall() == [(1,)]
        connection.close()
        assert seen_run_ids(path) == [2, 2, 2]

    @pytest.mark.parametrize("times", [2, 3])
    def test_counts_once_however_often_it_is_met(self, path: str, times: int) -> None:
        """A directory that changes, or is far away, may list a name twice."""
        interrupted(path)
        session = Session(path)
        one = skipped(session)
        assert one is not None
        for _ in range(times):
            session.journal.skipped([one])
        session.journal.seen(session.refs(NAMES))
        session.end()
        recount(path)
        assert read_status(path).run_totals.files == 3

    def test_counts_a_file_once_that_was_recorded_before(self, path: str) -> None:
        interrupted(path)
        session = Session(path)
        one = skipped(session)
        assert one is not None
        session.journal.record(stored(session.ref(b"a"), "1.2.1"))
        session.journal._writer.call(lambda: None)
        session.journal.skipped([one])
        session.end()
        recount(path)
        assert read_status(path).run_totals.files == 3

    @pytest.mark.parametrize("first", ["skipped", "listed"])
    def test_counts_once_when_it_is_listed_too(self, path: str, first: str) -> None:
        interrupted(path)
        session = Session(path)
        one = skipped(session)
        assert one is not None
        refs = session.refs(NAMES)
        steps: list[Callable[[], object]] = [
            lambda: session.journal.skipped([one]),
            lambda: session.journal.listed([Listing(refs[0].directory, None)]),
            lambda: session.journal.seen(refs[:2]),
            lambda: session.journal.record(stored(refs[2], "1.2.3")),
        ]
        for step in steps if first == "skipped" else [*steps[1:], steps[0]]:
            step()
        session.end()
        recount(path)
        assert read_status(path).run_totals.files == 3

    def test_keeps_its_files_from_moving_away_in_the_same_run(self, path: str) -> None:
        """It was met where it was: what has its data set elsewhere is a duplicate."""
        interrupted(path)
        session = Session(path)
        skip(session)
        elsewhere = session.ref(b"x", rel_path=b"e")
        session.journal.record(stored(elsewhere, "1.2.1")._replace(moved_from=1))
        session.end()
        recount(path)
        (row,) = (row for row in iter_files(path) if row.rel_path == b"e/x")
        assert (row.outcome, row.other_file_id) == (Outcome.DUPLICATE, 1)
        assert read_status(path).run_totals.files == 4

    def test_keeps_them_also_from_what_was_said_just_before_and_is_not_committed(
        self, path: str
    ) -> None:
        """It was looked at before the file was found to be gone."""
        interrupted(path)
        session = Gated(path)
        elsewhere = session.ref(b"x", rel_path=b"e")
        session.journal.record(stored(elsewhere, "1.2.1")._replace(moved_from=1))
        directory = session.known.directory(session.root, b"d")
        session.journal.skipped([Skipped(directory, 1, 3, 300)])
        session.gate.open.set()
        session.end()
        recount(path)
        (row,) = (row for row in iter_files(path) if row.rel_path == b"e/x")
        assert (row.outcome, row.other_file_id) == (Outcome.DUPLICATE, 1)

    def test_lets_go_of_a_file_that_moved_before(self, path: str) -> None:
        """Its listing tells that it was there; the row has gone to another directory since."""
        interrupted(path)
        session = Session(path)
        one = skipped(session)
        assert one is not None
        elsewhere = session.ref(b"x", rel_path=b"e")
        session.journal.record(stored(elsewhere, "1.2.1")._replace(moved_from=1))
        session.journal._writer.call(lambda: None)
        session.journal.skipped([one])
        session.end()
        recount(path)
        assert read_status(path).run_totals.files == 3

    def test_does_not_stamp_a_file_that_had_vanished_before(self, path: str) -> None:
        interrupted(path)
        session = Session(path)
        refs = session.refs([b"a", b"c"])
        session.journal.listed([Listing(refs[0].directory, None)])
        session.journal.seen(refs)
        listed(session, refs)
        session.end(1)
        session = Session(path)
        skip(session)
        session.end(1)
        recount(path)
        assert seen_run_ids(path) == [3, 1, 3]

    def test_hands_its_stamp_down_when_it_is_listed_again(self, path: str) -> None:
        """Of a file that is there no more it is known until which run it was."""
        interrupted(path)
        session = Session(path)
        skip(session)
        session.end(1)
        session = Session(path)
        refs = session.refs([b"a", b"c"])
        session.journal.listed([Listing(refs[0].directory, None)])
        session.journal.seen(refs)
        listed(session, refs)
        session.end(1)
        recount(path)
        assert seen_run_ids(path) == [3, 2, 3]
        session = Session(path)
        skip(session)
        session.end(0)
        recount(path)
        assert seen_run_ids(path) == [4, 2, 4]

    def test_hands_its_stamp_down_after_a_run_that_ended_too(self, path: str) -> None:
        """Then nobody has to be told to forget the listing: it does not count any more."""
        interrupted(path)
        session = Session(path)
        skip(session)
        session.end(0)
        session = Session(path)
        refs = session.refs([b"a", b"c"])
        session.journal.seen(refs)
        listed(session, refs)
        session.end(1)
        recount(path)
        assert seen_run_ids(path) == [3, 2, 3]


class TestRoomForSkippedDirectories:
    async def test_is_less_the_more_files_they_have(self, path: str) -> None:
        session = Gated(path)
        directory = session.known.directory(session.root, b"d")
        uncommitted = session.journal.uncommitted
        session.journal.skipped([Skipped(directory, 1, READ_FOR_A_ROW * 10, 0)] * 3)
        assert session.journal.uncommitted == uncommitted + 33
        session.journal.skipped([Skipped(directory, 1, READ_FOR_A_ROW * MAX_UNCOMMITTED_ROWS, 0)])
        assert not session.journal.has_room
        session.gate.open.set()
        await session.journal.wait_for_room()
        session.end()

    async def test_is_not_asked_for_by_listings_alone(self, path: str) -> None:
        """A commit of its own for each directory would cost more than all its files."""
        session = Session(path)
        refs = session.refs(NAMES)
        session.journal._writer.call(lambda: None)
        commits = session.journal._writer.commits
        listed(session, refs)
        await asyncio.sleep(0.05)
        assert session.journal._writer.commits == commits
        session.journal.record_all([stored(ref, f"1.2.{ref.file_id}") for ref in refs])
        session.journal.close()
        assert session.journal._writer.commits == commits + 1
        recount(path)
        session = Session(path)
        assert skipped(session) is not None
        session.end()

    async def test_comes_back_when_there_are_only_listings(self, path: str) -> None:
        session = Session(path)
        directory = session.known.directory(session.root, b"d")
        for _ in range(3 * MAX_UNCOMMITTED_ROWS):
            await asyncio.wait_for(session.journal.wait_for_room(), 60)
            session.journal.listed([Listing(directory, None)])
        session.end()

    async def test_is_bounded_for_listings_too(self, path: str) -> None:
        session = Gated(path)
        directory = session.known.directory(session.root, b"d")
        session.journal.listed([Listing(directory, STAMP, 1)] * MAX_UNCOMMITTED_ROWS)
        assert not session.journal.has_room
        session.gate.open.set()
        await session.journal.wait_for_room()
        session.end()


class TestAJournalOfSchema2:
    """A run of it ended, the next one was stopped when it had met one of two directories' files."""

    @pytest.fixture(autouse=True)
    def make(self, path: str) -> None:
        connection = apsw.Connection(path)
        connection.execute(SCHEMA_2.read_text(encoding="utf-8"))
        connection.close()

    def test_can_be_read_before_it_is_brought_forward(self, path: str) -> None:
        assert seen_run_ids(path) == [2, 1, 1]
        assert read_status(path).totals.files == 3

    def test_is_resumed_and_has_no_listings_yet(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"a", b"b"])
        assert [ref.file_id for ref in refs] == [1, 2]
        assert before(session) is None
        session.journal.seen(refs[:1])
        session.journal.record(stored(refs[1], "1.2.4"))
        listed(session, refs)
        session.end(1)
        recount(path)
        assert seen_run_ids(path) == [3, 3, 1]
        session = Session(path)
        skip(session)
        session.end()
        recount(path)
        assert seen_run_ids(path) == [4, 4, 1]

    def test_is_kept_as_it_was(self, path: str) -> None:
        Session(path).end()
        connection = apsw.Connection(f"{path}.schema2", flags=apsw.SQLITE_OPEN_READONLY)
        assert connection.execute("PRAGMA user_version").get == 2
        columns = connection.execute("SELECT name FROM pragma_table_info('directories')").fetchall()
        assert columns == [("dir_id",), ("root_id",), ("rel_path",)]
        connection.close()

    def test_has_the_tables_of_a_new_one_afterwards(self, path: str, tmp_path: Path) -> None:
        Session(path).end()
        new = str(tmp_path / "new.db")
        Session(new).end()
        tables = []
        columns = (
            "SELECT m.name, c.* FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' ORDER BY 1, 2"
        )
        for each in (path, new):
            connection = apsw.Connection(each, flags=apsw.SQLITE_OPEN_READONLY)
            tables.append(connection.execute(columns).fetchall())
            connection.close()
        assert tables[0] == tables[1]
