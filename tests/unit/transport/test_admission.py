from __future__ import annotations

import asyncio
import signal
import time

import pytest

from ingester.control import StopControl
from ingester.transport.admission import Admission, Turn
from ingester.transport.retry import LONGEST_WAIT_S


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def enter(admission: Admission) -> Turn:
    turn = await asyncio.wait_for(admission.enter(), 10)
    assert turn is not None
    return turn


class TestTheLimit:
    async def test_is_four_at_first(self) -> None:
        admission = Admission(32, StopControl())
        waiting = [asyncio.create_task(admission.enter()) for _ in range(6)]
        await settle()
        assert admission.in_flight == 4
        admission.leave(await enter_done(waiting[0]), "other")
        await settle()
        assert [task.done() for task in waiting] == [True] * 5 + [False]
        waiting[5].cancel()
        await asyncio.wait([waiting[5]])

    async def test_those_who_wait_go_in_their_order(self) -> None:
        admission = Admission(1, StopControl())
        order: list[int] = []

        async def take(number: int) -> None:
            turn = await enter(admission)
            order.append(number)
            admission.leave(turn, "good")

        first = await enter(admission)
        tasks = [asyncio.create_task(take(number)) for number in range(5)]
        await settle()
        admission.leave(first, "good")
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    async def test_one_that_is_cancelled_while_it_waits_takes_no_turn(self) -> None:
        admission = Admission(1, StopControl())
        first = await enter(admission)
        gone = asyncio.create_task(admission.enter())
        await settle()
        gone.cancel()
        await asyncio.wait([gone])
        admission.leave(first, "good")
        await enter(admission)
        assert admission.in_flight == 1

    async def test_one_that_is_cancelled_with_its_turn_in_hand_passes_it_on(self) -> None:
        admission = Admission(1, StopControl())
        first = await enter(admission)
        gone = asyncio.create_task(admission.enter())
        other = asyncio.create_task(admission.enter())
        await settle()
        admission.leave(first, "good")  # gives the turn, before the task can run
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
        await asyncio.wait_for(other, 10)
        assert admission.in_flight == 1


class TestAHold:
    async def test_lasts_until_its_time(self) -> None:
        admission, since = Admission(4, StopControl()), time.monotonic()
        admission.hold(0.05)
        await enter(admission)
        assert time.monotonic() - since >= 0.05

    async def test_is_never_shortened(self) -> None:
        admission, since = Admission(4, StopControl()), time.monotonic()
        admission.hold(0.05)
        admission.hold(0.0)
        await enter(admission)
        assert time.monotonic() - since >= 0.05

    async def test_that_is_extended_holds_those_who_wait_already(self) -> None:
        admission, since = Admission(4, StopControl()), time.monotonic()
        admission.hold(0.03)
        waiting = asyncio.create_task(enter(admission))
        await settle()
        admission.hold(0.08)
        await waiting
        assert time.monotonic() - since >= 0.08

    @pytest.mark.parametrize("seconds", [1e9, float("inf")])
    async def test_is_an_hour_at_most(self, seconds: float) -> None:
        admission = Admission(4, StopControl(), clock=lambda: 100.0)
        admission.hold(seconds)
        assert admission._held_until == 100.0 + LONGEST_WAIT_S

    async def test_ends_with_the_run(self) -> None:
        stop = StopControl()
        admission = Admission(4, stop)
        admission.hold(600)
        waiting = asyncio.create_task(admission.enter())
        await settle()
        stop.request(signal.SIGTERM)
        assert await asyncio.wait_for(waiting, 5) is None
        assert await admission.enter() is None
        assert admission.in_flight == 0


class TestAServerThatIsAway:
    async def test_gets_one_probe_at_a_time(self) -> None:
        now = 0.0
        admission = Admission(32, StopControl(), clock=lambda: now)
        admission.is_away("gone")
        now = 1.0
        waiting = [asyncio.create_task(admission.enter()) for _ in range(3)]
        await settle()
        assert [task.done() for task in waiting] == [True, False, False]
        assert (await enter_done(waiting[0])).probe
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])

    async def test_gets_none_before_its_time(self) -> None:
        now = 0.0
        admission = Admission(32, StopControl(), clock=lambda: now)
        admission.is_away("gone")
        waiting = asyncio.create_task(admission.enter())
        await settle()
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])

    async def test_that_is_back_is_sent_to_as_before(self) -> None:
        now = 0.0
        admission = Admission(32, StopControl(), clock=lambda: now)
        admission.is_away("gone")
        waiting = [asyncio.create_task(admission.enter()) for _ in range(6)]
        await settle()
        admission.is_back()
        await settle()
        assert sum(task.done() for task in waiting) == 4
        assert not (await enter_done(waiting[0])).probe
        for task in waiting[4:]:
            task.cancel()
        await asyncio.wait(waiting[4:])


async def enter_done(task: asyncio.Task[Turn | None]) -> Turn:
    turn = await task
    assert turn is not None
    return turn
