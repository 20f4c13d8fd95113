from __future__ import annotations

import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ingester.errors import NoThreadError, SourceError
from ingester.files import SourceChanged, reopening
from ingester.items import Root
from ingester.readers import (
    ERRORS_IN_A_ROW,
    LOCAL_READERS,
    MAX_STUCK,
    NETWORK_READERS,
    Readers,
    RootReaders,
    SourcePausedError,
    failure_of,
    threads_for,
)
from ingester.threads import ReadTimeoutError, progressed
from tests.support.waiting import wait_until

MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:41 / /mnt/pacs\\040archive rw - nfs4 pacs:/archive rw
24 23 8:2 / /mnt/pacs\\040archive/disk rw - xfs /dev/sdb rw
"""


def root_of(path: Path, root_id: int = 1) -> Root:
    real = os.fsencode(path.resolve())
    return Root(root_id, real, real, None, os.stat(real).st_dev)


def fail_with(number: int) -> None:
    raise OSError(number, "")


class TestTheNumberOfThreads:
    @pytest.mark.parametrize(
        ("path", "threads"),
        [
            (b"/archive", LOCAL_READERS),
            (b"/mnt/pacs archive/2020", NETWORK_READERS),
            (b"/mnt/pacs archive/disk/2020", LOCAL_READERS),
        ],
    )
    def test_is_what_the_file_system_wants(self, path: bytes, threads: int) -> None:
        assert threads_for(path, MOUNTS) == threads

    def test_of_an_unknown_system_is_the_local_one(self) -> None:
        assert threads_for(b"/archive", "") == LOCAL_READERS

    def test_that_was_asked_for_counts(self, tmp_path: Path) -> None:
        root = root_of(tmp_path)
        assert Readers([root], 7).of(root).threads == 7


class TestARootThatFails:
    def test_is_paused_after_so_many_errors_in_a_row(self, tmp_path: Path) -> None:
        readers = RootReaders(root_of(tmp_path), 1)

        def read() -> None:
            reopening(lambda: fail_with(errno.EIO))

        for _ in range(ERRORS_IN_A_ROW - 1):
            with pytest.raises(OSError, match="Errno 5"):
                readers.submit(read).result(10)
        with pytest.raises(SourcePausedError):
            readers.submit(read).result(10)
        with pytest.raises(SourcePausedError):
            readers.submit(lambda: 5).result(10)
        assert "every read fails" in str(readers.cause)

    def test_is_not_when_something_is_read_in_between(self, tmp_path: Path) -> None:
        readers = RootReaders(root_of(tmp_path), 1)

        def read(*, well: bool) -> None:
            if well:
                progressed()
            else:
                reopening(lambda: fail_with(errno.ESTALE))

        for n in range(3 * ERRORS_IN_A_ROW):
            with suppress(OSError):
                readers.submit(read, well=n % 50 == 49).result(10)
        assert readers.cause is None

    def test_is_paused_at_once_when_it_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        readers = RootReaders(root_of(tmp_path / "root"), 1)
        (tmp_path / "root").rmdir()
        with pytest.raises(SourcePausedError):
            readers.submit(lambda: reopening(lambda: fail_with(errno.ENOENT))).result(10)
        assert "vanished" in str(readers.cause)

    def test_ends_what_waits_for_its_turn(self, tmp_path: Path) -> None:
        readers, gate, began = (
            RootReaders(root_of(tmp_path), 1),
            threading.Event(),
            threading.Event(),
        )

        def hold() -> None:
            began.set()
            gate.wait(20)

        held = readers.submit(hold)
        assert began.wait(10)
        waiting = readers.submit(lambda: 5)
        readers.pause(SourceError("gone"))
        with pytest.raises(SourcePausedError):
            waiting.result(10)
        gate.set()
        held.result(10)

    async def test_is_given_up_by_the_watch(self, tmp_path: Path) -> None:
        root = root_of(tmp_path)
        readers, gate, failures = Readers([root], 1), threading.Event(), list[NoThreadError]()
        watch = asyncio.create_task(readers.watch(0.2, failures.append))
        with pytest.raises(ReadTimeoutError):
            await asyncio.wrap_future(readers.of(root).submit(gate.wait, 60))
        watch.cancel()
        gate.set()
        assert readers.causes == []
        assert failures == []

    def test_that_answers_itself_is_not_paused_for_files_that_do_not(self, tmp_path: Path) -> None:
        readers, gate = RootReaders(root_of(tmp_path), 2), threading.Event()
        for _ in range(4):
            stuck = [readers.submit(gate.wait, 60) for _ in range(2)]
            while not all(each.done() for each in stuck):
                readers.look()
                if readers._probed is not None:
                    readers._probed.result(10)
        assert readers.stuck == 8
        assert readers.cause is None
        gate.set()


class TestWhatLiesInNoRoot:
    async def test_hangs_at_the_cost_of_no_root_and_of_so_many_threads(
        self, tmp_path: Path
    ) -> None:
        root = root_of(tmp_path)
        readers, gate, begun = Readers([root], 4), threading.Event(), list[int]()
        failures: list[NoThreadError] = []

        def hang() -> None:
            begun.append(1)
            gate.wait(60)

        elsewhere = readers.holding(b"/elsewhere/file")
        watch = asyncio.create_task(readers.watch(0.02, failures.append))
        hung = [asyncio.wrap_future(elsewhere.submit(hang)) for _ in range(100)]
        ended = await asyncio.gather(*hung, return_exceptions=True)
        watch.cancel()
        assert {type(each) for each in ended} == {ReadTimeoutError}
        assert MAX_STUCK <= len(begun) < MAX_STUCK + 8
        with pytest.raises(ReadTimeoutError):
            elsewhere.submit(hang).result(0)
        assert await asyncio.wrap_future(readers.of(root).submit(lambda: 5)) == 5
        assert (readers.causes, failures) == ([], [])
        gate.set()
        await asyncio.to_thread(wait_until, lambda: elsewhere.stuck == 0)
        assert await asyncio.wrap_future(elsewhere.submit(lambda: 6)) == 6
        readers.shutdown()


class TestAFileThatCannotBeRead:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (SourceChanged(), "changed_while_read"),
            (SourcePausedError(), "source_paused"),
            (ReadTimeoutError(), "read_timed_out"),
            (FileNotFoundError(errno.ENOENT, "/archive/Doe^Jane"), "vanished"),
            (PermissionError(errno.EACCES, "/archive/Doe^Jane"), "read_error"),
        ],
    )
    def test_is_told_by_a_code_and_without_its_name(
        self, error: OSError | SourceChanged, code: str
    ) -> None:
        found, reason = failure_of(error)
        assert found == code
        assert reason
        assert "Doe" not in reason
