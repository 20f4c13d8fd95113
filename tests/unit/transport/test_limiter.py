from __future__ import annotations

from ingester.transport.limiter import Limiter


def rounds(limiter: Limiter, count: int) -> list[int]:
    """The limit after each round in which everything under way is answered well."""
    limits = []
    for _ in range(count):
        for _ in range(limiter.limit):
            limiter.good(limiter.limit)
        limits.append(limiter.limit)
    return limits


class TestSlowStart:
    def test_doubles_a_round_of_answers(self) -> None:
        assert rounds(Limiter(100), 4) == [8, 16, 32, 64]

    def test_ends_at_the_most_that_was_asked_for(self) -> None:
        assert rounds(Limiter(32), 5) == [8, 16, 32, 32, 32]

    def test_begins_no_higher_than_that(self) -> None:
        assert Limiter(2).limit == 2

    def test_does_not_grow_a_limit_that_is_not_used(self) -> None:
        limiter = Limiter(32)
        for _ in range(100):
            limiter.good(3)
        assert limiter.limit == 4


class TestAfterTheFirstStrain:
    def test_a_whole_limit_of_answers_adds_one(self) -> None:
        limiter = Limiter(100)
        rounds(limiter, 2)
        limiter.strained(10.0, 9.0)
        assert limiter.limit == 11
        assert rounds(limiter, 3) == [12, 13, 14]

    def test_it_takes_three_tenths_once_a_second_at_most(self) -> None:
        limiter = Limiter(100)
        rounds(limiter, 4)
        for _ in range(16):
            limiter.strained(10.0, 9.5)
        limiter.strained(10.9, 10.5)
        assert limiter.limit == int(64 * 0.7)
        limiter.strained(11.0, 10.5)
        assert limiter.limit == int(64 * 0.7 * 0.7)

    def test_what_was_under_way_then_is_not_a_new_strain(self) -> None:
        limiter = Limiter(100)
        rounds(limiter, 4)
        limiter.strained(10.0, 9.5)
        limiter.strained(20.0, 9.9)
        assert limiter.limit == int(64 * 0.7)

    def test_one_is_the_least(self) -> None:
        limiter = Limiter(100)
        for second in range(50):
            limiter.strained(float(second), second - 0.1)
        assert limiter.limit == 1
        assert rounds(limiter, 3) == [2, 2, 3]

    def test_a_server_that_was_away_is_a_new_one(self) -> None:
        limiter = Limiter(100)
        limiter.strained(1.0, 0.5)
        limiter.restart()
        assert rounds(limiter, 2) == [8, 16]
