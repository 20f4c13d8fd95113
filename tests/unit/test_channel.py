from __future__ import annotations

import asyncio
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.channel import Channel, ChannelClosed


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestBounds:
    async def test_a_put_waits_while_the_capacity_is_held(self) -> None:
        channel: Channel[int] = Channel(2)
        await channel.put(1)
        await channel.put(2)
        third = asyncio.create_task(channel.put(3))
        await settle()
        assert not third.done()
        assert channel.held == 2
        assert await channel.get() == 1
        await third
        assert channel.held == 2

    async def test_a_put_may_overshoot_by_one_item(self) -> None:
        channel: Channel[int] = Channel(10)
        await channel.put(1, weight=9)
        await channel.put(2, weight=64)
        assert channel.held == 73

    async def test_an_item_weighs_what_its_producer_says_until_it_is_taken(self) -> None:
        channel: Channel[int] = Channel(100)
        for weight in (5, 7, 11):
            await channel.put(weight, weight=weight)
        taken = []
        for _ in range(3):
            held = channel.held
            item = await channel.get()
            assert held - channel.held == item
            taken.append(item)
        assert taken == [5, 7, 11]
        assert channel.held == 0

    async def test_everybody_for_whom_there_is_room_goes_on(self) -> None:
        """One heavy item that is taken makes room for many light ones."""
        channel: Channel[int] = Channel(10)
        await channel.put(0, weight=10)
        light = [asyncio.create_task(channel.put(n)) for n in range(1, 15)]
        await settle()
        assert await channel.get() == 0
        await settle()
        assert sum(task.done() for task in light) == 10
        for task in light:
            task.cancel()


class TestWhatIsThere:
    async def test_is_taken_in_order_without_waiting_as_long_as_it_fits(self) -> None:
        channel: Channel[int] = Channel(100)
        for n in (1, 2, 9, 3):
            await channel.put(n, weight=n)
        taken = [channel.get_now(lambda n: n < 5) for _ in range(3)]
        assert taken == [1, 2, None]
        assert channel.held == 12
        assert [await channel.get(), channel.get_now(bool), channel.get_now(bool)] == [9, 3, None]

    async def test_waits_behind_what_is_urgent(self) -> None:
        channel: Channel[int] = Channel(100)
        await channel.put(1)
        channel.put_now(2)
        assert channel.get_now(bool) is None
        assert await channel.get() == 2
        assert channel.get_now(bool) == 1

    async def test_makes_room_when_it_is_taken(self) -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        second = asyncio.create_task(channel.put(2))
        await settle()
        assert channel.get_now(bool) == 1
        await asyncio.wait_for(second, 60)


class TestTheUrgentLane:
    async def test_comes_before_what_was_put_earlier(self) -> None:
        channel: Channel[str] = Channel(5)
        await channel.put("a")
        channel.put_now("now")
        assert [await channel.get(), await channel.get()] == ["now", "a"]

    async def test_does_not_wait_and_does_not_weigh(self) -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        for n in range(1, 100):
            channel.put_now(n)
        assert channel.held == 1
        assert len(channel) == 100

    async def test_is_open_after_the_close(self) -> None:
        channel: Channel[int] = Channel(1)
        channel.close()
        channel.put_now(1)
        assert await channel.get() == 1
        with pytest.raises(ChannelClosed):
            await channel.get()

    async def test_get_urgent_leaves_all_others_where_they_are(self) -> None:
        channel: Channel[int] = Channel(5)
        await channel.put(1)
        urgent = asyncio.create_task(channel.get_urgent())
        await channel.put(2)
        await settle()
        assert not urgent.done()
        channel.put_now(3)
        assert await urgent == 3
        assert [await channel.get(), await channel.get()] == [1, 2]


class TestTheClose:
    async def test_lets_what_is_held_be_taken(self) -> None:
        channel: Channel[int] = Channel(5)
        await channel.put(1)
        await channel.put(2)
        channel.close()
        assert [item async for item in channel] == [1, 2]

    async def test_ends_everybody_who_waits_for_an_item(self) -> None:
        channel: Channel[int] = Channel(5)
        getters = [asyncio.create_task(channel.get()) for _ in range(3)]
        await settle()
        channel.close()
        ends = await asyncio.gather(*getters, return_exceptions=True)
        assert [type(end) for end in ends] == [ChannelClosed] * 3

    async def test_refuses_those_who_wait_to_put(self) -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        putters = [asyncio.create_task(channel.put(n)) for n in (2, 3)]
        await settle()
        channel.close()
        ends = await asyncio.gather(*putters, return_exceptions=True)
        assert [type(end) for end in ends] == [ChannelClosed] * 2
        assert [item async for item in channel] == [1]

    async def test_may_be_said_twice(self) -> None:
        channel: Channel[int] = Channel(1)
        channel.close()
        channel.close()
        assert channel.closed


