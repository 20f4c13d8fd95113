"""Small cached files that go out in one write.

Why: a write is a call of aiohttp, of the transport and of TLS, whatever its size. Copied together,
files of 1 KiB take 6 to 11 % less CPU and 5 to 13 % less time (benchmarks: 200,000 of ``million``),
of 32 KiB 3 to 6 and 3 to 8 % (``small``); of 100 KB the copies cost more than they save
(``archive``, 6 %), and with 512 KiB together the gain is gone.
"""

from __future__ import annotations

from typing import Final

from ingester.budget import Buffer

SMALL_BYTES: Final = 64 << 10
TOGETHER_BYTES: Final = 256 << 10


class SmallFiles:
    """Of one body, in order; at most one more than TOGETHER_BYTES: time to ``take`` them."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._buffers: list[Buffer] = []
        self.size = 0  # bytes, with what precedes them

    def __len__(self) -> int:
        return len(self._buffers)

    def add(self, lead: bytes, buffer: Buffer) -> bool:
        """What precedes a file in the body, and its bytes, if it is small and they are there."""
        view = buffer.view
        if view is None:
            return False
        size = len(view)
        if not 0 < size <= SMALL_BYTES:
            return False
        self._parts += (lead, view)
        self._buffers.append(buffer)
        self.size += len(lead) + size
        return True

    def take(self, end: bytes = b"") -> bytes:
        """All of them, and ``end``; their buffers are free."""
        joined = b"".join((*self._parts, end))
        if self._buffers:
            self._buffers[0].budget.take_back(self._buffers)
        self.clear()
        return joined

    def clear(self) -> None:
        """Let go of what was not written: the buffers stay with their files."""
        self._parts.clear()
        self._buffers.clear()
        self.size = 0
