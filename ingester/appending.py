"""Files of lines that are kept: private, appended to, never in the middle of another line."""

from __future__ import annotations

import errno
import os
import stat


def open_private(path: str) -> int:
    """A descriptor to append to. A regular file is made private and ends with a whole line.

    Raises OSError.
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
        os.fchmod(fd, 0o600)
        if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
            os.write(fd, b"\n")  # a line that was torn: it must not take the next one along
    return fd
