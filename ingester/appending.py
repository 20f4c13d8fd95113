"""Files of lines that are kept: private, appended to, never in the middle of another line."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

LONGEST_TORN_BYTES = 1 << 20
"""Longer than any line: a path of 4,096 bytes escaped fourfold, a server's words, UIDs."""


def open_private(path: str) -> int:
    """A descriptor to append to. A regular file is made private and ends with a whole line.

    Raises OSError; FileExistsError for a file that is not one of lines of JSON.
    """
    # Not blocking: a FIFO that nobody reads is an error, not a run that hangs.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, mode=0o600)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENXIO}:
            raise
        fd = os.open(path, flags & ~os.O_RDWR | os.O_WRONLY, mode=0o600)
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
