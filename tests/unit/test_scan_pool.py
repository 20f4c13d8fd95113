"""Files that are read in another process: as if they had been read here."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingester.arena import SEGMENT_BYTES
from ingester.budget import Budget
from ingester.dicomweb.outcome import Outcome
from ingester.items import FileIdentity, FileRef, Instance, Previous
from ingester.look import HEAD_BYTES, Asked
from ingester.scan import Found, Scanner, ScanOptions
from ingester.scan_pool import (
    FILES_BEFORE_PROCESSES,
    NO_POOL,
    ReaderLost,
    RemoteReader,
    ScanPool,
)
from tests.support.dicom_files import instance_bytes, pydicom_test_files
from tests.unit.road import ref_of

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no shared memory")

OLD_NS = 1_600_000_000_000_000_000


@pytest.fixture
def budget() -> Budget:
    return Budget(1 << 27)


@pytest.fixture
def pool(budget: Budget) -> Iterator[ScanPool]:
    pool = ScanPool(1, budget.arena.fd, checksums=True, at_once=True)
    yield pool
    pool.shutdown()


def scanned(
    files: list[FileRef],
    budget: Budget,
    pool: ScanPool = NO_POOL,
    options: ScanOptions | None = None,
) -> list[Found]:
    found: list[Found] = []
    Scanner(options or ScanOptions(), budget, pool).scan(files, found)
    return found


def told(found: list[Found]) -> list[object]:
    """All that is said of each file; a buffer by its bytes."""
    said: list[object] = []
    for one in found:
        if isinstance(one, Instance):
            view = None if one.buffer is None else bytes(one.buffer.view or b"")
            said.append((one._replace(buffer=None), view))
        else:
            said.append(one)
    return said


def give_back(found: list[Found]) -> None:
    for one in found:
        if isinstance(one, Instance) and one.buffer is not None:
            one.buffer.give_back()


def write(directory: Path, number: int, *, size: int = 3000) -> FileRef:
    path = directory / f"{number:03d}.dcm"
    path.write_bytes(
        instance_bytes(study="1.2", series="1.2.3", sop=f"1.2.{number}", payload_bytes=size)
    )
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return ref_of(os.fsencode(path), number)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def pids_of(pool: ScanPool) -> list[int]:
    return [each.process.pid for each in pool._started.values()]


class TestAFileReadInAnotherProcess:
    @pytest.mark.parametrize(
        "options",
        [
            ScanOptions(),
            ScanOptions(inline_limit_bytes=0),
            ScanOptions(inline_limit_bytes=4096, max_file_bytes=100_000),
        ],
        ids=["cached", "heads", "mixed"],
    )
    def test_is_what_it_is_here(self, pool: ScanPool, budget: Budget, options: ScanOptions) -> None:
        paths = pydicom_test_files()
        files = [ref_of(os.fsencode(path), n) for n, path in enumerate(paths)]
        here = scanned(files, Budget(1 << 27), options=options)
        there = scanned(files, budget, pool, options)
        assert pids_of(pool)
        assert told(there) == told(here)
        give_back(there)
        assert budget.in_use_bytes == 0

    def test_that_is_gone_is_unreadable(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        files = [write(tmp_path, n) for n in range(3)]
        os.unlink(files[1].path)
        before, gone, after = scanned(files, budget, pool)
        assert (gone.file, isinstance(gone, Instance)) == (files[1], False)
        assert [type(each) for each in (before, after)] == [Instance, Instance]
        assert budget.in_use_bytes == 2 * 4096

    def test_that_grew_since_it_was_listed_is_read_as_it_is(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        listed = write(tmp_path, 1)
        grown = write(tmp_path, 1, size=9000)
        (found,) = scanned([listed], budget, pool)
        assert isinstance(found, Instance)
        assert found.size == grown.size > listed.size
        assert found.buffer is not None
        assert bytes(found.buffer.view or b"") == Path(os.fsdecode(grown.path)).read_bytes()

    def test_is_read_here_where_its_buffer_cannot_be_shared(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        """`ulimit -f` speaks of shared memory, too. What nobody filled must not be sent."""
        files = [write(tmp_path, n, size=2 * HEAD_BYTES) for n in range(3)]
        with files_of_at_most(SEGMENT_BYTES - 1):
            found = scanned(files, budget, pool)
        assert told(found) == told(scanned(files, Budget(1 << 27)))
        give_back(found)
        assert budget.in_use_bytes == 0

    def test_that_is_settled_and_the_same_is_unchanged(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        """Also where only its head was read: then all of it is read here."""
        file = write(tmp_path, 1, size=2 * HEAD_BYTES)
        (first,) = scanned([file], budget, pool)
        assert isinstance(first, Instance)
        previous = Previous(Outcome.STORED, first.size, 1, first.sha256, settled=True)
        for limit in (1 << 20, 0):
            options = ScanOptions(inline_limit_bytes=limit)
            (again,) = scanned([file._replace(previous=previous)], budget, pool, options)
            assert not isinstance(again, Instance)
            assert (again.outcome, again.unchanged) == (Outcome.STORED, True)

    def test_whose_time_stamp_no_message_holds_is_read_here(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        file = write(tmp_path, 1)
        os.utime(file.path, (2**34, 2**34))
        (found,) = scanned([file], budget, pool)
        assert isinstance(found, Instance)
        assert found.identity == FileIdentity.of(file.path)


class TestAProcessThatEnds:
    def test_leaves_the_rest_to_the_thread(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        files = [write(tmp_path, n) for n in range(64)]
        here = scanned(files, Budget(1 << 27))
        give_back(scanned(files, budget, pool))
        for pid in pids_of(pool):
            os.kill(pid, signal.SIGKILL)
        there = scanned(files, budget, pool)
        assert told(there) == told(here)
        give_back(there)
        assert budget.in_use_bytes == 0

    def test_is_replaced_a_few_times(self, pool: ScanPool, budget: Budget, tmp_path: Path) -> None:
        files = [write(tmp_path, 1)]
        seen = set[int]()
        for _ in range(30):
            found = scanned(files, budget, pool)
            assert isinstance(found[0], Instance)
            give_back(found)
            seen.update(pids_of(pool))
            for each in pool._started.values():
                each.process.kill()
                each.process.wait(10)
        assert 2 <= len(seen) <= 9
        assert budget.in_use_bytes == 0

    def test_in_the_middle_of_a_list_is_told_when_nothing_writes_any_more(
        self, pool: ScanPool, tmp_path: Path
    ) -> None:
        """A FIFO in place of a directory's file holds nobody; a stopped process does."""
        reader = pool.borrow(1)
        assert reader is not None
        asked = [Asked(write(tmp_path, n).path, n, None) for n in range(5)]
        (pid,) = pids_of(pool)
        os.kill(pid, signal.SIGSTOP)
        ended = threading.Event()

        def look(reader: RemoteReader) -> None:
            with pytest.raises(ReaderLost):
                list(reader.look(asked))
            ended.set()

        thread = threading.Thread(target=look, args=(reader,))
        thread.start()
        assert not ended.wait(0.2)
        os.kill(pid, signal.SIGKILL)
        thread.join(30)
        assert ended.is_set()
        assert reader.lost
        pool.bring_back(reader)


