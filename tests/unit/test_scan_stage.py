from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from ingester.budget import Budget, Promise
from ingester.channel import Channel
from ingester.dicomweb.outcome import Outcome
from ingester.errors import FatalError
from ingester.items import FileRef, Instance, Previous, Scanned
from ingester.ledger import Ledger
from ingester.readers import Readers
from ingester.scan import Found, Scanner, ScanOptions
from ingester.scan_stage import MAX_INTERNAL_ERRORS, ScanStage
from ingester.threads import ReadTimeoutError
from tests.support.dicom_files import instance_bytes
from tests.unit.road import Recorded, readers_of, ref_of

DATA = instance_bytes(study="1.2", series="1.2.1", sop="1.2.3")
LARGE = instance_bytes(study="1.2", series="1.2.1", sop="1.2.4", payload_bytes=3 << 20)

Write = Callable[[bytes, str], bytes]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(data: bytes, name: str) -> bytes:
        (tmp_path / name).write_bytes(data)
        return bytes(tmp_path / name)

    return written


class Stage:
    """The stage with a channel on either side."""

    def __init__(
        self,
        options: ScanOptions | None = None,
        workers: int = 1,
        readers: Readers | None = None,
        memory_bytes: int = 1 << 26,
        scanner: type[Scanner] = Scanner,
    ) -> None:
        options = options or ScanOptions()
        self.workers = workers
        self.record = Recorded()
        self.ledger = Ledger(self.record)
        self.files: Channel[list[FileRef]] = Channel(10_000)
        self.out: Channel[Scanned] = Channel(10_000)
        self.stage = ScanStage(
            scanner(options, Budget(memory_bytes)), readers or readers_of(), self.ledger, self.out,
            options, [self.files] * workers,
        )  # fmt: skip

    async def run(self, *lists: list[FileRef]) -> list[Instance]:
        return [one for found in await self.lists(*lists) for one in found.instances]

    async def lists(self, *lists: list[FileRef]) -> list[Scanned]:
        for files in lists:
            self.ledger.met(files)
            await self.files.put(files, len(files))
        self.files.close()
        await asyncio.gather(*(self.stage.worker(self.files) for _ in range(self.workers)))
        return [found async for found in self.out]


def _that_is_a_bug(file: FileRef) -> FileRef:
    """A file that makes the scanner raise what nothing in it expects."""
    return file._replace(name=cast("bytes", "text"))


def in_two_roots(path: bytes) -> tuple[FileRef, FileRef]:
    """A file as one root has it, and as another has, with the number 9."""
    one, other = ref_of(path, 1), ref_of(path, 2)
    root = replace(other.directory.root, root_id=9)
    return one, other._replace(directory=replace(other.directory, root=root))


class TestShortLists:
    """Each list changes threads six times."""

    @pytest.mark.parametrize(("workers", "lengths"), [(1, [100]), (3, [80, 10, 10])])
    async def test_are_read_together_as_long_as_one_stays_for_each_other_worker(
        self, write: Write, workers: int, lengths: list[int]
    ) -> None:
        files = [ref_of(write(DATA, str(n)), n) for n in range(1, 101)]
        lists = [files[start : start + 10] for start in range(0, 100, 10)]
        found = await Stage(workers=workers).lists(*lists)
        assert [len(each.instances) for each in found] == lengths
        assert [one.file.file_id for each in found for one in each.instances] == [*range(1, 101)]

    @pytest.mark.parametrize(("workers", "longest"), [(1, 1000), (4, 200), (16, 100)])
    async def test_have_at_most_1024_files_in_all(
        self, write: Write, workers: int, longest: int
    ) -> None:
        path = write(DATA, "a")
        lists = [[ref_of(path, 100 * n + one) for one in range(100)] for n in range(24)]
        found = await Stage(workers=workers).lists(*lists)
        assert max(len(each.instances) for each in found) == longest

    async def test_have_at_most_a_third_of_the_memory(self, write: Write) -> None:
        path = write(DATA, "a")
        stage = Stage(memory_bytes=3 * 1_200_000)
        large = [ref_of(path, n)._replace(size=500_000) for n in range(1, 7)]
        found = await stage.lists(*([one] for one in large))
        assert [len(each.instances) for each in found] == [2, 2, 2]

    async def test_of_another_root_stay_apart(self, write: Write) -> None:
        one, other = in_two_roots(write(DATA, "a"))
        stage = Stage(readers=readers_of(one.directory.root, other.directory.root))
        third, fourth = one._replace(file_id=3), other._replace(file_id=4)
        found = await stage.lists([one], [other], [third], [fourth])
        assert [len(each.instances) for each in found] == [1, 1, 1, 1]


class Hanging(Scanner):
    """Does not answer for the file with number 2."""

    def scan(
        self, files: Sequence[FileRef], found: list[Found], promise: Promise | None = None
    ) -> None:
        for file in files:
            if file.file_id == 2:
                raise ReadTimeoutError
            super().scan([file], found, promise)


