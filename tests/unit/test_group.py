from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from ingester.batches import BatchLimits
from ingester.budget import Budget
from ingester.channel import Channel
from ingester.dicomweb.outcome import Outcome
from ingester.group import TICK_S, Group, GroupOptions, ToGroup
from ingester.items import (
    Holder,
    InputEnded,
    Instance,
    InstanceKey,
    Result,
    Scanned,
    StudyBatch,
    ended,
)
from ingester.journal import RunFigures
from ingester.ledger import Ledger
from ingester.scan import Scanner, ScanOptions
from tests.support.dicom_files import instance_bytes
from tests.unit.journal.made import Session, stored
from tests.unit.road import Direct, Recorded, file_ref, instance, readers_of, ref_of, scanned_by

ROOT_ID = file_ref().directory.root.root_id


class Grouping:
    """The stage with a journal that knows what a test tells it; ``send`` is the upload."""

    def __init__(self, *, max_open: int = 100, limits: BatchLimits | None = None) -> None:
        self.record = Recorded()
        self.ledger = Ledger(self.record)
        self.inbox: Channel[ToGroup] = Channel(1000)
        self.out: Channel[StudyBatch | InputEnded] = Channel(1000)
        self.journal: dict[InstanceKey, Holder] = {}
        self.group = Group(
            GroupOptions(max_open), limits or BatchLimits(1 << 20, 100), self.inbox, self.out,
            self.ledger, self.find, lambda *_: (), Direct(), readers_of(), lambda: self.idle_s,
            lambda: self.is_crowded,
        )  # fmt: skip
        self.idle_s = 0.0
        self.lists = 0
        self.is_crowded = False
        self.sent: list[int] = []

    def find(self, keys: Sequence[InstanceKey]) -> list[Holder | None]:
        return [self.journal.get(key) for key in keys]

    async def come(self, *instances: Instance) -> None:
        self.lists += 1
        await self.list_comes(self.lists, *instances)

    async def list_comes(self, number: int, *instances: Instance, whole: bool = True) -> None:
        self.ledger.met([one.file for one in instances])
        await self.inbox.put(Scanned(instances, ROOT_ID, number, whole), len(instances))

    async def send(self, ends: dict[int, Outcome]) -> None:
        async for item in self.out:
            if isinstance(item, StudyBatch):
                for one in item.instances:
                    self.sent.append(one.file.file_id)
                    outcome = ends.get(one.file.file_id, Outcome.STORED)
                    self.ledger.decide([ended(one, outcome, "")])
                    await asyncio.sleep(0)

    async def run(
        self, *instances: Instance, ends: dict[int, Outcome] | None = None
    ) -> dict[int, Result]:
        await self.come(*instances)
        self.inbox.close()
        async with asyncio.timeout(60):
            await asyncio.gather(self.group.run(), self.send(ends or {}))
        assert len(self.ledger) == 0
        return {result.file.file_id: result for result in self.record.results}


def scanned(path: Path, data: bytes, file_id: int) -> Instance:
    path.write_bytes(data)
    scanner = Scanner(ScanOptions(), Budget(1 << 24))
    (found,) = scanned_by(scanner, [ref_of(os.fsencode(path), file_id)])
    assert isinstance(found, Instance)
    return found


DATA = instance_bytes(study="1.2", series="1.2.1", sop="1.2.3")
OTHER = instance_bytes(study="1.2", series="1.2.1", sop="1.2.3", instance_number=9)


