from __future__ import annotations

import pytest

from ingester.returning import ONE_IN, PAUSE, Returning


def wrong(returning: Returning, now: int) -> int:
    """What was guessed came back until a pause began; returns when that ends."""
    while returning.may_guess(now):
        returning.guessed()
        returning.came_back(now)
    end = now
    while not returning.may_guess(end):
        end += PAUSE
    return end


def right(returning: Returning, guesses: int) -> None:
    for _ in range(guesses):
        returning.guessed()


class TestGuessing:
    def test_begins_at_once(self) -> None:
        assert Returning().may_guess(0)

    @pytest.mark.parametrize("one_in", [ONE_IN + 1, 100])
    def test_goes_on_where_few_come_back(self, one_in: int) -> None:
        returning = Returning()
        for now in range(50_000):
            returning.guessed()
            if now % one_in == 0:
                returning.came_back(now)
            assert returning.may_guess(now)

    def test_pauses_longer_each_time(self) -> None:
        returning = Returning()
        first = wrong(returning, 5)
        second = wrong(returning, first)
        third = wrong(returning, second)
        assert (first - 5, second - first, third - second) == (PAUSE, 2 * PAUSE, 4 * PAUSE)

    def test_pauses_as_at_first_after_it_was_right_for_as_long(self) -> None:
        """In an archive of many parts one that is spread says nothing of the next but one."""
        returning = Returning()
        now = wrong(returning, wrong(returning, 0)) + 4 * PAUSE
        assert wrong(returning, now) - now == PAUSE

    def test_is_judged_by_its_latest(self) -> None:
        """A million right ones do not allow for a hundred thousand wrong ones."""
        returning = Returning()
        right(returning, 1_000_000)
        wrong_ones = 0
        while returning.may_guess(0):
            returning.guessed()
            returning.came_back(0)
            wrong_ones += 1
        assert wrong_ones < 250

    def test_is_not_judged_by_what_comes_back_during_a_pause(self) -> None:
        returning = Returning()
        end = wrong(returning, 0)
        for _ in range(1000):
            returning.came_back(1)
        assert returning.may_guess(end)
