"""Files that are read in another process: as if they had been read here."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from ingester.arena import SEGMENT_BYTES, Segments
from ingester.budget import SMALLEST_BUFFER_BYTES, Budget
from ingester.dicomweb.outcome import Outcome
from ingester.items import FileIdentity, FileRef, Instance, Previous
from ingester.look import HEAD_BYTES, Asked, Seen
from ingester.messages import message
from ingester.scan import Found, Scanner, ScanOptions
from ingester.scan_pool import (
    FILES_BEFORE_PROCESSES,
    NO_POOL,
    ReaderLost,
    RemoteReader,
    ScanPool,
)
from ingester.scan_process import Reader
from ingester.threads import DaemonExecutor, ReadTimeoutError
from tests.support.dicom_files import instance_bytes, pydicom_test_files
from tests.support.waiting import wait_until
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
def at_most(kind: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def files_of_at_most(size: int) -> AbstractContextManager[None]:
    return at_most(resource.RLIMIT_FSIZE, size)


def no_more_descriptors() -> AbstractContextManager[None]:
    free = os.dup(0)
    os.close(free)
    return at_most(resource.RLIMIT_NOFILE, free)


def pids_of(pool: ScanPool) -> list[int]:
    return [each.process.pid for each in pool.started]


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
        assert budget.in_use_bytes == 2 * SMALLEST_BUFFER_BYTES

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

    def test_that_has_many_readers_is_lost_once(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        """With one of its readers all of them are through; another process takes its place."""
        borrowed = [pool.borrow(1) for _ in range(12)]
        (process,) = pool.started
        process.process.kill()
        for reader in borrowed:
            assert reader is not None
            assert list(zip([0], reader.seen([Asked(b"/x", 1, None)]), strict=False)) == [(0, None)]
            pool.bring_back(reader)
        found = scanned([write(tmp_path, 1)], budget, pool)
        assert isinstance(found[0], Instance)
        assert pids_of(pool) not in ([], [process.process.pid])

    def test_is_replaced_a_few_times(self, pool: ScanPool, budget: Budget, tmp_path: Path) -> None:
        files = [write(tmp_path, 1)]
        seen = set[int]()
        for _ in range(30):
            found = scanned(files, budget, pool)
            assert isinstance(found[0], Instance)
            give_back(found)
            seen.update(pids_of(pool))
            for each in pool.started:
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


class Exhausted(socket.socket):
    """The kernel has no memory for what is sent early."""

    def send(self, *_: object) -> int:
        raise OSError(errno.ENOBUFS, "no buffer space")


class Narrow(socket.socket):
    """Takes a few bytes of what is sent early."""

    def send(self, data: bytes | bytearray, flags: int = 0) -> int:  # type: ignore[override]  # less
        return super().send(data[:3], flags)


class Hasty(Reader):
    """Sends what it has before each file, as another thread may."""

    def look(self, file: Asked) -> Seen | None:
        self.send_some()
        return super().look(file)


class OutOfTime(Reader):
    """Meets a file with a time that no message holds, and others."""

    def look(self, file: Asked) -> Seen | None:
        seen = super().look(file)
        if seen is None or not file.path.endswith(b"002.dcm"):
            return seen
        identity = seen.look.identity._replace(mtime_ns=1 << 64)
        return seen._replace(look=seen.look._replace(identity=identity))


def sops_of(
    files: list[FileRef],
    kind: type[Reader],
    pool: ScanPool,
    budget: Budget,
    socket_kind: type[socket.socket] = socket.socket,
) -> list[str | None]:
    """What a reader of this kind says of them; None where it says nothing."""
    borrowed = pool.borrow(1)
    assert budget.arena.fd is not None
    assert borrowed is not None
    ours, theirs = socket.socketpair()
    reader = kind(socket_kind(fileno=theirs.detach()), Segments(budget.arena.fd), checksums=False)
    thread = threading.Thread(target=reader.serve)
    thread.start()
    remote = RemoteReader(ours, borrowed.process)
    asked = [Asked(file.path, file.size, None) for file in files]
    seen = list(chain.from_iterable(remote.look(asked)))
    remote.close()
    pool.bring_back(borrowed)
    thread.join(10)
    return [each.header.sop_instance_uid if each and each.header else None for each in seen]


class TestAnswersThatAreGathered:
    @pytest.mark.parametrize("kind", [Exhausted, Narrow])
    def test_stay_in_order_whatever_the_socket_takes_early(
        self, kind: type[socket.socket], pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        """An answer that is lost would give all that follow to the wrong file."""
        files = [write(tmp_path, n) for n in range(1, 7)]
        assert sops_of(files, Hasty, pool, budget, kind) == [f"1.2.{n}" for n in range(1, 7)]

    def test_are_there_beside_one_that_no_message_holds(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        files = [write(tmp_path, n) for n in range(1, 4)]
        assert sops_of(files, OutOfTime, pool, budget) == ["1.2.1", None, "1.2.3"]

    @pytest.mark.parametrize("count", [0, 3])
    def test_are_of_a_process_that_is_lost_where_so_many_were_not_awaited(
        self, count: int, pool: ScanPool
    ) -> None:
        borrowed = pool.borrow(1)
        assert borrowed is not None
        ours, theirs = socket.socketpair()
        remote = RemoteReader(ours, borrowed.process)
        with theirs:
            theirs.sendall(message(msgspec.msgpack.encode([None] * count)))
            asked = [Asked(b"/x", 1, None)] * 2
            with pytest.raises(ReaderLost):
                list(remote.look(asked))
            assert remote.lost
        pool.bring_back(borrowed)


class TestACallThatNobodyWaitsFor:
    def test_gives_back_what_it_got_too_late(
        self, pool: ScanPool, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, go, look = threading.Event(), threading.Event(), RemoteReader.look

        def late(reader: RemoteReader, asked: Sequence[Asked]) -> Iterator[list[Seen | None]]:
            for seen in chain.from_iterable(look(reader, asked)):
                yield [seen]
                first.set()
                go.wait(60)

        monkeypatch.setattr(RemoteReader, "look", late)
        files, found = [write(tmp_path, n) for n in range(1, 4)], list[Found]()
        executor = DaemonExecutor(1, "reader")
        future = executor.submit(Scanner(ScanOptions(), budget, pool).scan, files, found)
        assert first.wait(10)
        while not executor.look():
            time.sleep(0.01)
        go.set()
        with pytest.raises(ReadTimeoutError):
            future.result(10)
        assert len(found) == 1
        wait_until(
            lambda: budget.in_use_bytes == SMALLEST_BUFFER_BYTES
        )  # of the one that was found in time
        executor.shutdown()


class TestTheProcesses:
    def test_begin_when_there_is_work_enough(self, budget: Budget, tmp_path: Path) -> None:
        pool = ScanPool(1, budget.arena.fd, checksums=False)
        try:
            assert pool.borrow(FILES_BEFORE_PROCESSES - 1) is None
            assert not pool.started
            reader = pool.borrow(1)
            assert reader is None, "a thread waits for it to begin"
            deadline = time.monotonic() + 30
            while reader is None and time.monotonic() < deadline:
                time.sleep(0.005)
                reader = pool.borrow(1)
            assert reader is not None
            ((seen,),) = reader.look(
                [Asked(write(tmp_path, 1).path, write(tmp_path, 1).size, None)]
            )
            assert seen is not None
            assert seen.header is not None
            assert (seen.header.sop_instance_uid, seen.look.sha256) == ("1.2.1", None)
            pool.bring_back(reader)
        finally:
            pool.shutdown()

    def test_share_the_threads_also_where_one_begins_later(self, budget: Budget) -> None:
        """Whoever is ready first would get them all, and keep them."""
        pool = ScanPool(2, budget.arena.fd, checksums=True)
        borrowed: list[RemoteReader] = []
        try:
            assert pool.borrow(FILES_BEFORE_PROCESSES) is None
            first, second = pool.started
            second.process.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while not first.is_ready() and time.monotonic() < deadline:
                time.sleep(0.005)
            if not second.is_ready():  # else it was quicker than the signal
                assert pool.borrow(1) is None
            second.process.send_signal(signal.SIGCONT)
            while len(borrowed) < 4 and time.monotonic() < deadline:
                reader = pool.borrow(1)
                borrowed += [] if reader is None else [reader]
            assert [each.readers for each in pool.started] == [2, 2]
        finally:
            for reader in borrowed:
                pool.bring_back(reader)
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

    def test_are_not_asked_where_there_is_no_descriptor_for_it(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        first = pool.borrow(1)
        assert first is not None
        with no_more_descriptors():
            none = pool.borrow(1)
        assert none is None
        (process,) = pool.started
        assert process.readers == 1
        pool.bring_back(first)
        (found,) = scanned([write(tmp_path, 1)], budget, pool)
        assert isinstance(found, Instance)
        assert process.process.poll() is None

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

    def test_take_the_processor_from_no_thread_of_the_run(
        self, pool: ScanPool, budget: Budget, tmp_path: Path
    ) -> None:
        """The one that sends has the interpreter: without it everything stands still."""
        give_back(scanned([write(tmp_path, 1)], budget, pool))
        assert [os.sched_getscheduler(pid) for pid in pids_of(pool)] == [os.SCHED_BATCH]

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
            assert list(reader.look([Asked(b"/", 1, None)])) == [[None]]
            assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            pool.bring_back(reader)
            pool.shutdown()

    def test_are_gone_after_the_end(self, pool: ScanPool) -> None:
        reader = pool.borrow(1)
        assert reader is not None
        processes = [each.process for each in pool.started]
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
