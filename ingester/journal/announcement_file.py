"""Records that are on the disk before anything else happens, in a file beside the journal.

Why not rows of the journal: a batch waited for the commit that was under way and for its own, with
all the results in it: 72 ms where an fsync takes 20 (benchmarks: ``slow-sync``), here 41.

A record is a header and its payload, in blocks that follow each other. The blocks of a record that
is no longer needed are written again, so the file is as large as what was ever needed at once, and
at most times an fsync changes no metadata. Which records count is not said here: the journal says
it, in the commit of what became of them (``announcements``). A block that does not begin a whole
record of the session is what others have left, or was torn by a crash before it was ``sync``ed.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Final

BLOCK_BYTES: Final = 4096
SESSION_BYTES: Final = 16
_HEADER: Final = struct.Struct(f">{SESSION_BYTES}sQII")  # session, number, bytes, CRC-32
_CRC_MASK: Final = 0xFFFFFFFF


class AnnouncementFile:
    """Open for one session, from construction to ``close``; what was in the file is gone.

    ``take`` and ``free`` are for one thread at a time. All others raise OSError.
    """

    def __init__(self, path: str, session: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
        self._path = path
        self._fd = os.open(path, flags, 0o600)
        os.fchmod(self._fd, 0o600)
        self._session = session
        self._used = bytearray()  # a byte for each block
        _sync_directory(path)

    def take(self, payload_bytes: int) -> range:
        """Free blocks for a record: their numbers."""
        count = -(-(_HEADER.size + payload_bytes) // BLOCK_BYTES)
        start = self._used.find(bytes(count))
        if start < 0:
            start = len(self._used.rstrip(b"\0"))
        self._used[start : start + count] = b"\1" * count
        return range(start, start + count)

    def free(self, blocks: range) -> None:
        """The journal knows that the record in them counts no more."""
        self._used[blocks.start : blocks.stop] = bytes(len(blocks))

    def write(self, blocks: range, number: int, payload: bytes) -> None:
        """Write a record to its blocks; it counts after ``sync``."""
        check = zlib.crc32(payload, number & _CRC_MASK)
        record = _HEADER.pack(self._session, number, len(payload), check) + payload
        left, at = memoryview(record), blocks.start * BLOCK_BYTES
        while left:
            written = os.pwrite(self._fd, left, at)
            left, at = left[written:], at + written

    def sync(self) -> None:
        """Return when all that was put is on the disk."""
        _sync(self._fd)

    def close(self, *, remove: bool) -> None:
        """``remove``: no record counts any more."""
        os.close(self._fd)
        if remove:
            os.unlink(self._path)


def read_records(path: str, session: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and payload of each whole record of the session, in the order of the blocks.

    Raises OSError.
    """
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        for at in range(0, os.fstat(fd).st_size, BLOCK_BYTES):
            header = os.pread(fd, _HEADER.size, at)
            if header.startswith(session) and len(header) == _HEADER.size:
                _, number, size, check = _HEADER.unpack(header)
                payload = os.pread(fd, size, at + _HEADER.size)
                if len(payload) == size and zlib.crc32(payload, number & _CRC_MASK) == check:
                    yield number, payload


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - only there

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone leaves it in the drive's cache
    else:
        os.fdatasync(fd)


def _sync_directory(path: str) -> None:
    """A file that was made is on the disk when its name is."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
