from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from ingester.errors import IngesterError, JournalError, NoThreadError, WrongTargetError
from ingester.journal import Journal, RunInfo, iter_files, read_status
from ingester.journal.lock import refuse_network_file_system
from ingester.journal.opening import (
    CHECKPOINT_PAGES,
    READER_CACHE_KIB,
    WRITER_CACHE_KIB,
    connect_reader,
    connect_writer,
    create_private,
    journal_error,
)
from ingester.journal.schema import SCHEMA_VERSION
from ingester.mounts import mount_type
from tests.support.process import start_python
from tests.unit.journal.made import TARGET, Session, stored

REPOSITORY = Path(__file__).parents[3]

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /mnt rw - autofs auto rw
31 30 0:41 / /mnt/pacs\\040archive rw,relatime shared:2 master:3 - nfs4 server:/export rw,vers=4.2
32 31 0:42 / /mnt/pacs\\040archive/local rw - xfs /dev/vdb rw
33 22 0:43 / /home/me rw - ext4 /dev/vdc rw
34 33 0:44 / /home/me rw - fuse.sshfs me@host: rw
nonsense
"""


def refusal(
    path: str, target: str = TARGET, kind: type[IngesterError] = JournalError
) -> IngesterError:
    with pytest.raises(kind) as caught:
        Journal.open(path, target=target)
    assert "\n" not in str(caught.value)
    return caught.value


class TestANewJournal:
    def test_is_readable_by_its_owner_alone_whatever_the_umask(self, path: str) -> None:
        before = os.umask(0)
        try:
            session = Session(path)
            session.journal.record(stored(session.ref(b"a")))
            for file in ("", "-wal", "-shm", ".lock"):
                assert stat.S_IMODE(os.stat(path + file).st_mode) == 0o600
            session.end()
        finally:
            os.umask(before)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_commits_fully_in_wal_mode_without_mapped_memory(self, path: str) -> None:
        session = Session(path)
        pragma = session.journal._writer.connection.pragma
        values = [pragma(name) for name in ("journal_mode", "synchronous", "mmap_size")]
        session.end()
        assert values == ["wal", 2, 0]

    def test_has_the_memory_and_the_checkpoints_that_its_documentation_says(
        self, path: str
    ) -> None:
        create_private(path)
        with closing(connect_writer(path)) as writer, closing(connect_reader(path)) as reader:
            assert writer.execute("PRAGMA cache_size").get == -WRITER_CACHE_KIB
            assert writer.execute("PRAGMA wal_autocheckpoint").get == CHECKPOINT_PAGES
            assert writer.execute("PRAGMA journal_size_limit").get == 64 << 20
            assert reader.execute("PRAGMA cache_size").get == -READER_CACHE_KIB

    def test_leaves_no_wal_after_an_orderly_end(self, path: str) -> None:
        Session(path).end()
        assert sorted(os.listdir(os.path.dirname(path))) == ["ingester.db", "ingester.db.lock"]

    def test_needs_its_directory(self, tmp_path: Path) -> None:
        error = refusal(str(tmp_path / "missing" / "j.db"))
        assert "No such file or directory" in str(error)
        assert "--journal" in error.hint

    def test_is_not_made_of_a_directory(self, tmp_path: Path) -> None:
        assert "cannot be opened" in str(refusal(str(tmp_path)))

    def test_made_by_a_run_killed_at_once_is_finished_by_the_next(self, path: str) -> None:
        connection = apsw.Connection(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        Session(path).end()
        assert read_status(path).target == TARGET

    def test_takes_no_results_before_a_run(self, path: str) -> None:
        with Journal.open(path, target=TARGET) as journal, pytest.raises(JournalError):
            journal.record_all([])


class TestAnExistingJournal:
    def test_takes_its_old_mode_bits_back(self, path: str) -> None:
        Session(path).end()
        os.chmod(path, 0o644)
        Session(path).end()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_of_another_target_is_refused_with_both_named(self, path: str) -> None:
        Session(path).end()
        error = refusal(path, "https://other.example/", WrongTargetError)
        assert TARGET in str(error)
        assert "https://other.example/" in str(error)
        assert "--rebind" in error.hint
        assert pickle.loads(pickle.dumps(error)).hint == error.hint  # noqa: S301
        assert read_status(path).target == TARGET

    def test_can_be_bound_to_a_new_name_of_its_target(self, path: str) -> None:
        Session(path).end()
        with Journal.open(path, target="https://new.example/", rebind=True) as journal:
            journal.start_run(RunInfo())
        assert read_status(path).target == "https://new.example/"
        refusal(path, TARGET, WrongTargetError)

    def test_from_a_newer_version_is_refused_and_not_touched(self, path: str) -> None:
        Session(path).end()
        connection = apsw.Connection(path)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.close()
        assert "made by a newer version" in str(refusal(path))
        with pytest.raises(JournalError, match="newer"):
            read_status(path)

    def test_that_is_another_database_is_refused_and_not_touched(self, path: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        before = Path(path).read_bytes()
        assert "not an ingester journal" in str(refusal(path))
        assert Path(path).read_bytes() == before

    def test_that_is_no_database_is_refused_and_not_touched(self, path: str) -> None:
        Path(path).write_bytes(b"ISA^not a journal" * 1000)
        assert "not an ingester journal" in str(refusal(path))
        assert Path(path).read_bytes() == b"ISA^not a journal" * 1000

    @pytest.mark.parametrize("left", [50, 4096, 4096 * 9 + 5])
    def test_that_is_torn_is_refused(self, path: str, left: int) -> None:
        session = Session(path)
        session.journal.record_all(
            [stored(ref) for ref in session.refs([b"%d" % n for n in range(999)])]
        )
        session.end()
        os.truncate(path, left)
        error = refusal(path)
        assert str(error).startswith("the journal cannot be opened: ")
        assert error.hint

    def test_whose_schema_is_damaged_is_refused(self, path: str) -> None:
        """As a page of it is by garbage: SQLite only says that there is no such table."""
        Session(path).end()
        connection = sqlite3.connect(path)
        connection.execute("ALTER TABLE announcements RENAME TO announc3ments")
        connection.commit()
        connection.close()
        error = refusal(path)
        assert "damaged" in error.message
        assert "backup" in error.hint

    def test_is_free_again_after_a_refusal(self, path: str) -> None:
        Session(path).end()
        refusal(path, "https://other.example/", WrongTargetError)
        Session(path).end()

    def test_is_free_again_where_its_thread_cannot_start(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start, before = threading.Thread.start, threading.enumerate()

        def all_but_the_journal(thread: threading.Thread) -> None:
            if thread.name == "journal":
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as no_thread:
            no_thread.setattr(threading.Thread, "start", all_but_the_journal)
            with pytest.raises(NoThreadError):
                Journal.open(path, target=TARGET)
        assert not [each for each in threading.enumerate() if each not in before]
        Journal.open(path, target=TARGET).close()

    def test_is_reached_through_a_link_under_one_lock(self, path: str, tmp_path: Path) -> None:
        session = Session(path)
        link = str(tmp_path / "link.db")
        os.symlink(path, link)
        assert "held by another live run" in str(refusal(link))
        assert read_status(link).pid == os.getpid()
        session.end()

    def test_may_lie_where_names_are_not_utf_8(self, tmp_path: Path) -> None:
        folder = os.fsencode(tmp_path) + b"/K\xf6ln %3f?#"
        os.mkdir(folder)
        session = Session(os.fsdecode(folder + b"/j.db"))
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        assert sorted(os.listdir(folder)) == [b"j.db", b"j.db.lock"]
        assert [row.file_id for row in iter_files(os.fsdecode(folder + b"/j.db"))] == [1]

    def test_that_was_killed_before_it_knew_its_target_has_a_status(self, path: str) -> None:
        create_private(path)
        connect_writer(path).close()
        status = read_status(path)
        assert (status.target, status.run, status.pid) == (None, None, None)


class TestAnErrorOfTheDisk:
    def test_is_not_called_damage_because_what_was_to_be_undone_is_gone(self) -> None:
        """SQLite undoes all after it, and then knows no savepoint."""
        try:
            try:
                raise apsw.IOError("disk I/O error")
            finally:
                raise apsw.SQLError("no such savepoint: _apsw-0")
        except apsw.SQLError as error:
            failure = journal_error("j.db", "written", error)
        assert failure.message == "the journal cannot be written: input/output error: j.db"


class TestTheLock:
    def test_refuses_a_second_process_and_names_the_first(self, path: str) -> None:
        session = Session(path)
        script = (
            "from ingester.journal import Journal\n"
            "from ingester.errors import JournalError\n"
            "try:\n"
            f"    Journal.open({path!r}, target='t')\n"
            "except JournalError as error:\n"
            "    print(error)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"held by another live run (pid {os.getpid()})" in run.stdout
        assert read_status(path).pid == os.getpid()
        session.end()
        assert read_status(path).pid is None

    def test_is_let_go_when_the_journal_is_closed_and_closing_twice_is_fine(
        self, path: str
    ) -> None:
        session = Session(path)
        session.end()
        session.journal.close()
        Journal.open(path, target=TARGET).close()

    def test_does_not_outlive_an_exec(self, path: str) -> None:
        with (
            Journal.open(path, target=TARGET),
            subprocess.Popen(["sleep", "30"], close_fds=False) as child,
        ):
            held = []
            for fd in os.listdir(f"/proc/{child.pid}/fd"):
                with suppress(FileNotFoundError):  # a library that it was loading
                    held.append(os.readlink(f"/proc/{child.pid}/fd/{fd}"))
            child.kill()
        assert not [name for name in held if "ingester.db" in name]


class TestNetworkFileSystems:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/data/j.db", "ext4"),
            ("/mnt/j.db", "autofs"),
            ("/mnt/pacs archive/j.db", "nfs4"),
            ("/mnt/pacs archive", "nfs4"),
            ("/mnt/pacs archive 2/j.db", "autofs"),
            ("/mnt/pacs archive/local/j.db", "xfs"),
            ("/home/me/j.db", "fuse.sshfs"),
            ("/home/meyer/j.db", "ext4"),
        ],
    )
    def test_are_told_by_the_mount_a_path_lies_on(self, path: str, kind: str) -> None:
        assert mount_type(MOUNTINFO, path) == kind

    def test_nothing_is_known_without_mounts(self) -> None:
        assert mount_type("", "/data/j.db") is None

    def test_are_refused(self) -> None:
        with pytest.raises(JournalError, match=r"network file system \(nfs4\)") as caught:
            refuse_network_file_system("/mnt/pacs archive/j.db", MOUNTINFO)
        assert "--journal" in caught.value.hint

    def test_a_local_disk_is_not_refused(self, path: str) -> None:
        refuse_network_file_system(path, MOUNTINFO)
        refuse_network_file_system(path)


class TestRuns:
    def test_are_numbered_and_kept_with_what_was_told_of_them(self, path: str) -> None:
        Session(path).end(exit_code=3)
        with Journal.open(path, target=TARGET) as journal:
            assert journal.start_run(RunInfo("n\udce9", "op", "host", "1.0", "digest")) == 2
        last = read_status(path).run
        assert last is not None
        assert (last.run_id, last.info.operator, last.finished_at) == (2, "op", None)
        assert last.info.name == "n?"


WITHOUT_A_DESCRIPTOR = """
import itertools, resource, sys
from ingester.errors import JournalError
from ingester.journal import Journal, read_status

def use():
    if sys.argv[2] == "run":
        Journal.open(sys.argv[1], target="https://store.example/").close()
    else:
        read_status(sys.argv[1])

use()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for limit in itertools.count(3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    try:
        use()
        break
    except JournalError as error:
        print(str(error).split(": ")[1], error.hint, sep=": ")
"""


@pytest.mark.parametrize("what", ["run", "status"])
def test_a_process_without_descriptors_is_told_of_these_and_not_of_permissions(
    path: str, what: str
) -> None:
    """Whichever file of the journal's is the first that cannot be opened."""
    Journal.open(path, target="https://store.example/").close()
    with start_python("-c", WITHOUT_A_DESCRIPTOR, path, what) as process:
        ended = process.wait()
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) >= (4 if what == "run" else 1)
    assert set(lines) == {"Too many open files: raise the limit of open files (ulimit -n)"}
