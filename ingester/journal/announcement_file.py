"""Records that are on the disk before anything else happens, in a file beside the journal.

Why not rows of the journal: a batch waited for the commit that was under way and for its own, with
all the results in it: 72 ms where an fsync takes 20, here 32; 24 ms on a disk that is quick, here
5 (``archive``). With the first a run had no request on its way for 65 % of the time.

A record is a header and its payload, in blocks that follow each other. The blocks of a record that
is no longer needed are written again, so the file is as large as what was ever needed at once, and
at most times an fsync changes no metadata. Which records count is not said here: the journal says
it, in the commit of what became of them (``announcements``). A block that does not begin a whole
record of the session is what others have left, or was torn by a crash before it was ``sync``ed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ingester.errors import JournalError

BLOCK_BYTES: Final = 4096
SESSION_BYTES: Final = 16
_MAGIC: Final = b"ING1sent"  # of each record, and so of the file
_HEADER: Final = struct.Struct(f">{len(_MAGIC)}s{SESSION_BYTES}sQI")  # session, number, bytes
_CHECK: Final = struct.Struct(">I")  # CRC-32 of header and payload
_HEAD_BYTES: Final = _HEADER.size + _CHECK.size
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO hangs nobody


class AnnouncementFile:
    """Open for one session, from construction to ``close``; what was in the file is gone.

    ``take`` and ``free`` are for one thread at a time. Construction raises OSError, and
    JournalError where the file is somebody else's; ``write`` and ``sync`` raise OSError.
    """

    def __init__(self, path: str, session: bytes) -> None:
        self._path = path
        self._session = session
        self._used = bytearray()  # a byte for each block
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            _refuse_foreign(self._fd, path)
            os.ftruncate(self._fd, 0)
            os.fchmod(self._fd, 0o600)
            os.fsync(self._fd)
            _sync_directory(path)
        except BaseException:
            os.close(self._fd)
            raise

    def take(self, payload_bytes: int) -> range:
        """Free blocks for a record: their numbers."""
        count = -(-(_HEAD_BYTES + payload_bytes) // BLOCK_BYTES)
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
        header = _HEADER.pack(_MAGIC, self._session, number, len(payload))
        check = _CHECK.pack(zlib.crc32(payload, zlib.crc32(header)))
        left, at = memoryview(header + check + payload), blocks.start * BLOCK_BYTES
        while left:
            written = os.pwrite(self._fd, left, at)
            left, at = left[written:], at + written

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - only there

            with suppress(OSError):  # a file system that cannot; then as SQLite does
                fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache
                return
            os.fsync(self._fd)
        else:
            os.fdatasync(self._fd)

    def close(self, *, remove: bool) -> None:
        """``remove``: the journal knows that there need be none. Idempotent.

        One that cannot be removed says nothing.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with suppress(OSError):
            os.close(fd)
        if remove:
            with suppress(OSError):
                os.unlink(self._path)


def read_records(path: str, session: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and payload of each whole record of the session, in the order of the blocks.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        size_of_file = status.st_size
        for at in range(0, size_of_file, BLOCK_BYTES):
            head = os.pread(fd, _HEAD_BYTES, at)
            if not head.startswith(_MAGIC + session) or len(head) < _HEAD_BYTES:
                continue
            _, _, number, size = _HEADER.unpack_from(head)
            if at + _HEAD_BYTES + size > size_of_file:
                continue
            payload = os.pread(fd, size, at + _HEAD_BYTES)
            check = _CHECK.pack(zlib.crc32(payload, zlib.crc32(head[: _HEADER.size])))
            if head.endswith(check):
                yield number, payload
    finally:
        os.close(fd)


def _refuse_foreign(fd: int, path: str) -> None:
    """What is there is lost: it must be an earlier one, or nothing.

    Zeros are what a power cut leaves where a file's new size came to the disk before its bytes.
    """
    nothing = (b"", bytes(len(_MAGIC)))
    if stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(_MAGIC), 0) in (_MAGIC, *nothing):
        return
    raise JournalError(
        f"a file that is not the journal's has a name that it needs: {path}",
        "move it away, or name another file with --journal",
    )


def _sync_directory(path: str) -> None:
    """A file that was made is on the disk when its name is: where that can be asked for."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)
