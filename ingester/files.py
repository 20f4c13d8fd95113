"""Reading source files, and knowing when one is no longer the file it was.

Every function here blocks: they run in reader threads, tell them of progress, and end with
WrittenOff when nobody waits any more. Errors of the file system are OSError, a file that changed
is SourceChanged; neither text names the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ingester.errors import SourceError
from ingester.items import FileIdentity, Root
from ingester.threads import failed, progressed

T = TypeVar("T")

PIECE_BYTES = 1 << 20
"""What is read and sent at once of a file that is not cached whole."""

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A regular file that was replaced by a FIFO or a terminal must not hold a reader."""


MAY_PASS = frozenset({errno.ESTALE, errno.EIO})
"""Errors that may be gone when the file is opened again."""


class SourceChanged(Exception):  # noqa: N818 - a finding about a file, handled as a value above
    """The file is not the one that was read before: other size, times, inode, or fewer bytes."""


def may_not_read(error: PermissionError) -> str:
    """What to do about a source that may not be read."""
    kept = error.errno == errno.EPERM  # modes give EACCES
    system = ", or the system keeps it from this program (macOS: Full Disk Access)" if kept else ""
    return (
        f"let this user list and enter it, and enter each directory above it (r and x){system}; "
        "then give the same command again"
    )


def check_root(root: Root) -> None:
    """Raise SourceError if a root is not what it was when the run started: unmounted, or gone.

    Or if it may not be read any more.
    """
    try:
        device: int | None = os.stat(root.path).st_dev
    except PermissionError as error:
        reason = os.strerror(error.errno or 0)
        raise SourceError(
            f"a source cannot be read any more ({reason}): {os.fsdecode(root.path)}",
            may_not_read(error),
        ) from error
    except OSError:
        device = None
    if device is None or root.device not in (None, device):
        raise SourceError(
            f"a source vanished during the run: {os.fsdecode(root.path)}",
            "is it still mounted? The same command goes on when it is back",
        )


def reopening(read: Callable[[], T]) -> T:
    """What ``read`` gives, which opens a file; once more after an error that may pass.

    Raises as ``read``, or whatever the thread's executor makes of an error that stays.
    """
    try:
        try:
            return read()
        except OSError as error:
            if error.errno not in MAY_PASS:
                raise
        return read()
    except OSError as error:
        failed(error)
        raise


def open_to_read(path: bytes | str) -> int:
    """A descriptor. Waits for nothing but whoever has a lease of a regular file. Raises OSError."""
    try:
        return os.open(path, _OPEN_FLAGS)
    except BlockingIOError:  # told by this to give it up: Samba, where a client caches what it has
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise
        return os.open(path, _OPEN_FLAGS & ~os.O_NONBLOCK)


@contextmanager
def opened(path: bytes) -> Iterator[tuple[int, FileIdentity]]:
    """A read-only descriptor of a regular file, and what it was when it was opened.

    Never blocks on a FIFO. Raises OSError.
    """
    fd = open_to_read(path)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield fd, FileIdentity.from_status(status)
    finally:
        os.close(fd)


def read_into(fd: int, view: memoryview, offset: int = 0) -> int:
    """Fill ``view`` from ``offset``; returns the bytes read, fewer only at the file's end."""
    done, rest = 0, view
    while rest:
        count = os.preadv(fd, [rest], offset + done)
        progressed()
        done += count
        if count == 0 or done == len(view):
            break
        rest = view[done:]
    return done


def read_again(path: bytes, identity: FileIdentity, view: memoryview) -> None:
    """Read a whole file of a known identity into ``view`` of its size.

    Raises:
        OSError: it cannot be opened or read.
        SourceChanged: before, after, or while it was read it was another file.
    """
    with opened(path) as (fd, found):
        if found != identity:
            raise SourceChanged
        if read_into(fd, view) != identity.size or FileIdentity.of(fd) != identity:
            raise SourceChanged


def pieces_of(path: bytes, identity: FileIdentity) -> Iterator[memoryview]:
    """The bytes of a file of a known identity, in pieces that are good until the next.

    Raises as read_again; SourceChanged, if it changed meanwhile, after the last piece.
    """
    piece = memoryview(bytearray(min(PIECE_BYTES, max(1, identity.size))))
    with opened(path) as (fd, found):
        if found != identity:
            raise SourceChanged
        offset = 0
        while count := read_into(fd, piece, offset):
            yield piece[:count]
            offset += count
        if offset != identity.size or FileIdentity.of(fd) != identity:
            raise SourceChanged


def sha256_of(path: bytes, start: int = 0) -> tuple[bytes, FileIdentity]:
    """SHA-256 of a file from byte ``start``, with the identity it had. Raises as read_again."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(PIECE_BYTES))
    with opened(path) as (fd, identity):
        offset = start
        while count := read_into(fd, piece, offset):
            digest.update(piece[:count])
            offset += count
        if FileIdentity.of(fd) != identity or offset < identity.size:
            raise SourceChanged
    return digest.digest(), identity
