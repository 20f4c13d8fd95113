"""The queue between two stages: bounded by items, closed forward by its producer, and measured.

Why not asyncio.Queue: it cannot be closed before Python 3.13, cannot weigh a list of 64 files as
64, and does not say how long producers waited, which is what names the bottleneck of a run.
Why not anyio's memory streams: 24 times slower a hand-over, and under native cancellation they
lost items (measurements, 'Queues and shutdown').
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """A channel as its producer sees it."""

    async def put(self, item: T_contra, weight: int = 1) -> None:
        """See Channel."""
        ...

    def close(self) -> None:
        """See Channel."""
        ...


class ChannelClosed(Exception):  # noqa: N818 - an end, not an error
    """The producer has closed the channel and everything in it was taken."""


class Waiting:
    """Seconds that were spent inside of it, by all who entered; those who still are count."""

    def __init__(self) -> None:
        self._ended_s = 0.0
        self._inside = 0
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """Up to now."""
        return self._ended_s + self._inside * (time.monotonic() - self._since)

    def __enter__(self) -> None:
        self._move(1)

    def __exit__(self, *_: object) -> None:
        self._move(-1)

    def _move(self, entered: int) -> None:
        self._ended_s, self._since = self.seconds, time.monotonic()
        self._inside += entered


class Channel(Generic[T]):
    """Hands items of a weight from producers to consumers.

    ``put`` waits while ``capacity`` or more is held, so a put may overshoot by one item. How long
    producers waited is kept: who takes from a full channel holds the run up.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._put_waits = Waiting()
        self._closed = False
        self._items: deque[tuple[T, int]] = deque()
        self._urgent: deque[T] = deque()
        self._putters: deque[asyncio.Future[None]] = deque()
        self._getters: deque[asyncio.Future[None]] = deque()

    async def put(self, item: T, weight: int = 1) -> None:
        """Add an item, waiting for room. Raises ChannelClosed if there is no consumer any more."""
        if self.held >= self.capacity and not self._closed:
            with self._put_waits:
                while self.held >= self.capacity and not self._closed:
                    await self._wait(self._putters)
        if self._closed:
            raise ChannelClosed
        self._items.append((item, weight))
        self.held += weight
        _wake_one(self._getters)
        if self.held < self.capacity:
            _wake_one(self._putters)  # one heavy item that is taken makes room for many

    def put_now(self, item: T) -> None:
        """Add an item that is taken before all others, without waiting and even after the close.

        For what comes back against the stream and is bounded elsewhere.
        """
        self._urgent.append(item)
        _wake_one(self._getters)

    async def get_urgent(self) -> T:
        """The next item of ``put_now``; all others stay where they are. One consumer only."""
        while not self._urgent:
            await self._wait(self._getters)
        return self._urgent.popleft()

    async def get(self) -> T:
        """The next item. Raises ChannelClosed when it is closed and empty."""
        while not self and not self._closed:
            await self._wait(self._getters)
        if self._urgent:
            return self._urgent.popleft()
        if not self._items:
            raise ChannelClosed
        return self._pop()

    def get_now(self, fits: Callable[[T], bool]) -> T | None:
        """The next item, if one is there, nothing is urgent, and it ``fits``; never waits.

        For a consumer to whom many at once cost less than one after the other.
        """
        if self._urgent or not self._items or not fits(self._items[0][0]):
            return None
        return self._pop()

    def _pop(self) -> T:
        item, weight = self._items.popleft()
        self.held -= weight
        if self.held < self.capacity:
            _wake_one(self._putters)
        return item

    def close(self) -> None:
        """No more items will come. What is held can still be taken."""
        self._closed = True
        for waiters in (self._getters, self._putters):
            while waiters:
                _wake_one(waiters)

    @property
    def put_wait_s(self) -> float:
        """Seconds that producers have waited for room, all of them together."""
        return self._put_waits.seconds

    @property
    def closed(self) -> bool:
        """Whether the producer has ended."""
        return self._closed

    def __len__(self) -> int:
        return len(self._items) + len(self._urgent)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except ChannelClosed:
            raise StopAsyncIteration from None

    async def _wait(self, waiters: deque[asyncio.Future[None]]) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in waiters:
                waiters.remove(waiter)
            elif waiter.done() and not waiter.cancelled():
                _wake_one(waiters)  # the wake-up was meant for somebody who can use it
            raise


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return
