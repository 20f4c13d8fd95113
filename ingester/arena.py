"""Memory that this process shares with those that read files for it: where cached bytes lie.

Gives regions of whole pages, by their size; each is one object that lends its bytes as long as
anybody has a view of them, and whose place is free again when the last view is gone: a transport
that was aborted may hold one for a while. Pages of a region that is gone are given back to the
system. Bounds: none of its own, the budget counts.

Where the system has no memory without a name to share, regions are ordinary memory, without a
place: then nobody else can read for this process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from contextlib import suppress

SEGMENT_BYTES = 64 << 20
"""Mapped at once, here and in every process that reads: pages count when they are written."""


class Region:
    """``size`` bytes at ``place``; ``view`` lends them."""

    __slots__ = ("place", "view")

    def __init__(self, view: memoryview, place: int | None) -> None:
        self.view = view
        self.place = place

    def __len__(self) -> int:
        return len(self.view)


class Segments:
    """The mapped parts of a shared file, by number; each larger than what lies in it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._mapped: dict[int, mmap.mmap] = {}
        self._views: dict[int, memoryview] = {}

    def at(self, place: int) -> tuple[mmap.mmap, int]:
        """The segment of a place and the offset in it. Raises OSError."""
        number, offset = divmod(place, SEGMENT_BYTES)
        segment = self._mapped.get(number)
        if segment is None:
            start = number * SEGMENT_BYTES
            segment = self._mapped[number] = mmap.mmap(self._fd, SEGMENT_BYTES, offset=start)
        return segment, offset

    def view(self, place: int, size: int) -> memoryview:
        """The bytes of a place. Raises OSError."""
        number, offset = divmod(place, SEGMENT_BYTES)
        whole = self._views.get(number)
        if whole is None:
            whole = self._views[number] = memoryview(self.at(place)[0])
        return whole[offset : offset + size]


class Arena:
    """Gives regions; ``fd`` is what a process needs to see them, None where there is no sharing."""

    def __init__(self) -> None:
        self.fd: int | None = None
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        if hasattr(os, "memfd_create"):
            with suppress(OSError):
                self.fd = os.memfd_create("ingester", os.MFD_CLOEXEC)
                self._closer = weakref.finalize(self, os.close, self.fd)
                self._segments = Segments(self.fd)

    def region(self, size: int) -> Region:
        """A region of ``size`` bytes, a multiple of a page; of ordinary memory at worst."""
        if self.fd is not None and size <= SEGMENT_BYTES:
            with suppress(OSError):  # a limit on the size of files holds for this one, too
                return self._shared(size)
        return Region(memoryview(bytearray(size)), None)

    def _shared(self, size: int) -> Region:
        with self._lock:
            free = self._free.setdefault(size, [])
            place = free.pop() if free else self._new_place(size)
            segment, offset = self._segments.at(place)
        lender = (ctypes.c_char * size).from_buffer(segment, offset)
        weakref.finalize(lender, _let_go, segment, offset, size, free, place).atexit = False
        return Region(memoryview(lender).cast("B"), place)

    def _new_place(self, size: int) -> int:
        assert self.fd is not None  # noqa: S101 - asked by who has seen it
        left = SEGMENT_BYTES - self._end % SEGMENT_BYTES
        place = self._end if size <= left else self._end + left
        if place % SEGMENT_BYTES == 0:
            os.ftruncate(self.fd, place + SEGMENT_BYTES)
        self._end = place + size
        return place


def _let_go(segment: mmap.mmap, offset: int, size: int, free: list[int], place: int) -> None:
    with suppress(OSError, ValueError):  # where it cannot, the pages stay for the next region
        segment.madvise(mmap.MADV_REMOVE, offset, size)
    free.append(place)