class TestTheProcesses:
    def test_begin_when_there_is_work_enough(self, budget: Budget, tmp_path: Path) -> None:
        pool = ScanPool(1, budget.arena.fd, checksums=False)
        try:
            assert pool.borrow(FILES_BEFORE_PROCESSES - 1) is None
            reader = pool.borrow(1)
            assert reader is not None
            (seen,) = reader.look([Asked(write(tmp_path, 1).path, write(tmp_path, 1).size, None)])
            assert seen is not None
            assert seen.header is not None
            assert (seen.header.sop_instance_uid, seen.look.sha256) == ("1.2.1", None)
            pool.bring_back(reader)
        finally:
            pool.shutdown()

    def test_are_not_missed_where_none_can_be_started(
        self, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
        pool = ScanPool(1, budget.arena.fd, checksums=True, at_once=True)
        files = [write(tmp_path, 1)]
        found = scanned(files, budget, pool)
        assert told(found) == told(scanned(files, Budget(1 << 27)))
        assert pool.borrow(1) is None
        pool.shutdown()

    @pytest.mark.parametrize("processes", [0, 3])
    def test_are_as_many_as_are_asked_for(self, budget: Budget, processes: int) -> None:
        pool = ScanPool(processes, budget.arena.fd, checksums=True, at_once=True)
        borrowed = [pool.borrow(1) for _ in range(8)]
        try:
            assert len(set(pids_of(pool))) == processes
        finally:
            for reader in borrowed:
                if reader is not None:
                    pool.bring_back(reader)
            pool.shutdown()

    def test_have_no_credential_and_no_setting(
        self, budget: Budget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
        monkeypatch.setenv("INGESTER_TOKEN", "SECRET")
        pool = ScanPool(1, budget.arena.fd, checksums=True, at_once=True)
        reader = pool.borrow(1)
        assert reader is not None
        try:
            (pid,) = pids_of(pool)
            assert list(reader.look([Asked(b"/", 1, None)])) == [None]
            assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            pool.bring_back(reader)
            pool.shutdown()

    def test_are_gone_after_the_end(self, pool: ScanPool) -> None:
        reader = pool.borrow(1)
        assert reader is not None
        processes = [each.process for each in pool._started.values()]
        pool.shutdown()
        assert [process.returncode for process in processes] == [0]
        assert pool.borrow(1) is None
        pool.bring_back(reader)

    def test_do_not_outlive_the_run(self, tmp_path: Path) -> None:
        """Its end closes their sockets, however it ends."""
        child = os.fork()
        if not child:
            budget = Budget(1 << 20)
            pool = ScanPool(1, budget.arena.fd, checksums=True, at_once=True)
            pool.borrow(1)
            (tmp_path / "pid").write_text(str(pids_of(pool)[0]))
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        pid = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
                break
            time.sleep(0.01)
        assert time.monotonic() < deadline
