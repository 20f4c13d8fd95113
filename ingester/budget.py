"""The one count of cached file bytes: who gets a buffer, and when it is free again.

Readers ask without waiting: where no bytes are left, only a file's head is read and the file is
opened again at upload, so nothing can deadlock on memory. But whoever is about to read a list waits
for a promise of its bytes as long as any others are on the move: all but those that *stay*, in
batches that are still open. So an archive that comes study by study is opened once.

Buffers are reused, because fresh blocks cost twice as much as the read itself (page faults). They
come in size classes an eighth of a power of two apart; what counts against the budget is the class,
in use or kept for reuse.

Thread-safe but for promises: reader threads take; the event loop promises, and says what stays,
leaves and comes back.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

from ingester.arena import Arena, Region

SMALLEST_BUFFER_BYTES = max(4096, mmap.PAGESIZE)
"""No two share a page: the arena gives whole pages back to the system, which are zeros then."""
LEAD_BYTES = 128
"""Before a file's bytes there is room for what precedes them in a body: they are written together,
one call of the transport instead of two (9 % of the CPU of a run, `archive` over TLS)."""


@lru_cache(4096)  # of one series all files have the same size, and each is asked for twice
def cost_of(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes of the budget."""
    return size_class_of(LEAD_BYTES + size)


