"""The one count of cached file bytes: who gets a buffer, and when it is free again.

Readers ask without waiting: where no bytes are left, only a file's head is read and the file is
opened again at upload, so nothing can deadlock on memory. Buffers are reused, because fresh blocks
cost twice as much as the read itself (page faults). They come in size classes an eighth of a power
of two apart; what counts against the budget is the class, in use or kept for reuse.

Thread-safe: reader threads take, the event loop gives back.
"""

from __future__ import annotations

import threading

SMALLEST_BUFFER_BYTES = 4096


def size_class_of(size: int) -> int:
    """Bytes set aside for ``size`` bytes: at most an eighth more, at least one page."""
    step = max(SMALLEST_BUFFER_BYTES, 1 << max(0, size - 1).bit_length() >> 4)
    return max(1, -(-size // step)) * step


class Buffer:
    """A file's cached bytes. ``view`` is None once they were given back."""

    __slots__ = ("_budget", "_data", "size_class", "view")

    def __init__(self, budget: Budget, data: bytearray, size: int) -> None:
        self._budget = budget
        self._data: bytearray | None = data
        self.size_class = len(data)
        self.view: memoryview | None = memoryview(data)[:size]

    def give_back(self) -> None:
        """Return the bytes for reuse: only when no transport can still read them."""
        if self._data is not None:
            data, self._data, self.view = self._data, None, None
            self._budget._returned(data)  # noqa: SLF001 - the two halves of one ledger

    def drop(self) -> None:
        """Forget the bytes without reuse: a transport that was aborted may still point at them."""
        if self._data is not None:
            self._data, self.view = None, None
            self._budget._dropped(self.size_class)  # noqa: SLF001 - the same

    def __len__(self) -> int:
        return 0 if self.view is None else len(self.view)


class Budget:
    """Counts cached bytes against ``total_bytes`` and keeps freed buffers by size class."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.in_use_bytes = 0
        self.peak_bytes = 0
        self.refused = 0
        self._kept_bytes = 0
        self._kept: dict[int, list[bytearray]] = {}
        self._lock = threading.Lock()

    def take(self, size: int) -> Buffer | None:
        """A buffer of at least ``size`` bytes, or None when the budget has none. Never waits."""
        size_class = size_class_of(size)
        with self._lock:
            if self.in_use_bytes + size_class > self.total_bytes:
                self.refused += 1
                return None
            self.in_use_bytes += size_class
            self.peak_bytes = max(self.peak_bytes, self.in_use_bytes)
            kept = self._kept.get(size_class)
            if kept:
                self._kept_bytes -= size_class
                return Buffer(self, kept.pop(), size)
            self._trim()
        return Buffer(self, bytearray(size_class), size)

    def _trim(self) -> None:
        """Let kept buffers of other classes go until used and kept bytes fit together."""
        for size_class, kept in self._kept.items():
            while kept and self.in_use_bytes + self._kept_bytes > self.total_bytes:
                kept.pop()
                self._kept_bytes -= size_class

    def _returned(self, data: bytearray) -> None:
        with self._lock:
            self.in_use_bytes -= len(data)
            self._kept_bytes += len(data)
            self._kept.setdefault(len(data), []).append(data)

    def _dropped(self, size_class: int) -> None:
        with self._lock:
            self.in_use_bytes -= size_class