class TestWaitingTimes:
    async def test_point_forward_when_the_channel_is_full(self) -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        before = time.monotonic()
        putter = asyncio.create_task(channel.put(2))
        await settle()
        waits = time.monotonic()
        await asyncio.sleep(0.05)
        waited_s = time.monotonic() - waits
        await channel.get()
        await putter
        assert waited_s <= channel.put_wait_s <= time.monotonic() - before

    async def test_count_a_wait_that_still_goes_on(self) -> None:
        """A server that takes nothing for a minute is the bottleneck of that minute."""
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        putter = asyncio.create_task(channel.put(2))
        await settle()
        waits = time.monotonic()
        await asyncio.sleep(0.05)
        waited_s = time.monotonic() - waits
        assert channel.put_wait_s >= waited_s
        putter.cancel()
        await settle()
        stood = channel.put_wait_s
        await asyncio.sleep(0.02)
        assert channel.put_wait_s == stood >= waited_s

    async def test_are_none_where_nobody_waited(self) -> None:
        channel: Channel[int] = Channel(5)
        for n in range(5):
            await channel.put(n)
            await channel.get()
        assert channel.put_wait_s == 0


class Play:
    """Producers and consumers that are cancelled at any time; every item is numbered."""

    def __init__(self, seed: int, capacity: int) -> None:
        self.random = random.Random(seed)
        self.channel: Channel[int] = Channel(capacity)
        self.put: list[int] = []
        self.got: list[int] = []
        self.next = 0

    async def produce(self, item: int, weight: int) -> None:
        await self.channel.put(item, weight)
        self.put.append(item)

    async def consume(self) -> None:
        self.got.append(await self.channel.get())

    async def run(self) -> None:
        """Chaos, then a quiet end in which everything must be found."""
        tasks: list[asyncio.Task[None]] = []
        for _ in range(120):
            roll = self.random.random()
            if roll < 0.35:
                self.next += 1
                weight = self.random.choice((1, 1, 2, 7))
                tasks.append(asyncio.create_task(self.produce(self.next, weight)))
            elif roll < 0.65:
                tasks.append(asyncio.create_task(self.consume()))
            elif roll < 0.7:
                self.next += 1
                self.channel.put_now(self.next)
                self.put.append(self.next)
            elif roll < 0.85 and tasks:
                self.random.choice(tasks).cancel()
            else:
                await asyncio.sleep(0)
        await settle()
        waiting = [task for task in tasks if not task.done()]
        channel = self.channel
        if len(channel):
            assert not channel._getters, "an item is there and somebody waits for one"
        if channel.held < channel.capacity:
            assert not channel._putters, "there is room and somebody waits for it"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        channel.close()
        self.got += [item async for item in channel]
        assert sorted(self.got) == sorted(self.put)
        assert channel.held == 0


class TestCancellation:
    @pytest.mark.parametrize("capacity", [1, 2, 5])
    async def test_never_loses_an_item_nor_a_wake_up(self, capacity: int) -> None:
        for seed in range(150):
            try:
                await Play(seed, capacity).run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error

    async def test_of_a_getter_that_was_woken_wakes_the_next(self) -> None:
        channel: Channel[int] = Channel(5)
        first, second = (asyncio.create_task(channel.get()) for _ in range(2))
        await settle()
        await channel.put(1)
        first.cancel()
        assert await asyncio.wait_for(second, 60) == 1

    async def test_of_a_putter_that_was_woken_wakes_the_next(self) -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        first, second = (asyncio.create_task(channel.put(n)) for n in (2, 3))
        await settle()
        assert await channel.get() == 1
        first.cancel()
        await asyncio.wait_for(second, 60)
        assert await channel.get() == 3

    @settings(max_examples=60, deadline=None)
    @given(
        items=st.lists(st.integers(1, 100), max_size=60),
        capacity=st.integers(1, 70),
        consumers=st.integers(1, 4),
    )
    def test_order_is_kept_whatever_the_weights(
        self, items: list[int], capacity: int, consumers: int
    ) -> None:
        async def play() -> list[tuple[int, int]]:
            channel: Channel[tuple[int, int]] = Channel(capacity)
            got: list[tuple[int, int]] = []

            async def produce() -> None:
                for number, weight in enumerate(items):
                    assert channel.held < capacity + 100
                    await channel.put((number, weight), weight)
                channel.close()

            async def consume() -> None:
                async for item in channel:
                    got.append(item)  # noqa: PERF401 - in the order of all consumers together

            await asyncio.gather(produce(), *(consume() for _ in range(consumers)))
            return got

        assert asyncio.run(play()) == list(enumerate(items))
