"""A limit of requests a second: 429 and 503 by turns, with Retry-After."""

from pathlib import Path

import pytest

from ingester.emulator.answers import Refusal
from ingester.emulator.throttle import Throttle
from tests.unit.emulator.wire import instance, multipart, running


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(throttle: Throttle, most: int = 1000) -> int:
    for count in range(most):
        try:
            throttle.take()
        except Refusal:
            return count
    return most


class TestABucket:
    def test_holds_what_a_second_brings(self) -> None:
        clock = Clock()
        throttle = Throttle(10, clock=clock)
        assert taken(throttle) == 10
        clock.now += 0.5
        assert taken(throttle) == 5
        clock.now += 100
        assert taken(throttle) == 10

    def test_may_hold_more(self) -> None:
        assert taken(Throttle(50, 100, Clock())) == 100

    def test_says_by_turns_429_and_503_and_how_long_to_wait(self) -> None:
        throttle = Throttle(0.25, clock=Clock())
        throttle.take()
        refusals = []
        for _ in range(3):
            with pytest.raises(Refusal) as refusal:
                throttle.take()
            refusals.append(refusal.value)
        assert [it.status for it in refusals] == [429, 503, 429]
        assert {it.kind for it in refusals} == {"ThrottlingException"}
        assert [dict(it.headers or {}) for it in refusals] == [{"Retry-After": "4"}] * 3

    @pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
    def test_of_nothing_is_refused(self, rate: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            Throttle(rate)


class TestAnEmulator:
    async def test_with_max_rps_lets_no_more_through(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_rps=0.01) as client:
            answers = [await client.post(multipart(instance())) for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 429, 503]
            assert answers[1].headers["Retry-After"] == "100"
            assert answers[1].headers["x-amzn-errortype"] == "ThrottlingException"
            assert client.emulator.requests == 3

    async def test_with_wado_rps_limits_only_that(self, tmp_path: Path) -> None:
        async with running(tmp_path, wado_rps=0.01) as client:
            await client.post(multipart(instance()))
            path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
            assert (await client.get(path, "*/*")).status == 200
            assert (await client.get(path, "*/*")).status == 429
            assert (await client.get(f"{path}/metadata")).status == 503
            assert (await client.get("/instances")).status == 200