class TestAList:
    """The group has to know when nothing more comes of one."""

    async def test_is_numbered_as_it_is_taken(self, write: Write) -> None:
        path = write(DATA, "a")
        lists = [[ref_of(path, 1000 * n + one) for one in range(600)] for n in (1, 2, 3)]
        found = await Stage().lists(*lists)
        assert [(each.list_number, each.whole) for each in found] == [
            (1, True),
            (2, True),
            (3, True),
        ]

    async def test_has_the_number_it_was_taken_with_when_another_overtakes_it(
        self, write: Write
    ) -> None:
        go_on = threading.Event()

        class Slow(Scanner):
            def scan(
                self, files: Sequence[FileRef], found: list[Found], promise: Promise | None = None
            ) -> None:
                assert files[0].file_id != 1 or go_on.wait(60)
                super().scan(files, found, promise)

        stage = Stage(workers=2, readers=readers_of(threads=2), scanner=Slow)
        lists = [[ref_of(write(DATA, str(n)), n)] for n in (1, 2)]
        running = asyncio.create_task(stage.lists(*lists))
        overtook = await stage.out.get()
        go_on.set()
        (overtaken,) = await running
        for scanned, number in ((overtook, 2), (overtaken, 1)):
            assert [one.file.file_id for one in scanned.instances] == [number]
            assert scanned.list_number == number

    async def test_is_numbered_by_root(self, write: Write) -> None:
        one, other = in_two_roots(write(DATA, "a"))
        stage = Stage(readers=readers_of(one.directory.root, other.directory.root))
        found = await stage.lists([one], [other])
        assert [(each.root_id, each.list_number) for each in found] == [(1, 1), (9, 1)]

    async def test_comes_in_parts_where_a_file_does_not_answer(self, write: Write) -> None:
        files = [ref_of(write(DATA, str(n)), n) for n in (1, 2, 3)]
        found = await Stage(scanner=Hanging).lists(files)
        assert [[one.file.file_id for one in each.instances] for each in found] == [[1], [3]]
        assert [(each.list_number, each.whole) for each in found] == [(1, False), (1, True)]

    async def test_comes_where_it_has_no_instance(self, write: Write) -> None:
        """Nobody would know that it need not be waited for."""
        found = await Stage().lists([ref_of(write(b"x", "a"), 1)])
        assert [(list(each.instances), each.whole) for each in found] == [([], True)]


class TestTheStage:
    async def test_decides_what_is_no_instance_and_hands_over_the_rest(self, write: Write) -> None:
        stage = Stage()
        first = [ref_of(write(DATA, "a"), 1), ref_of(write(b"x", "b"), 2)]
        found = await stage.run(first, [ref_of(write(LARGE, "c"), 3)])
        assert [one.file.file_id for one in found] == [1, 3]
        assert stage.record.outcomes == {b"b": Outcome.NOT_DICOM}
        assert [file.file_id for file in stage.ledger.undecided] == [1, 3]
        assert stage.out.closed

    async def test_counts_a_bug_of_its_own_as_the_end_of_one_file(self, write: Write) -> None:
        stage = Stage()
        files = [ref_of(write(DATA, f"{n}"), n) for n in range(MAX_INTERNAL_ERRORS)]
        broken = [_that_is_a_bug(file) for file in files[1:]]
        found = await stage.run([*broken[:5], files[0], *broken[5:]])
        assert [one.file.file_id for one in found] == [0]
        ends = Counter((r.outcome, r.reason_code) for r in stage.record.results)
        assert ends == {(Outcome.INVALID, "internal_error"): MAX_INTERNAL_ERRORS - 1}

    async def test_stops_when_they_are_many(self, write: Write) -> None:
        stage = Stage()
        files = [ref_of(write(DATA, f"{n}"), n) for n in range(MAX_INTERNAL_ERRORS)]
        with pytest.raises(FatalError, match="a bug of this program"):
            await stage.run([_that_is_a_bug(file) for file in files])
        assert len(stage.record.results) == MAX_INTERNAL_ERRORS

    async def test_stops_when_too_many_stored_files_changed(self, write: Write) -> None:
        stage = Stage(ScanOptions(max_resends=2))
        previous = Previous(Outcome.STORED, 1, 1, b"d" * 32, settled=True)
        files = [ref_of(write(DATA, f"{n}"), n, previous) for n in range(3)]
        with pytest.raises(FatalError, match="have changed") as caught:
            await stage.run(files)
        assert "--max-resend" in caught.value.hint
        assert stage.out.closed
        assert len(stage.ledger) == 3

    async def test_goes_on_when_few_did(self, write: Write) -> None:
        stage = Stage(ScanOptions(max_resends=3))
        previous = Previous(Outcome.STORED, 1, 1, b"d" * 32, settled=True)
        files = [ref_of(write(DATA, f"{n}"), n, previous) for n in range(3)]
        assert len(await stage.run(files)) == 3

    async def test_does_not_count_what_was_never_in_the_store(self, write: Write) -> None:
        stage = Stage(ScanOptions(max_resends=0))
        refs = [
            ref_of(write(DATA, "a"), 1, Previous(Outcome.REJECTED, 1, 1, None, settled=True)),
            ref_of(write(DATA, "b"), 2, Previous(Outcome.STORED, 1, 1, None, settled=False)),
            ref_of(write(DATA, "c"), 3),
        ]
        assert len(await stage.run(refs)) == 3
