"""Reading source files, and knowing when one is no longer the file it was.

Every function here blocks: they run in reader threads. Errors of the file system are OSError,
a file that changed is SourceChanged; neither text names the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ingester.items import FileIdentity

PIECE_BYTES = 1 << 20
"""What is read and sent at once of a file that is not cached whole."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A regular file that was replaced by a FIFO or a terminal must not hold a reader."""


class SourceChanged(Exception):  # noqa: N818 - a finding about a file, handled as a value above
    """The file is not the one that was read before: other size, times, inode, or fewer bytes."""


@contextmanager
def opened(path: bytes) -> Iterator[int]:
    """A read-only descriptor of a regular file, never blocking on a FIFO. Raises OSError."""
    fd = os.open(path, OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield fd
    finally:
        os.close(fd)


def read_into(fd: int, view: memoryview, offset: int = 0) -> int:
    """Fill ``view`` from ``offset``; returns the bytes read, fewer only at the file's end."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def read_again(path: bytes, identity: FileIdentity, view: memoryview) -> None:
    """Read a whole file of a known identity into ``view`` of its size.

    Raises:
        OSError: it cannot be opened or read.
        SourceChanged: before, after, or while it was read it was another file.
    """
    with opened(path) as fd:
        if FileIdentity.of(fd) != identity:
            raise SourceChanged
        if read_into(fd, view) != identity.size or FileIdentity.of(fd) != identity:
            raise SourceChanged


def pieces_of(path: bytes, identity: FileIdentity) -> Iterator[memoryview]:
    """The bytes of a file of a known identity, in pieces that are good until the next.

    Raises as read_again; SourceChanged, if it changed meanwhile, after the last piece.
    """
    piece = memoryview(bytearray(min(PIECE_BYTES, max(1, identity.size))))
    with opened(path) as fd:
        if FileIdentity.of(fd) != identity:
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
    with opened(path) as fd:
        identity = FileIdentity.of(fd)
        offset = start
        while count := read_into(fd, piece, offset):
            digest.update(piece[:count])
            offset += count
        if FileIdentity.of(fd) != identity or offset < identity.size:
            raise SourceChanged
    return digest.digest(), identity
