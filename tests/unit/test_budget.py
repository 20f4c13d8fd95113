from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.budget import SMALLEST_BUFFER_BYTES, Budget, Buffer, size_class_of

MIB = 1 << 20


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


class TestTheBudget:
    def test_refuses_instead_of_waiting(self) -> None:
        budget = Budget(10_000)
        assert budget.take(8192) is not None
        assert budget.take(4096) is None
        assert budget.refused == 1

    def test_counts_the_class_not_the_size(self) -> None:
        budget = Budget(3 * 4096)
        assert [budget.take(1) is None for _ in range(4)] == [False, False, False, True]

    def test_refuses_what_is_larger_than_all_of_it(self) -> None:
        budget = Budget(MIB)
        assert budget.take(2 * MIB) is None
        assert budget.in_use_bytes == 0

    def test_lets_kept_buffers_go_for_others(self) -> None:
        budget = Budget(MIB)
        small = [budget.take(4096) for _ in range(256)]
        for buffer in small:
            assert buffer is not None
            buffer.give_back()
        large = budget.take(MIB)
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

    def test_is_for_many_threads(self) -> None:
        budget, broken = Budget(64 * 4096), list[str]()

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
