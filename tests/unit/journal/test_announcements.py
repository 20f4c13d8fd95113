"""What is about to be sent is written down first; what a crash leaves of it is in doubt."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.items import FileIdentity, FileRef, Instance, InstanceKey
from ingester.journal.schema import MIGRATIONS, SCHEMA_VERSION
from tests.support.journals import take_back
from tests.unit.journal.made import Session, header, outcome_of, recount, registered, stored


def instance(ref: FileRef, sop: str) -> Instance:
    identity = FileIdentity(1, 2, ref.size, ref.mtime_ns, ref.mtime_ns)
    return Instance(ref, identity, header(sop=sop), None, b"a" * 32, mtime_trusted=True)


def announced(path: str) -> int:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    count = connection.execute("SELECT count(*) FROM announced").get
    connection.close()
    assert isinstance(count, int)
    return count


def as_after_a_crash(path: str, directory: Path) -> str:
    """What is on the disk now, as the next start would find it."""
    copy = directory / "crashed.db"
    for suffix in ("", "-wal"):
        if Path(path + suffix).exists():
            shutil.copyfile(path + suffix, f"{copy}{suffix}")
    return str(copy)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


class TestABatchThatIsAnnounced:
    async def test_is_on_the_disk_when_its_ticket_is(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"a", b"b"])
        ticket = session.journal.announce([instance(refs[0], "1.1"), instance(refs[1], "1.2")])
        await asyncio.wait_for(session.journal.wait_committed(ticket), 30)
        assert announced(path) == 1
        session.end()

    async def test_is_gone_with_its_last_result_and_not_before(self, path: str) -> None:
        session = Session(path)
        a, b = session.refs([b"a", b"b"])
        session.journal.announce([instance(a, "1.1"), instance(b, "1.2")])
        session.journal.record(stored(a, "1.1"))
        registered(session.journal)  # waits for the commit
        assert announced(path) == 1
        session.journal.record(stored(b, "1.2"))
        registered(session.journal)  # waits for the commit
        assert announced(path) == 0
        session.end()
        recount(path)

    async def test_that_a_crash_leaves_is_in_doubt_and_holds_its_claims(
        self, path: str, tmp_path: Path
    ) -> None:
        session = Session(path)
        a, b, c = session.refs([b"a", b"b", b"c"])
        session.journal.announce([instance(a, "1.1"), instance(b, "1.2")])
        session.journal.record(stored(c, "1.3"))
        session.journal.record(stored(a, "1.1"))
        registered(session.journal)  # waits for the commit
        copy = as_after_a_crash(path, tmp_path)
        session.end()

        after = Session(copy)
        assert announced(copy) == 0
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
        second.journal.announce([instance(a, "1.1")])
        registered(second.journal)  # waits for the commit
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


class TestAJournalOfTheVersionBefore:
    def test_is_brought_forward_and_a_copy_is_kept(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        session.journal.record(stored(ref, "1.1"))
        session.end()
        take_back(Path(path), 1)

        again = Session(path)
        assert again.ref(b"a").previous is not None
        again.end()
        assert announced(path) == 0
        for file, version in ((path, SCHEMA_VERSION), (f"{path}.schema1", 1)):
            connection = apsw.Connection(file, flags=apsw.SQLITE_OPEN_READONLY)
            assert connection.execute("PRAGMA user_version").get == version
            assert connection.execute("SELECT count(*) FROM files").get == 1
            connection.close()
        assert Path(f"{path}.schema1").stat().st_mode & 0o777 == 0o600

    def test_every_version_has_a_way_forward(self) -> None:
        assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))
