from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingester.reading_order import ReadingOrder


class TestLists:
    def test_are_numbered_as_they_are_taken(self) -> None:
        order = ReadingOrder()
        assert [order.take() for _ in range(3)] == [1, 2, 3]

    def test_that_came_in_order_are_read_up_to_the_last(self) -> None:
        order = ReadingOrder()
        for number in (1, 2, 3):
            assert order.take() == number
            assert order.read_up_to(number) == number
            order.read(number)
            assert order.read_up_to(None) == number

    def test_are_read_up_to_the_one_before_the_oldest_in_hand(self) -> None:
        order = ReadingOrder()
        for _ in range(4):
            order.take()
        assert order.read_up_to(3) == 0
        order.read(3)
        order.read(1)
        assert order.read_up_to(4) == 1
        assert order.read_up_to(2) == 3

    def test_of_which_a_part_is_handed_over_are_still_in_hand(self) -> None:
        order = ReadingOrder()
        order.take()
        assert order.read_up_to(None) == 0

    @given(st.lists(st.integers(0, 7)))
    def test_are_read_up_to_one_below_which_none_is_in_hand(self, steps: list[int]) -> None:
        order, in_hand = ReadingOrder(), list[int]()
        for step in steps:
            if step < len(in_hand):
                order.read(in_hand.pop(step))
            else:
                in_hand.append(order.take())
            up_to = order.read_up_to(None)
            assert all(number > up_to for number in in_hand)
            assert up_to + 1 in in_hand or not in_hand
