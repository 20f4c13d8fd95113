from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence

import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.items import FileRef, Result
from ingester.ledger import Ledger
from tests.unit.road import Recorded, file_ref


def files(count: int) -> list[FileRef]:
    return [file_ref(n, b"/archive/%d" % n, size=10) for n in range(1, count + 1)]


class Slow(Recorded):
    """A journal without room until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.room = asyncio.Event()

    async def wait_for_room(self) -> None:
        await self.room.wait()


async def begun(waiting: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """A task that has got as far as it can."""
    task = asyncio.create_task(waiting)
    await asyncio.sleep(0)
    return task


class TestCounting:
    def test_what_was_met_is_undecided_until_it_ends(self) -> None:
        record = Recorded()
        ledger = Ledger(record)
        ledger.met(files(3))
        assert (ledger.files_met, ledger.bytes_met, len(ledger)) == (3, 30, 3)
        ledger.decide([Result(files(3)[1], Outcome.NOT_DICOM)])
        assert [file.file_id for file in ledger.undecided] == [1, 3]
        assert [ledger.awaits(number) for number in (1, 2, 9)] == [True, False, False]
        assert record.outcomes == {b"2": Outcome.NOT_DICOM}

    def test_what_needs_no_work_is_met_and_seen(self) -> None:
        record = Recorded()
        ledger = Ledger(record)
        ledger.seen(files(4))
        ledger.seen([])
        assert (ledger.files_met, ledger.bytes_met, len(ledger)) == (4, 40, 0)
        assert record.sightings == files(4)

    def test_what_is_met_again_on_its_way_is_not_new(self) -> None:
        ledger = Ledger(Recorded())
        assert ledger.met(files(2)) == files(2)
        assert ledger.met(files(3)) == files(3)[2:]
        assert (ledger.files_met, ledger.bytes_met, len(ledger)) == (3, 30, 3)

    def test_a_file_ends_once(self) -> None:
        ledger = Ledger(Recorded())
        ledger.met(files(1))
        ledger.decide([Result(files(1)[0], Outcome.STORED)])
        with pytest.raises(KeyError):
            ledger.decide([Result(files(1)[0], Outcome.FAILED)])

    def test_a_file_that_was_never_met_does_not_end(self) -> None:
        record = Recorded()
        with pytest.raises(KeyError):
            Ledger(record).decide([Result(files(1)[0], Outcome.STORED)])
        assert record.results == []

    def test_listeners_hear_of_it_after_the_record_in_the_same_tick(self) -> None:
        record = Recorded()
        ledger = Ledger(record)
        heard: list[tuple[int, int]] = []

        def listen(results: Sequence[Result]) -> None:
            heard.append((len(results), len(record.results)))

        ledger.listen(listen)
        ledger.met(files(2))
        ledger.decide([Result(file, Outcome.INVALID) for file in files(2)])
        ledger.decide([])
        assert heard == [(2, 2)]


class TestTheWaitForRoom:
    async def test_counts_from_the_first_who_waits_to_the_last(self) -> None:
        record = Slow()
        ledger = Ledger(record)
        before = time.monotonic()
        first = await begun(ledger.wait_for_room())
        waits = time.monotonic()
        await asyncio.sleep(0.03)
        second = await begun(ledger.wait_for_room())
        await asyncio.sleep(0.03)
        waited_s = time.monotonic() - waits
        record.room.set()
        await asyncio.gather(first, second)
        assert waited_s <= ledger.room_wait_s <= time.monotonic() - before

    async def test_counts_time_once_however_many_wait(self) -> None:
        record = Slow()
        ledger = Ledger(record)
        before = time.monotonic()
        waiting = [await begun(ledger.wait_for_room()) for _ in range(50)]
        waits = time.monotonic()
        await asyncio.sleep(0.03)
        waited_s = time.monotonic() - waits
        record.room.set()
        await asyncio.gather(*waiting)
        assert waited_s <= ledger.room_wait_s <= time.monotonic() - before

    async def test_counts_a_wait_that_still_goes_on(self) -> None:
        ledger = Ledger(Slow())
        waiting = await begun(ledger.wait_for_room())
        waits = time.monotonic()
        await asyncio.sleep(0.03)
        waited_s = time.monotonic() - waits
        assert waited_s <= ledger.room_wait_s
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stood = ledger.room_wait_s
        await asyncio.sleep(0.02)
        assert ledger.room_wait_s == stood
