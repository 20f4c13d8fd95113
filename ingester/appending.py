"""Files of lines that are kept: private, appended to, never in the middle of another line."""

from __future__ import annotations

import errno
import os
import select
import stat

import msgspec

LONGEST_TORN_BYTES = 1 << 20
"""Longer than any line: a path of 4,096 bytes escaped fourfold, a server's words, UIDs."""


def open_private(path: str) -> int:
    """A descriptor to append to. A regular file is made private and ends with a whole line.

    Raises OSError; FileExistsError for a file that is not one of lines of JSON.
    """
    fd = _open(path)
    os.set_blocking(fd, True)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        try:
            _refuse_foreign(fd)
            os.fchmod(fd, 0o600)
            _end_torn_line(fd, status.st_size)
        except BaseException:
            os.close(fd)
            raise
    return fd


def append(fd: int, data: bytes, patience_s: float) -> None:
    """Write all of it to a descriptor that does not block, as one of a pipe.

    Raises OSError; TimeoutError if the reader of a pipe takes nothing for so long.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            room = select.poll()
            room.register(fd, select.POLLOUT)
            if not room.poll(patience_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "its reader takes nothing") from None


def _open(path: str) -> int:
    """To read and write, where that can be.

    A FIFO to write alone, without waiting: the error is here if nobody reads it, and EPIPE later.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    fifo = _is_fifo(path)
    if not fifo:
        try:
            return os.open(path, flags | os.O_RDWR, mode=0o600)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EPERM, errno.EINVAL}:
                raise
    try:
        return os.open(path, flags | os.O_WRONLY, mode=0o600)
    except OSError as error:
        if fifo and error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a FIFO that nobody reads") from None
        raise


def _is_fifo(path: str) -> bool:
    """Asked before it is opened: its reader would see an end when it is closed again."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _refuse_foreign(fd: int) -> None:
    """It may be an image of the archive."""
    if os.pread(fd, 1, 0) not in {b"", b"{"}:
        raise FileExistsError(errno.EEXIST, "a file that holds something else")


def _end_torn_line(fd: int, size: int) -> None:
    """A line that a kill or a full disk has torn goes; a whole one, or another's, is ended."""
    start = max(0, size - LONGEST_TORN_BYTES)
    tail = os.pread(fd, size - start, start)
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    if torn.startswith(b"{") and len(torn) < LONGEST_TORN_BYTES and not _is_json(torn):
        os.ftruncate(fd, size - len(torn))
    else:
        os.write(fd, b"\n")  # it must not take the next line along


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True
