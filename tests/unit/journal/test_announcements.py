"""What is about to be sent is written down first; what a crash leaves of it is in doubt."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec
import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.errors import JournalError
from ingester.items import FileIdentity, FileRef, Instance, InstanceKey, pending
from ingester.journal import RunInfo, iter_files, writer
from ingester.journal.announcement_file import BLOCK_BYTES
from ingester.journal.announcements import Announced, AnnouncedBatch
from ingester.journal.names import announced_file
from ingester.journal.schema import MIGRATIONS, SCHEMA_VERSION
from tests.support.journals import copy_journal, take_back
from tests.support.waiting import wait_until
from tests.unit.journal.made import Session, header, outcome_of, recount, registered, stored


def instance(ref: FileRef, sop: str) -> Instance:
    identity = FileIdentity(1, 2, ref.size, ref.mtime_ns, ref.mtime_ns)
    return Instance(ref, identity, header(sop=sop), None, b"a" * 32, mtime_trusted=True)


def batch(refs: Sequence[FileRef]) -> list[Instance]:
    return [instance(ref, f"1.{ref.file_id}") for ref in refs]


async def announced(session: Session, *batches: Sequence[Instance]) -> None:
    """Announced together, and on the disk."""
    tickets = [session.journal.announce(one) for one in batches]
    for ticket in tickets:
        await asyncio.wait_for(session.journal.wait_announced(ticket), 30)


def committed(session: Session) -> None:
    """What was recorded is on the disk."""
    registered(session.journal)


def as_after_a_crash(path: str, directory: Path) -> str:
    """What is on the disk now, as the next start would find it."""
    copied = copy_journal(Path(path), directory / "crashed")
    assert copied is not None
    return str(copied.path)


def killed(session: Session, path: str, directory: Path) -> str:
    """What is on the disk when it is killed now; the session itself then ends well."""
    copy = as_after_a_crash(path, directory)
    session.end()
    return copy


def in_doubt(path: str) -> set[bytes]:
    """The paths of the files that a start finds in doubt."""
    Session(path).end()
    recount(path)
    return {row.path for row in iter_files(path) if row.outcome is Outcome.IN_DOUBT}


class Held:
    """The journal's thread, from the next commit on: until ``go_on``."""

    def __init__(self, session: Session) -> None:
        self.go_on = threading.Event()
        self._entered = threading.Event()
        session.journal._writer._on_commit = self._hold

    def _hold(self, _: object) -> None:
        self._entered.set()
        assert self.go_on.wait(60)

    def wait(self) -> None:
        """It has made that commit."""
        assert self._entered.wait(60)


def is_there(path: str) -> bool:
    return Path(announced_file(path)).exists()


def size_and_mode(path: str) -> tuple[int, int]:
    status = Path(announced_file(path)).stat()
    return status.st_size, status.st_mode & 0o777


def lose(path: str) -> Path:
    """The file is not there any more; where it was."""
    file = Path(announced_file(path))
    file.unlink(missing_ok=True)
    return file


def garble(path: str, at: int) -> None:
    with open(announced_file(path), "r+b") as file:
        file.seek(at)
        file.write(b"\xff\x00\xff")