class TestTheSameUidsTwice:
    async def test_of_one_data_set_is_a_duplicate(self, tmp_path: Path) -> None:
        grouping = Grouping()
        results = await grouping.run(
            scanned(tmp_path / "a", DATA, 1), scanned(tmp_path / "b", DATA, 2)
        )
        assert grouping.sent == [1]
        assert (results[2].outcome, results[2].other_file_id) == (Outcome.DUPLICATE, 1)

    async def test_of_two_data_sets_is_a_conflict(self, tmp_path: Path) -> None:
        grouping = Grouping()
        results = await grouping.run(
            scanned(tmp_path / "a", DATA, 1), scanned(tmp_path / "b", OTHER, 2)
        )
        assert grouping.sent == [1]
        assert (results[2].outcome, results[2].other_file_id) == (Outcome.CONFLICT, 1)

    async def test_a_refused_copy_never_blocks_a_good_one(self, tmp_path: Path) -> None:
        grouping = Grouping()
        results = await grouping.run(
            *(scanned(tmp_path / str(n), OTHER if n == 1 else DATA, n) for n in (1, 2, 3)),
            ends={1: Outcome.REJECTED},
        )
        assert grouping.sent == [1, 2]
        outcomes = {n: result.outcome for n, result in results.items()}
        assert outcomes == {1: Outcome.REJECTED, 2: Outcome.STORED, 3: Outcome.DUPLICATE}

    async def test_waits_behind_a_doubt(self, tmp_path: Path) -> None:
        grouping = Grouping()
        results = await grouping.run(
            scanned(tmp_path / "a", DATA, 1),
            scanned(tmp_path / "b", OTHER, 2),
            ends={1: Outcome.IN_DOUBT},
        )
        assert grouping.sent == [1]
        assert (results[2].outcome, results[2].reason_code) == (
            Outcome.FAILED,
            "other_file_in_doubt",
        )

    async def test_waits_behind_a_doubt_of_this_run_that_is_committed(self, tmp_path: Path) -> None:
        """Whether the commit was quicker than the second file must not decide what is sent."""
        grouping = Grouping()
        second = scanned(tmp_path / "b", OTHER, 2)
        grouping.journal[second.key] = Holder(
            1, b"/archive/a", Outcome.IN_DOUBT, 9, 9, None, current=True, decided_now=True
        )
        results = await grouping.run(second)
        assert grouping.sent == []
        assert (results[2].outcome, results[2].reason_code) == (
            Outcome.FAILED,
            "other_file_in_doubt",
        )

    async def test_takes_over_from_a_doubt_of_an_earlier_run_that_is_not_met(self) -> None:
        grouping = Grouping()
        grouping.journal[instance(2).key] = Holder(
            1, b"/archive/a", Outcome.IN_DOUBT, 9, 9, None, current=True
        )
        results = await grouping.run(instance(2))
        assert results[2].outcome is Outcome.STORED

    async def test_is_settled_with_what_the_journal_has(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(DATA)
        status = (tmp_path / "a").stat()
        grouping = Grouping()
        second = scanned(tmp_path / "b", DATA, 2)
        grouping.journal[second.key] = Holder(
            1, os.fsencode(tmp_path / "a"), Outcome.STORED, status.st_size, status.st_mtime_ns,
            hashlib.sha256(DATA).digest(), current=True,
        )  # fmt: skip
        results = await grouping.run(second, scanned(tmp_path / "c", OTHER, 3))
        assert grouping.sent == []
        assert [results[n].outcome for n in (2, 3)] == [Outcome.DUPLICATE, Outcome.CONFLICT]

    async def test_has_not_moved_where_this_run_has_met_the_other_too(self, tmp_path: Path) -> None:
        """Its row would go along, and the end of the other would be written over it."""
        grouping = Grouping()
        copy = scanned(tmp_path / "copy", DATA, 2)
        gone = tmp_path / "gone"
        grouping.journal[copy.key] = Holder(
            1, os.fsencode(gone), Outcome.STORED, len(DATA), 9, copy.sha256, current=True
        )
        listed = file_ref(1, os.fsencode(gone), size=len(DATA))
        grouping.ledger.met([listed])
        await grouping.come(copy)
        grouping.inbox.close()
        await asyncio.gather(grouping.group.run(), grouping.send({}))
        grouping.ledger.decide([Result(listed, Outcome.UNREADABLE, "vanished")])
        (result, _) = grouping.record.results
        assert (result.outcome, result.moved_from) == (Outcome.DUPLICATE, None)
        assert result.other_file_id == 1

    async def test_of_a_file_that_is_gone_by_then_is_unreadable(self, tmp_path: Path) -> None:
        grouping = Grouping()
        first, second = scanned(tmp_path / "a", OTHER, 1), scanned(tmp_path / "b", DATA, 2)
        (tmp_path / "b").unlink()
        results = await grouping.run(first, second)
        assert (results[2].outcome, results[2].reason_code) == (Outcome.UNREADABLE, "vanished")


class TestTheJournal:
    async def test_is_asked_once_for_all_lists_that_wait(self) -> None:
        """A look-up changes threads twice: for each short list it held all others up."""
        grouping = Grouping(limits=BatchLimits(1 << 20, 1000), max_open=10_000)
        asked: list[int] = []

        def find(keys: Sequence[InstanceKey]) -> list[Holder | None]:
            asked.append(len(keys))
            return [None for _ in keys]

        grouping.group._find_holders = find
        for first in range(1, 900, 100):
            await grouping.come(*(instance(first + n) for n in range(100)))
        results = await grouping.run()
        assert len(results) == 900
        assert asked == [600, 300]


class TestABatchThatIsNotComplete:
    async def test_is_sent_where_a_request_could_have_been_under_way_for_200_ms(self) -> None:
        """The largest of them, and no other as long as that keeps the upload busy."""
        grouping = Grouping()
        await grouping.come(instance(1, "1.1"), instance(2, "1.2"), instance(3, "1.2"))
        running = asyncio.create_task(grouping.group.run())
        grouping.idle_s = 0.1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(grouping.out.get(), 3 * TICK_S)
        grouping.idle_s = 0.3
        sent = await asyncio.wait_for(grouping.out.get(), 60)
        grouping.idle_s = 0.0
        assert isinstance(sent, StudyBatch)
        assert [one.file.file_id for one in sent.instances] == [2, 3]
        running.cancel()
        await asyncio.wait([running])

    async def test_is_sent_when_its_study_is_through_and_memory_is_scarce(self) -> None:
        """What is left of many studies would hold all of it, and nothing would be under way."""
        sent = []
        for is_crowded in (False, True):
            grouping = Grouping(limits=BatchLimits(1 << 20, 4))
            grouping.is_crowded = is_crowded
            await grouping.come(instance(1, "1.1"), instance(2, "1.1"))
            await grouping.come(*(instance(n, "1.2") for n in range(3, 7)))
            await grouping.come(instance(7, "1.3"))
            running = asyncio.create_task(grouping.group.run())
            first = await asyncio.wait_for(grouping.out.get(), 60)
            assert isinstance(first, StudyBatch)
            sent.append([one.file.file_id for one in first.instances])
            with suppress(TimeoutError):
                second = await asyncio.wait_for(grouping.out.get(), 3 * TICK_S)
                assert isinstance(second, StudyBatch)
                sent.append([one.file.file_id for one in second.instances])
            running.cancel()
            await asyncio.wait([running])
        assert sent == [[3, 4, 5, 6], [3, 4, 5, 6], [1, 2]]

    async def test_is_sent_when_a_list_that_was_waited_for_turns_out_to_have_nothing_of_it(
        self,
    ) -> None:
        """Nothing else may come for a while: readers wait for the memory that it holds."""
        grouping = Grouping()
        grouping.is_crowded = True
        await grouping.list_comes(1, instance(1, "1.1"))
        await grouping.list_comes(3, instance(2, "1.2"), instance(3, "1.2"))
        await grouping.list_comes(2, whole=False)
        running = asyncio.create_task(grouping.group.run())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(grouping.out.get(), 3 * TICK_S)
        await grouping.list_comes(2)
        sent = await asyncio.wait_for(grouping.out.get(), 60)
        assert isinstance(sent, StudyBatch)
        assert [one.file.file_id for one in sent.instances] == [1]
        running.cancel()
        await asyncio.wait([running])


class TestTheEnd:
    async def test_finds_no_claim_left(self, tmp_path: Path) -> None:
        grouping = Grouping()
        files = [scanned(tmp_path / str(n), DATA, n) for n in range(1, 9)]
        ends = {1: Outcome.FAILED, 2: Outcome.REJECTED, 3: Outcome.TOO_LARGE}
        results = await grouping.run(*files, ends=ends)
        grouping.group.claims.committed(list(results.values()))
        assert len(grouping.group.claims) == 0
        assert grouping.group.claims.waiting == 0

    async def test_gives_every_buffer_of_a_waiting_file_back(self, tmp_path: Path) -> None:
        budget = Budget(1 << 24)
        for n in (1, 2, 3):
            (tmp_path / str(n)).write_bytes(DATA)
        refs = [ref_of(os.fsencode(tmp_path / str(n)), n) for n in (1, 2, 3)]
        found = scanned_by(Scanner(ScanOptions(), budget), refs)
        files = [one for one in found if isinstance(one, Instance)]
        assert budget.in_use_bytes > 0
        await Grouping().run(*files)
        assert files[0].buffer is not None
        files[0].buffer.give_back()
        assert budget.in_use_bytes == 0

    async def test_comes_with_few_places_and_many_files_of_one_uid(self, tmp_path: Path) -> None:
        grouping = Grouping(max_open=2)
        files = [scanned(tmp_path / str(n), DATA, n) for n in range(1, 20)]
        results = await grouping.run(*files)
        assert sorted(results) == list(range(1, 20))
        assert grouping.sent == [1]
        reasons = Counter(result.reason_code for result in results.values())
        assert reasons == {"": 1, "same_data_set": 2, "too_many_waiting": 16}

    async def test_comes_with_few_places_and_many_files_an_earlier_run_left_in_doubt(
        self, tmp_path: Path
    ) -> None:
        """Under other names: each waits until all is met and its holder was not among it."""
        grouping = Grouping(max_open=2)
        files = [
            scanned(
                tmp_path / str(n), instance_bytes(study="1.2", series="1.2.1", sop=f"1.2.3.{n}"), n
            )
            for n in range(1, 20)
        ]
        for file in files:
            grouping.journal[file.key] = Holder(
                100 + file.file.file_id, b"/gone", Outcome.IN_DOUBT, 9, 9, None, current=True
            )
        results = await grouping.run(*files)
        assert sorted(results) == list(range(1, 20))
        assert sorted(grouping.sent) == [1, 2]
        reasons = Counter(result.reason_code for result in results.values())
        assert reasons == {"": 2, "too_many_waiting": 17}


class TestTheJournalsHolder:
    def test_says_whether_this_run_decided_it(self, tmp_path: Path) -> None:
        path = str(tmp_path / "ingester.db")
        first = Session(path)
        doubt = stored(first.ref(b"a"))._replace(outcome=Outcome.IN_DOUBT, evidence=None)
        first.journal.record(doubt)
        first.journal.finish_run(first.run_id, None, RunFigures())
        assert doubt.header is not None
        keys = [InstanceKey(doubt.header.study_instance_uid, doubt.header.sop_instance_uid)]
        (found,) = first.journal.find_holders(keys)
        assert found is not None
        assert found.decided_now
        first.end()
        second = Session(path)
        (found,) = second.journal.find_holders(keys)
        assert found is not None
        assert not found.decided_now
        second.end()
