from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.arena import Arena, Region
from ingester.budget import (
    LEAD_BYTES,
    SMALLEST_BUFFER_BYTES,
    Budget,
    Buffer,
    cost_of,
    size_class_of,
)

MIB = 1 << 20
PAGE = SMALLEST_BUFFER_BYTES
ONE_PAGE = PAGE - LEAD_BYTES
"""A file that costs a page."""

REGIONS_WITH_PAGES = """
import json, mmap, sys
mmap.PAGESIZE = int(sys.argv[1])
from ingester.budget import Budget
from ingester.readers import Readers
budget = Budget(1 << 30)
buffers = [budget.take(size) for size in (0, 1, 4000, 5000, 70_000, 300_000, 1_048_577, 9_000_000)]
readers = Readers([], arena=budget.arena)
regions = [*(buffer._data for buffer in buffers), readers.piece(), readers.piece()]
print(json.dumps([(region.place, len(region)) for region in regions]))
"""
"""A system with other pages cannot be had here, but one that says so."""


class TestSizeClasses:
    @given(st.integers(0, 1 << 40))
    def test_are_at_most_an_eighth_more_or_a_page(self, size: int) -> None:
        got = size_class_of(size)
        assert size <= got <= max(size * 9 / 8 + 1, size + SMALLEST_BUFFER_BYTES)
        assert got % SMALLEST_BUFFER_BYTES == 0

    @given(st.integers(1, 1 << 30), st.integers(0, 1 << 20))
    def test_grow_with_the_size(self, size: int, more: int) -> None:
        assert size_class_of(size) <= size_class_of(size + more)

    @given(st.integers(1, 1 << 30))
    def test_are_classes(self, size: int) -> None:
        assert size_class_of(size_class_of(size)) == size_class_of(size)

    @pytest.mark.skipif(PAGE > 4096, reason="those of a system with small pages")
    @pytest.mark.parametrize(
        ("size", "size_class"),
        [
            (0, 4096),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (65536, 65536),
            (65537, 73728),
            (MIB, MIB),
            (MIB + 1, MIB + MIB // 8),
        ],
    )
    def test_are(self, size: int, size_class: int) -> None:
        assert size_class_of(size) == size_class


class TestThePlaceOfABuffer:
    @pytest.mark.parametrize("page", [4096, 16_384, 65_536])
    def test_shares_no_page_with_another(self, page: int) -> None:
        """Its pages are given back to the system by themselves, and are zeros from then on."""
        told = subprocess.run(
            [sys.executable, "-c", REGIONS_WITH_PAGES, str(page)],
            stdout=subprocess.PIPE,
            check=True,
        )
        regions = json.loads(told.stdout)
        assert len(regions) == 10
        assert [region for region in regions if region[0] % page or region[1] % page] == []


class TestABuffer:
    def test_is_as_long_as_was_asked_for(self) -> None:
        buffer = Budget(MIB).take(1000)
        assert buffer is not None
        assert len(buffer) == 1000
        assert buffer.view is not None
        assert not buffer.view.readonly

    def test_has_no_bytes_once_it_was_given_back(self) -> None:
        budget = Budget(MIB)
        buffer = budget.take(1000)
        assert buffer is not None
        buffer.give_back()
        assert (buffer.view, len(buffer), budget.in_use_bytes) == (None, 0, 0)

    @pytest.mark.parametrize("first", [Buffer.give_back, Buffer.drop])
    @pytest.mark.parametrize("second", [Buffer.give_back, Buffer.drop])
    def test_ends_once(self, first: object, second: object) -> None:
        budget = Budget(MIB)
        buffer, other = budget.take(1000), budget.take(1000)
        assert buffer is not None
        assert other is not None
        for end in (first, second):
            assert callable(end)
            end(buffer)
        assert budget.in_use_bytes == other.size_class

    def test_that_was_given_back_is_used_again(self) -> None:
        budget = Budget(MIB)
        first = budget.take(5000)
        assert first is not None
        data = first._data
        first.give_back()
        second = budget.take(8000)
        assert second is not None
        assert second._data is data
        assert len(second) == 8000

    def test_has_room_for_what_is_sent_before_it(self) -> None:
        buffer = Budget(MIB).take(5)
        assert buffer is not None
        assert buffer.view is not None
        buffer.view[:] = b"bytes"
        for lead in (b"", b"--b\r\n\r\n", b"x" * LEAD_BYTES):
            assert bytes(buffer.after(lead)) == lead + b"bytes"
        assert bytes(buffer.view) == b"bytes"

    def test_takes_no_second_copy_for_that(self) -> None:
        buffer = Budget(MIB).take(5)
        assert buffer is not None
        assert buffer.view is not None
        sent = buffer.after(b"lead")
        buffer.view[:] = b"later"
        assert bytes(sent) == b"leadlater"

    def test_that_was_dropped_is_never_used_again(self) -> None:
        """A transport that was aborted may still point at it."""
        budget = Budget(MIB)
        first = budget.take(5000)
        assert first is not None
        data = first._data
        first.drop()
        second = budget.take(5000)
        assert second is not None
        assert second._data is not data
        assert budget.in_use_bytes == second.size_class


class NoThirdRegion(Arena):
    def __init__(self) -> None:
        super().__init__()
        self.regions = 0

    def region(self, size: int) -> Region:
        self.regions += 1
        if self.regions == 3:
            raise MemoryError
        return super().region(size)


class TestTheBudget:
    def test_refuses_instead_of_waiting(self) -> None:
        budget = Budget(2 * PAGE + 1000)
        assert budget.take(PAGE + ONE_PAGE) is not None
        assert budget.take(ONE_PAGE) is None
        assert budget.refused == 1

    def test_counts_the_class_not_the_size(self) -> None:
        budget = Budget(3 * PAGE)
        assert [budget.take(1) is None for _ in range(4)] == [False, False, False, True]

    @given(st.integers(1, 4 * MIB))
    def test_counts_what_it_says_a_file_costs(self, size: int) -> None:
        budget = Budget(8 * MIB)
        assert budget.take(size) is not None
        assert budget.in_use_bytes == cost_of(size) >= size + LEAD_BYTES

    def test_is_crowded_when_open_batches_have_more_than_a_quarter(self) -> None:
        budget = Budget(4 * PAGE)
        taken = [budget.take(ONE_PAGE) for _ in range(4)]
        crowded = []
        for buffer in taken:
            assert buffer is not None
            buffer.stay()
            crowded.append(budget.is_crowded())
        assert crowded == [False, True, True, True]
        for buffer in taken[:3]:
            assert buffer is not None
            buffer.leave()
        assert not budget.is_crowded()

    def test_refuses_what_is_larger_than_all_of_it(self) -> None:
        budget = Budget(MIB)
        assert budget.take(2 * MIB) is None
        assert budget.in_use_bytes == 0

    def test_lets_kept_buffers_go_for_others(self) -> None:
        budget = Budget(MIB)
        small = [budget.take(ONE_PAGE) for _ in range(MIB // PAGE)]
        for buffer in small:
            assert buffer is not None
            buffer.give_back()
        large = budget.take(MIB - LEAD_BYTES)
        assert large is not None
        assert budget._kept_bytes == 0
        assert sum(map(len, budget._kept.values())) == 0

    @given(st.integers(0, 2**32), st.integers(1, 4))
    def test_never_holds_more_than_its_total(self, seed: int, times_4_mib: int) -> None:
        chance, total = random.Random(seed), times_4_mib * MIB
        budget, held = Budget(total), list[Buffer]()
        for _ in range(60):
            if held and chance.random() < 0.45:
                buffer = held.pop(chance.randrange(len(held)))
                buffer.drop() if chance.random() < 0.3 else buffer.give_back()
            elif (taken := budget.take(chance.choice((0, 10, 70_000, 300_000, MIB)))) is not None:
                held.append(taken)
            kept = sum(size * len(some) for size, some in budget._kept.items())
            assert kept == budget._kept_bytes >= 0
            assert budget.in_use_bytes == sum(buffer.size_class for buffer in held)
            assert budget.in_use_bytes + kept <= total
            assert budget.in_use_bytes <= budget.peak_bytes <= total

    async def test_gives_many_as_one_after_the_other(self) -> None:
        budget, buffers = Budget(4 * PAGE), list[Buffer | None]()
        promise = await budget.promise(PAGE)
        budget.take_all([0, 1, PAGE, 3 * PAGE, 9 * PAGE, 2], 4 * PAGE, buffers, promise)
        assert [buffer and len(buffer) for buffer in buffers] == [None, 1, PAGE, None, None, 2]
        assert (budget.refused, budget.in_use_bytes, budget.peak_bytes) == (1, 4 * PAGE, 4 * PAGE)
        assert (promise.bytes_left, promise.bytes_out, budget.promised_bytes) == (0, 4 * PAGE, 0)

    def test_has_handed_over_what_was_taken_before_there_is_no_memory(self) -> None:
        budget, buffers = Budget(MIB), list[Buffer | None]()
        budget.arena = NoThirdRegion()
        with pytest.raises(MemoryError):
            budget.take_all([100] * 5, MIB, buffers)
        assert [buffer is None for buffer in buffers] == [False, False]

    def test_takes_many_back_as_one_after_the_other(self) -> None:
        budget = Budget(MIB)
        taken = [budget.take(size) for size in (100, 5000, 100, 9000)]
        buffers = [buffer for buffer in taken if buffer is not None]
        data = buffers[0]._data
        buffers[1].drop()
        buffers[2].stay()
        budget.take_back([*buffers[:3], buffers[0]])
        assert [buffer.view is None for buffer in buffers] == [True, True, True, False]
        assert budget.in_use_bytes == buffers[3].size_class
        assert (budget.staying_bytes, budget._kept_bytes) == (0, 2 * cost_of(100))
        assert data in budget._kept[cost_of(100)]

    def test_is_for_many_threads(self) -> None:
        budget, broken = Budget(64 * PAGE), list[str]()

        def work(seed: int) -> None:
            chance = random.Random(seed)
            for turn in range(1500):
                buffer = budget.take(chance.choice((100, 5000, 20_000)))
                if buffer is None or buffer.view is None:
                    continue
                mark = bytes([seed]) * 8
                buffer.view[:8] = mark
                if bytes(buffer.view[:8]) != mark:
                    broken.append(f"thread {seed}, turn {turn}")
                buffer.drop() if turn % 7 == 0 else buffer.give_back()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert broken == []
        assert budget.in_use_bytes == 0
        assert budget._kept_bytes <= budget.total_bytes >= budget.peak_bytes


class TestAPromise:
    async def test_keeps_bytes_for_whoever_has_it(self) -> None:
        budget = Budget(3 * PAGE)
        promise = await budget.promise(2 * PAGE)
        assert (budget.promised_bytes, budget.in_use_bytes) == (2 * PAGE, 0)
        assert budget.take(ONE_PAGE) is not None
        assert budget.take(ONE_PAGE) is None
        assert budget.take(ONE_PAGE, promise) is not None
        assert (promise.bytes_left, budget.promised_bytes, budget.in_use_bytes) == (
            PAGE,
            PAGE,
            2 * PAGE,
        )

    async def test_that_was_ended_keeps_nothing(self) -> None:
        budget = Budget(2 * PAGE)
        promise = await budget.promise(2 * PAGE)
        promise.end()
        promise.end()
        assert budget.promised_bytes == 0
        assert budget.take(PAGE + ONE_PAGE) is not None
        assert budget.take(ONE_PAGE, promise) is None

    async def test_may_be_exceeded_by_what_others_leave(self) -> None:
        budget = Budget(4 * PAGE)
        promise = await budget.promise(PAGE)
        assert budget.take(PAGE + ONE_PAGE, promise) is not None
        assert (promise.bytes_left, budget.promised_bytes, budget.in_use_bytes) == (0, 0, 2 * PAGE)

    async def test_is_of_nothing_where_all_bytes_stay(self) -> None:
        """In batches that are open they may stay until more files are read."""
        budget = Budget(PAGE)
        staying = budget.take(ONE_PAGE)
        assert staying is not None
        staying.stay()
        assert (await asyncio.wait_for(budget.promise(PAGE), 10)).bytes_left == 0

    @pytest.mark.parametrize("end", [Buffer.give_back, Buffer.drop])
    async def test_waits_for_bytes_that_come_back(self, end: Callable[[Buffer], None]) -> None:
        budget = Budget(2 * PAGE)
        first, second = budget.take(ONE_PAGE), budget.take(ONE_PAGE)
        assert first is not None
        assert second is not None
        first.stay()
        first.leave()
        waiting = asyncio.create_task(budget.promise(PAGE))
        await asyncio.sleep(0)
        assert not waiting.done()
        end(first)
        assert (await asyncio.wait_for(waiting, 10)).bytes_left == PAGE
        assert budget.staying_bytes == 0

    async def test_waits_no_longer_than_any_may_come_back(self) -> None:
        budget = Budget(2 * PAGE)
        first, second = budget.take(ONE_PAGE), budget.take(ONE_PAGE)
        assert first is not None
        assert second is not None
        waiting = asyncio.create_task(budget.promise(2 * PAGE))
        await asyncio.sleep(0)
        first.give_back()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        second.stay()
        assert (await asyncio.wait_for(waiting, 10)).bytes_left == 0

    async def test_does_not_wait_for_a_reader_that_is_stuck(self) -> None:
        budget = Budget(PAGE)
        lost = await budget.promise(PAGE)
        assert budget.take(ONE_PAGE, lost) is not None
        waiting = asyncio.create_task(budget.promise(PAGE))
        await asyncio.sleep(0)
        assert not waiting.done()
        lost.end(stuck=True)
        assert (await asyncio.wait_for(waiting, 10)).bytes_left == 0

    async def test_waits_again_when_the_bytes_of_one_that_was_stuck_are_back(self) -> None:
        """A mount hangs now and then, for months: what came back is on the move like any other."""
        budget = Budget(2 * PAGE)
        for back in (Buffer.give_back, Buffer.drop):
            lost = await budget.promise(PAGE)
            taken = budget.take(ONE_PAGE, lost)
            assert taken is not None
            lost.end(stuck=True)
            back(taken)
        moving = [budget.take(ONE_PAGE), budget.take(ONE_PAGE)]
        waiting = asyncio.create_task(budget.promise(PAGE))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert moving[0] is not None
        moving[0].give_back()
        assert (await asyncio.wait_for(waiting, 10)).bytes_left == PAGE

    async def test_is_kept_when_a_reader_fails_in_its_thread(self) -> None:
        budget = Budget(PAGE)
        failed = budget.take(ONE_PAGE)
        assert failed is not None
        waiting = asyncio.create_task(budget.promise(PAGE))
        await asyncio.sleep(0)
        await asyncio.to_thread(failed.give_back)
        assert (await asyncio.wait_for(waiting, 10)).bytes_left == PAGE

    async def test_of_more_than_there_is_is_of_all_there_is(self) -> None:
        budget = Budget(PAGE)
        assert (await budget.promise(MIB)).bytes_left == PAGE

    async def test_is_given_to_one_after_the_other(self) -> None:
        budget = Budget(2 * PAGE)
        leaving = [budget.take(ONE_PAGE), budget.take(ONE_PAGE)]
        for buffer in leaving:
            assert buffer is not None
        waiting = [asyncio.create_task(budget.promise(PAGE)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        for buffer in leaving:
            assert buffer is not None
            buffer.give_back()
        got = [await asyncio.wait_for(each, 10) for each in waiting[1:]]
        assert [each.bytes_left for each in got] == [PAGE, PAGE]