def fail(_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


class TestABatchThatIsAnnounced:
    async def test_is_in_doubt_after_a_crash_and_holds_its_claims(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b, c = session.refs([b"a", b"b", b"c"])
        await announced(session, [instance(a, "1.1"), instance(b, "1.2")])
        session.journal.record(stored(c, "1.3"))
        session.journal.record(stored(a, "1.1"))
        committed(session)
        copy = killed(session, path, tmp_path)

        after = Session(copy)
        assert outcome_of(copy, a.file_id) is Outcome.STORED
        assert outcome_of(copy, b.file_id) is Outcome.IN_DOUBT
        (holder,) = after.journal.find_holders([InstanceKey("1.2", "1.2")])
        assert holder is not None
        assert (holder.file_id, holder.outcome) == (b.file_id, Outcome.IN_DOUBT)
        known = after.refs([b"b", b"d"])
        assert known[0].in_doubt
        assert known[1].file_id not in {a.file_id, b.file_id, c.file_id}
        after.end()
        recount(copy)

    async def test_of_a_file_that_was_decided_in_an_earlier_run_is_in_doubt_all_the_same(
        self, path: str, tmp_path: Path
    ) -> None:
        first = Session(path)
        first.journal.record(stored(first.ref(b"a"), "1.1", digest=b"o"))
        first.end()
        second = Session(path)
        a = second.ref(b"a", size=200)
        await announced(second, [instance(a, "1.1")])
        copy = as_after_a_crash(path, tmp_path)
        second.end()
        third = Session(copy)
        assert outcome_of(copy, a.file_id) is Outcome.IN_DOUBT
        (holder,) = third.journal.find_holders([InstanceKey("1.2", "1.1")])
        assert holder is not None
        assert holder.outcome is Outcome.STORED  # the older bytes, that the store surely has
        assert holder.sha256 == b"o" * 32
        third.end()
        recount(copy)

    async def test_does_not_wait_for_the_journal_and_brings_its_directories(
        self, path: str, tmp_path: Path
    ) -> None:
        """The journal's thread is in a commit: nothing after it is in the journal."""
        session = Session(path)
        held = Held(session)
        session.journal.record(stored(session.ref(b"first"), "1.9"))
        held.wait()
        refs = [session.ref(b"a", rel_path=b"new"), session.ref(b"b", rel_path=b"newer")]
        await announced(session, batch(refs))
        copy = as_after_a_crash(path, tmp_path)
        held.go_on.set()
        session.end()
        assert in_doubt(copy) == {b"/archive/new/a", b"/archive/newer/b"}

    async def test_is_forgotten_with_the_commit_of_its_last_result_and_not_before(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a, b]))
        session.journal.record(stored(a, f"1.{a.file_id}"))
        committed(session)
        assert in_doubt(as_after_a_crash(path, tmp_path)) == {b"/archive/d/b"}
        session.journal.record(stored(b, f"1.{b.file_id}"))
        committed(session)
        assert in_doubt(as_after_a_crash(path, tmp_path)) == set()
        session.end()

    async def test_is_forgotten_alone(self, path: str, tmp_path: Path) -> None:
        """Of several on their way, ends in any order, and with results of files of no batch."""
        session = Session(path)
        refs = session.refs([b"%d" % number for number in range(9)])
        await announced(session, *(batch([ref]) for ref in refs[:6]))
        for number in (4, 8, 1):
            session.journal.record(stored(refs[number], f"1.{number}"))
        committed(session)
        await announced(session, batch(refs[6:8]))  # after the last commit
        left = {b"/archive/d/%d" % number for number in (0, 2, 3, 5, 6, 7)}
        assert in_doubt(as_after_a_crash(path, tmp_path)) == left
        session.end()

    async def test_that_ended_before_it_was_written_is_not_in_doubt(
        self, path: str, tmp_path: Path
    ) -> None:
        """As at a stop, where what was not sent is pending; and it takes no place for ever."""
        session = Session(path)
        first, *refs, last = session.refs([b"%d" % number for number in range(50)])
        file = session.journal._announcer._file
        syncing, go_on, sync = threading.Event(), threading.Event(), file.sync

        def hold() -> None:
            syncing.set()
            assert go_on.wait(60)
            sync()

        file.sync = hold  # type: ignore[method-assign] # a slow disk
        session.journal.announce(batch([first]))
        assert syncing.wait(60)
        for ref in refs:
            session.journal.announce(batch([ref]))
            session.journal.record(stored(ref, f"1.{ref.file_id}"))
        committed(session)
        go_on.set()
        await announced(session, batch([last]))
        assert in_doubt(as_after_a_crash(path, tmp_path)) == {b"/archive/d/0", b"/archive/d/49"}
        assert size_and_mode(path)[0] <= 2 * BLOCK_BYTES
        session.end()

    async def test_whose_end_left_the_row_as_an_earlier_run_decided_is_not_in_doubt(
        self, path: str, tmp_path: Path
    ) -> None:
        """It was not sent after all: what the earlier run says of it stands."""
        first = Session(path)
        first.journal.record(stored(first.ref(b"a"), "1.1"))
        first.end()
        second = Session(path)
        a, b = second.refs([b"a", b"b"])
        await announced(second, batch([a]), batch([b]))
        second.journal.record(pending(a, "not_finished"))
        committed(second)
        assert in_doubt(as_after_a_crash(path, tmp_path)) == {b"/archive/d/b"}
        second.end()

    async def test_is_written_over_only_after_the_commit_of_its_last_result(
        self, path: str, tmp_path: Path
    ) -> None:
        """That commit is under way: what became of the batch is in no journal that a crash leaves."""
        session = Session(path)
        held = Held(session)
        first = session.ref(b"first")
        await announced(session, batch([first]))
        session.journal.record(stored(session.ref(b"other"), "1.9"))
        held.wait()  # told of that one: the next commit takes all that comes now
        session.journal.record(stored(first, f"1.{first.file_id}"))
        entered, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert go_on.wait(60)

        step = threading.Thread(target=session.journal._writer.call, args=(hold,))
        step.start()
        wait_until(lambda: bool(session.journal._writer._inbox.steps))
        held.go_on.set()
        assert entered.wait(60)
        later = session.refs([b"a", b"b", b"c"])
        await announced(session, *(batch([ref]) for ref in later))
        copy = as_after_a_crash(path, tmp_path)
        go_on.set()
        step.join()
        session.end()
        assert in_doubt(copy) == {b"/archive/d/" + name for name in (b"first", b"a", b"b", b"c")}

    async def test_of_a_file_whose_time_no_system_would_have_is_written_down(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        refs = session.refs([b"a"], mtime_ns=2**70)
        await announced(session, batch(refs))
        assert in_doubt(as_after_a_crash(path, tmp_path)) == {b"/archive/d/a"}
        session.end()

    async def test_is_refused_by_a_closed_journal(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        session.end()
        with pytest.raises(JournalError, match="closed"):
            session.journal.announce(batch([ref]))


class TestTheFile:
    async def test_is_private_and_gone_after_a_good_end(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        await announced(session, batch([ref]))
        assert size_and_mode(path)[1] == 0o600
        session.journal.record(stored(ref, "1.1"))
        session.end()
        assert not is_there(path)

    async def test_stays_where_it_says_what_the_journal_does_not(self, path: str) -> None:
        session = Session(path)
        await announced(session, batch([session.ref(b"a")]))
        session.end()
        assert in_doubt(path) == {b"/archive/d/a"}
        assert not is_there(path)

    async def test_is_as_large_as_what_was_under_way_at_once(self, path: str) -> None:
        session = Session(path)
        for number in range(200):
            refs = session.refs([b"%d-%d" % (number, part) for part in range(50)])
            await announced(session, batch(refs[:49]), batch(refs[49:]))
            session.journal.record_all([stored(ref, f"1.{ref.file_id}") for ref in refs])
            committed(session)
        assert size_and_mode(path)[0] <= 5 * BLOCK_BYTES
        session.end()
        recount(path)

    @pytest.mark.parametrize("commits", [True, False])
    async def test_is_told_of_when_it_is_missing_and_an_empty_one_says_that_it_is_lost(
        self, path: str, tmp_path: Path, *, commits: bool
    ) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]))
        if commits:
            session.journal.record(stored(b, "1.2"))
            committed(session)
        copy = killed(session, path, tmp_path)
        lose(copy)
        with pytest.raises(
            JournalError, match="cannot be opened without what its run was sending"
        ) as caught:
            Session(copy)
        assert "empty" in caught.value.hint
        lose(copy).touch()
        assert in_doubt(copy) == set()

    async def test_of_an_earlier_start_says_nothing(self, path: str, tmp_path: Path) -> None:
        """A crash between the commit that ends it and the first record of the next run."""
        session = Session(path)
        await announced(session, batch([session.ref(b"a")]))
        copy = killed(session, path, tmp_path)
        old = tmp_path / "old"
        shutil.copyfile(announced_file(copy), old)
        again = Session(copy)
        again.journal.record(stored(again.ref(b"a"), "1.1"))
        again.end()
        shutil.copyfile(old, announced_file(copy))
        assert in_doubt(copy) == set()

    async def test_that_is_damaged_where_it_counts_is_refused(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]))
        session.journal.record(stored(b, "1.2"))
        committed(session)
        copy = killed(session, path, tmp_path)
        garble(copy, 100)
        with pytest.raises(JournalError, match="is damaged") as caught:
            Session(copy)
        assert "or empty it" in caught.value.hint
        lose(copy).touch()
        assert in_doubt(copy) == set()

    async def test_that_is_damaged_where_it_does_not_count_troubles_nobody(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]), batch([b]))
        session.journal.record(stored(a, f"1.{a.file_id}"))
        committed(session)
        copy = killed(session, path, tmp_path)
        garble(copy, 100)
        assert in_doubt(copy) == {b"/archive/d/b"}

    async def test_that_somebody_took_away_makes_no_end_a_bad_one(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        await announced(session, batch([ref]))
        lose(path)
        session.journal.record(stored(ref, "1.1"))
        session.end()
        assert in_doubt(path) == set()

    async def test_stays_after_a_failure_of_the_journal(self, path: str) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]), batch([b]))
        session.journal.record(stored(a, f"1.{a.file_id}"))
        committed(session)
        session.journal._writer._on_commit = fail
        session.journal.record(stored(b, f"1.{b.file_id}"))
        with pytest.raises(JournalError):
            session.journal.close()
        assert is_there(path)
        assert in_doubt(path) == set()  # what was committed before it failed counts

    async def test_says_nothing_of_what_a_later_run_of_it_decided(self, path: str) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]), batch([b]))
        session.journal.start_run(RunInfo())
        await announced(session, batch([a]))
        session.journal.record(stored(a, f"1.{a.file_id}"))
        session.journal.close()
        assert in_doubt(path) == {b"/archive/d/b"}

    async def test_of_a_journal_that_cannot_be_written_at_its_end_stays(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All is recorded: the end is a good one, and so is the next start."""

        def fail_to_forget(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM a_table_that_is_not_there")

        session = Session(path)
        ref = session.ref(b"a")
        await announced(session, batch([ref]))
        session.journal.record(stored(ref, "1.1"))
        with monkeypatch.context() as patched:
            patched.setattr(writer, "forget", fail_to_forget)
            session.end()
        assert is_there(path)
        assert in_doubt(path) == set()
        assert not is_there(path)

    async def test_serves_every_run_of_a_journal_that_is_open(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        await announced(session, batch([a]))
        session.journal.start_run(RunInfo())
        await announced(session, batch([b]))
        assert in_doubt(as_after_a_crash(path, tmp_path)) == {b"/archive/d/a", b"/archive/d/b"}
        session.end()

    async def test_that_cannot_be_read_is_refused(self, path: str, tmp_path: Path) -> None:
        session = Session(path)
        await announced(session, batch([session.ref(b"a")]))
        copy = killed(session, path, tmp_path)
        lose(copy).mkdir()
        with pytest.raises(JournalError, match="the journal cannot be read: not a regular file"):
            Session(copy)


class TestAJournalOfAVersionBefore:
    def test_is_brought_forward_and_a_copy_is_kept(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        session.journal.record(stored(ref, "1.1"))
        session.end()
        take_back(Path(path), 1)

        again = Session(path)
        assert again.ref(b"a").previous is not None
        again.end()
        for file, version in ((path, SCHEMA_VERSION), (f"{path}.schema1", 1)):
            connection = apsw.Connection(file, flags=apsw.SQLITE_OPEN_READONLY)
            assert connection.execute("PRAGMA user_version").get == version
            assert connection.execute("SELECT count(*) FROM files").get == 1
            connection.close()
        assert Path(f"{path}.schema1").stat().st_mode & 0o777 == 0o600

    def test_with_batches_in_a_table_has_them_in_doubt(self, path: str) -> None:
        """Schema 3, of a run that was killed: a row a batch, without run and directories in it."""
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        session.journal.record(stored(a, f"1.{a.file_id}"))
        session.end()
        take_back(Path(path), 3)
        whole = AnnouncedBatch(
            "1.2", "20200102",
            [
                Announced(
                    one.file_id, one.directory.dir_id, one.name, 100, 1, True, b"a" * 32,
                    "1.2.1", f"1.{one.file_id}", "CT",
                )
                for one in (a, b)
            ],
        )  # fmt: skip
        encoded = msgspec.msgpack.encode(whole[:3])
        connection = apsw.Connection(path)
        connection.execute("INSERT INTO announced VALUES (1, ?, ?)", (session.run_id, encoded))
        connection.close()
        assert in_doubt(path) == {b"/archive/d/b"}

    def test_every_version_has_a_way_forward(self) -> None:
        assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))