def size_class_of(size: int) -> int:
    """Bytes set aside for ``size`` bytes: at most an eighth more, at least one page."""
    step = max(SMALLEST_BUFFER_BYTES, 1 << max(0, size - 1).bit_length() >> 4)
    return max(1, -(-size // step)) * step


class Buffer:
    """A file's cached bytes. ``view`` is None once they were given back."""

    __slots__ = ("_data", "budget", "place", "promise", "size_class", "stays", "view")

    def __init__(
        self, budget: Budget, data: Region, size: int, size_class: int, promise: Promise | None
    ) -> None:
        self.budget = budget
        self.promise = promise
        self._data: Region | None = data
        self.place = None if data.place is None else data.place + LEAD_BYTES  # in the arena
        self.stays = False
        self.size_class = size_class
        self.view: memoryview | None = data.view[LEAD_BYTES : LEAD_BYTES + size]

    def after(self, lead: bytes) -> memoryview:
        """``lead``, of at most LEAD_BYTES, and right after it the file's bytes: still there."""
        assert self._data is not None  # noqa: S101 - asked for by who has seen the bytes
        start = LEAD_BYTES - len(lead)
        self._data.view[start:LEAD_BYTES] = lead
        return self._data.view[start : LEAD_BYTES + len(self)]

    def stay(self) -> None:
        """It is in a batch that is open: without more input it may not come back. On the loop."""
        self.budget.stay((self,))

    def leave(self) -> None:
        """Its batch is closed: whatever becomes of that, it will come back. On the loop."""
        if self.stays:
            self.stays = False
            self.budget.staying_bytes -= self.size_class

    def give_back(self) -> None:
        """Return the bytes for reuse: only when no transport can still read them."""
        if self._data is not None:
            self.budget.take_back((self,))

    def drop(self) -> None:
        """Forget the bytes without reuse: a transport that was aborted may still point at them."""
        if self._data is not None:
            self.budget.take_back((self,), reuse=False)

    def end(self) -> Region | None:
        """Let go of the bytes; returns where they lie, the first time. For ``take_back`` alone."""
        data, self._data, self.view = self._data, None, None
        if self.stays:
            self.leave()
        return data

    def __len__(self) -> int:
        return 0 if self.view is None else len(self.view)


class Promise:
    """Bytes that are set aside for files about to be read; what they do not take is ``end``ed."""

    __slots__ = ("_budget", "bytes_left", "bytes_out", "stuck")

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self.bytes_left = size
        self.bytes_out = 0  # that were taken and are not back
        self.stuck = False

    def end(self, *, stuck: bool = False) -> None:
        """Nobody reads on it any more, or somebody may for ever. On the loop."""
        self._budget._unpromised(self, stuck=stuck)  # noqa: SLF001 - the same


class Budget:
    """Counts cached bytes against ``total_bytes`` and keeps freed buffers by size class."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.arena = Arena()
        self.in_use_bytes = 0
        self.staying_bytes = 0  # of these; the loop's alone
        self._stuck_bytes = 0  # the same; taken by readers that may not come back
        self.promised_bytes = 0  # beside these
        self._peak_bytes = 0
        self.refused = 0
        self._turn = asyncio.Lock()
        self._awaited: tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._kept_bytes = 0
        self._kept = defaultdict[int, list[Region]](list)
        self._lock = threading.Lock()

    @property
    def peak_bytes(self) -> int:
        """The most that was in use at once: noted where it becomes less, not for each file."""
        return max(self._peak_bytes, self.in_use_bytes)

    def is_crowded(self) -> bool:
        """Whether open batches hold so much that little is left to read into and to send from.

        A quarter: then no file of `archive` is opened twice (30 % of them were, without this), and
        with a half, batches that wait for a slow disk had too little (`slow-sync` 0.87, not 0.94).
        """
        return self.staying_bytes > self.total_bytes // 4

    async def promise(self, size: int) -> Promise:
        """``size`` bytes, or none where there are too few and no others come back.

        One at a time. Ended by whoever has it.
        """
        size = min(size, self.total_bytes)
        async with self._turn:
            while self._lacks(size) and self._others_move():
                await self._wait_for(size)
            with self._lock:
                promise = Promise(self, 0 if self._lacks(size) else size)
                self.promised_bytes += promise.bytes_left
        return promise

    def _lacks(self, size: int) -> bool:
        return self.in_use_bytes + self.promised_bytes + size > self.total_bytes

    async def _wait_for(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        self._awaited = size, loop, loop.create_future()
        try:
            if self._lacks(size) and self._others_move():  # a reader may have failed since
                await self._awaited[2]
        finally:
            self._awaited = None

    def _others_move(self) -> bool:
        moving = self.in_use_bytes + self.promised_bytes - self.staying_bytes
        return moving > self._stuck_bytes

    def take(self, size: int, promise: Promise | None = None) -> Buffer | None:
        """A buffer of at least ``size`` bytes, or None when the budget has none. Never waits."""
        with self._lock:
            return self._taken(size, promise)

    def take_all(
        self,
        sizes: Iterable[int],
        limit: int,
        buffers: list[Buffer | None],
        promise: Promise | None = None,
    ) -> None:
        """Add one of each size to ``buffers``; None also for what is empty or above the limit."""
        with self._lock:
            for size in sizes:
                fits = 0 < size <= limit
                buffers.append(self._taken(size, promise) if fits else None)

    def _taken(self, size: int, promise: Promise | None) -> Buffer | None:
        """The same, with the lock held."""
        size_class = cost_of(size)
        left = 0 if promise is None else promise.bytes_left
        beyond = size_class - left if left < size_class else 0
        if self.in_use_bytes + self.promised_bytes + beyond > self.total_bytes:
            self.refused += 1
            return None
        self.in_use_bytes += size_class
        if promise is not None:
            promise.bytes_left -= size_class - beyond
            self.promised_bytes -= size_class - beyond
            promise.bytes_out += size_class
            if promise.stuck:
                self._stuck_bytes += size_class
        kept = self._kept.get(size_class)
        if kept:
            self._kept_bytes -= size_class
            return Buffer(self, kept.pop(), size, size_class, promise)
        self._trim()
        return Buffer(self, self.arena.region(size_class), size, size_class, promise)

    def stay(self, buffers: Sequence[Buffer]) -> None:
        """All of these are in batches that are open; see Buffer. On the loop."""
        for buffer in buffers:
            if buffer.view is not None and not buffer.stays:
                buffer.stays = True
                self.staying_bytes += buffer.size_class
        self._tell()  # fewer are on the move

    def take_back(self, buffers: Sequence[Buffer], *, reuse: bool = True) -> None:
        """As ``give_back`` of each, or ``drop``; those that have no bytes any more do not count."""
        with self._lock:
            self._peak_bytes, back = self.peak_bytes, 0
            for buffer in buffers:
                data = buffer.end()
                if data is None:
                    continue
                size_class, promise = buffer.size_class, buffer.promise
                back += size_class
                if promise is not None:
                    promise.bytes_out -= size_class
                    if promise.stuck:
                        self._stuck_bytes -= size_class
                if reuse:
                    self._kept[size_class].append(data)
            self.in_use_bytes -= back
            if reuse:
                self._kept_bytes += back
        self._tell()

    def _trim(self) -> None:
        """Let kept buffers of other classes go until used and kept bytes fit together."""
        for size_class, kept in self._kept.items():
            while kept and self.in_use_bytes + self._kept_bytes > self.total_bytes:
                kept.pop()
                self._kept_bytes -= size_class

    def _unpromised(self, promise: Promise, *, stuck: bool) -> None:
        with self._lock:
            self.promised_bytes -= promise.bytes_left
            promise.bytes_left = 0
            promise.stuck = stuck
            self._stuck_bytes += promise.bytes_out if stuck else 0
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits, where that helps. Mostly on the loop, but a reader may fail."""
        awaited = self._awaited
        if awaited is not None and not (self._lacks(awaited[0]) and self._others_move()):
            _, loop, woken = awaited
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_set, woken)


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
