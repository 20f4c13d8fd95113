from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.reading_order import FURTHEST, ReadingOrder


def up_to(*came: int) -> list[int]:
    """Up to which list all had come, after each of these."""
    order = ReadingOrder()
    seen = []
    for number in came:
        order.came(number)
        seen.append(order.read_up_to)
    return seen


class TestLists:
    @pytest.mark.parametrize(
        ("came", "read_up_to"),
        [
            ([1, 2, 3], [1, 2, 3]),
            ([2, 3, 1], [0, 0, 3]),
            ([1, 4, 3, 2, 5], [1, 1, 1, 4, 5]),
        ],
    )
    def test_have_come_up_to_the_one_before_the_first_that_is_missing(
        self, came: list[int], read_up_to: list[int]
    ) -> None:
        assert up_to(*came) == read_up_to

    def test_that_were_overtaken_by_many_are_not_waited_for(self) -> None:
        """A reader may hang in a file for a minute."""
        order = ReadingOrder()
        for number in range(2, FURTHEST + 2):
            order.came(number)
        assert order.read_up_to == FURTHEST + 1
        order.came(1)
        assert order.read_up_to == FURTHEST + 1

    @given(st.integers(1, FURTHEST), st.integers(0, 1000))
    def test_have_all_come_whoever_reads(self, readers: int, seed: int) -> None:
        chance = random.Random(seed)
        order, in_hand, taken, came = ReadingOrder(), list[int](), 0, set[int]()
        for _ in range(300):
            while len(in_hand) < readers:
                taken += 1
                in_hand.append(taken)
            number = in_hand.pop(0 if in_hand[0] <= taken - FURTHEST else chance.randrange(readers))
            order.came(number)
            came.add(number)
            assert set(range(1, order.read_up_to + 1)) <= came
            assert order.read_up_to + 1 not in came
