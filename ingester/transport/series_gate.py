"""One request in flight a series, from the moment a server says that two met (ConflictException).

Locks are taken in one order, so no two requests wait for each other; those nobody holds or waits
for are let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary


class SeriesGate:
    """Open until ``close``d."""

    def __init__(self) -> None:
        self.closed = False
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def close(self) -> None:
        """From now on, one at a time."""
        self.closed = True

    @asynccontextmanager
    async def enter(self, series_instance_uids: Iterable[str]) -> AsyncIterator[None]:
        """Hold all these series while a request is under way."""
        if not self.closed:
            yield
            return
        async with AsyncExitStack() as held:
            for uid in sorted(set(series_instance_uids)):
                lock = self._locks.get(uid)
                if lock is None:
                    lock = self._locks[uid] = asyncio.Lock()
                await held.enter_async_context(lock)
            yield
