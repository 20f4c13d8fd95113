"""A pace is learned from refusals; the simulation has the figures that must hold."""

from __future__ import annotations

import heapq
from random import Random
from typing import NamedTuple

import pytest

from ingester.transport.limiter import Limiter
from ingester.transport.pace import Pace


class Used(NamedTuple):
    """What a client made of a store that allows so many requests a second."""

    share: float  # of what was allowed without the bucket's first content
    wasted: float  # share of all requests that were refused


def use_a_token_bucket(
    *, allowed_per_s: float, burst: float, latency_s: float, seconds: float, retry_after_s: float
) -> Used:
    """A client of 32 workers that always has work, against a token bucket, in simulated time."""
    random = Random(1)
    now, tokens, filled_at, held_until = 0.0, burst, 0.0, 0.0
    pace, limiter = Pace(now), Limiter(32)
    coming: list[tuple[float, int, str, float, float]] = []
    in_flight = taken = refused = number = 0
    while now < seconds:
        may_start_at = float("inf")
        while in_flight < limiter.limit:
            delay_s = max(pace.delay_s(now), held_until - now)
            if delay_s > 0:
                may_start_at = now + delay_s
                break
            pace.started(now)
            in_flight += 1
            number += 1
            answer_s = latency_s * random.uniform(0.5, 1.5)
            heapq.heappush(coming, (now + answer_s / 2, number, "arrives", now, answer_s))
        if not coming or may_start_at < coming[0][0]:
            now = may_start_at
            continue
        now, which, what, started_at, answer_s = heapq.heappop(coming)
        if what == "arrives":
            tokens, filled_at = min(burst, tokens + (now - filled_at) * allowed_per_s), now
            what = "taken" if tokens >= 1 else "refused"
            tokens -= what == "taken"
            heapq.heappush(coming, (now + answer_s / 2, which, what, started_at, answer_s))
            continue
        if what == "taken":
            taken += 1
            limiter.good(in_flight)
            pace.took(started_at)
        else:
            refused += 1
            limiter.strained(now, started_at)
            pace.complained(now, started_at, retry_after_s)
            held_until = max(held_until, now + retry_after_s)
        in_flight -= 1
    return Used(taken / (allowed_per_s * seconds), refused / (taken + refused))


class TestAStoreThatAllowsTwentyRequestsASecond:
    @pytest.mark.parametrize("latency_s", [0.002, 0.02, 0.1])
    @pytest.mark.parametrize("seconds", [60, 120])
    def test_is_used_to_97_percent_and_wastes_less_than_3(
        self, latency_s: float, seconds: float
    ) -> None:
        used = use_a_token_bucket(
            allowed_per_s=20, burst=20, latency_s=latency_s, seconds=seconds, retry_after_s=1
        )
        assert used.share >= 0.97
        assert used.wasted < 0.03

    def test_as_is_one_of_fifty_with_a_burst_of_a_hundred(self) -> None:
        used = use_a_token_bucket(
            allowed_per_s=50, burst=100, latency_s=0.05, seconds=60, retry_after_s=1
        )
        assert used.share >= 0.97
        assert used.wasted < 0.03


class TestAPace:
    def test_there_is_none_until_the_server_complains(self) -> None:
        pace = Pace(0.0)
        for _ in range(1000):
            pace.started(0.0)
            pace.took(0.0)
        assert pace.rate(1.0) is None
        assert pace.delay_s(1.0) == 0.0

    def test_it_is_what_the_server_took_less_a_little(self) -> None:
        pace = Pace(0.0)
        for _ in range(200):
            pace.took(0.0)
        pace.complained(10.0, 9.9, 0.0)
        assert pace.rate(10.0) == pytest.approx(19.6)

    def test_it_counts_what_was_taken_meanwhile_when_the_answer_comes(self) -> None:
        pace = Pace(0.0)
        for _ in range(190):
            pace.took(1.0)
        pace.complained(10.0, 9.9, 0.0)
        for _ in range(10):
            pace.took(9.8)
        assert pace.rate(10.0) == pytest.approx(19.6)

    def test_it_grows_faster_until_a_second_measurement_says_the_same(self) -> None:
        pace = Pace(0.0)
        for _ in range(10):
            pace.took(0.0)
        pace.complained(0.5, 0.4, 0.0)
        assert (pace.rate(30.5) or 0) > 1.5 * 9.8
        for _ in range(105):
            pace.took(5.0)
        pace.complained(10.5, 10.4, 0.0)
        assert (pace.rate(40.5) or 0) < 1.1 * 9.8

    def test_refusals_of_one_moment_are_one_complaint(self) -> None:
        pace = Pace(0.0)
        for _ in range(200):
            pace.took(0.0)
        for _ in range(20):
            pace.complained(10.0, 9.9, 0.0)
        pace.complained(12.0, 9.95, 0.0)
        assert pace.rate(10.0) == pytest.approx(19.6)

    def test_a_second_complaint_of_a_server_that_took_nothing_halves_it(self) -> None:
        pace = Pace(0.0)
        for _ in range(200):
            pace.took(0.0)
        pace.complained(10.0, 9.9, 0.0)
        before = pace.rate(20.0)
        assert before is not None
        pace.complained(20.0, 19.0, 0.0)
        assert pace.rate(20.0) == pytest.approx(0.98 * before / 2)

    def test_the_first_is_no_slower_than_ten_a_second(self) -> None:
        pace = Pace(0.0)
        pace.took(0.0)
        pace.complained(0.2, 0.1, 0.0)
        assert pace.rate(0.2) == 10.0

    def test_a_second_complaint_says_how_slow_it_must_be(self) -> None:
        pace = Pace(0.0)
        pace.complained(0.2, 0.1, 0.0)
        for second in range(1, 5):
            pace.took(second)
        pace.complained(4.2, 4.1, 0.0)
        assert pace.rate(4.2) == pytest.approx(0.98)

    def test_it_is_never_none_at_all(self) -> None:
        pace = Pace(0.0)
        for at in range(0, 1000, 10):
            pace.complained(float(at), at - 0.1, 0.0)
        pace.started(1000.0)
        assert 0 < pace.delay_s(1000.0) <= 5.0

    def test_a_lifted_limit_is_found_within_minutes(self) -> None:
        pace = Pace(0.0)
        for at in (10.0, 20.0):
            for _ in range(10):
                pace.took(at)
            pace.complained(at, at - 0.1, 0.0)
        first, later = pace.rate(20.0), pace.rate(20.0 + 240)
        assert first is not None
        assert later is not None
        assert later > 10 * first
        assert pace.rate(20.0 + 601) is None

    def test_what_a_hold_kept_back_is_made_up_for_but_no_more_than_a_second(self) -> None:
        pace = Pace(0.0)
        for _ in range(200):
            pace.took(0.0)
        pace.complained(10.0, 9.9, hold_s=60.0)
        at_once = 0
        while pace.delay_s(70.0) == 0:
            pace.started(70.0)
            at_once += 1
        rate = pace.rate(70.0)
        assert rate is not None
        assert at_once == int(rate) > 9
        assert pace.delay_s(80.0) == 0
        for _ in range(int(rate)):
            pace.started(80.0)
        assert pace.delay_s(80.0) > 0, "nothing was held then"

    def test_it_is_forgotten_when_the_server_was_away(self) -> None:
        pace = Pace(0.0)
        pace.complained(1.0, 0.5, 0.0)
        pace.forget(2.0)
        assert pace.rate(2.0) is None
