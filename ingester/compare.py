"""Whether two files with the same UIDs hold the same data set.

Blocking, in steps that touch one of the two files each: each runs in a thread of that file's root.

'The same' is equal bytes after group 2 (PS3.10 7.1), so that a file meta group rewritten by another
program does not make one instance look like two. If the other copy cannot be read any more as it
was sent, equal SHA-256 of the whole files is the proof that is left.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from ingester.dicom import META_OFFSET, data_set_offset
from ingester.files import SourceChanged, opened, read_into, reopening, sha256_of
from ingester.items import FileIdentity, Holder, Instance
from ingester.look import HEAD_BYTES, MAX_HEAD_BYTES
from ingester.readers import SourcePausedError

NOT_A_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP})
"""Errors of a path at which there is none; after all others it may be read again."""


class Sameness(Enum):
    """What a comparison showed."""

    SAME = "same"
    MOVED = "moved"  # the same, and the file is not at its old path any more
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # the other copy is gone and no digest of it was kept
    CHANGED = "changed"  # the other file shows not what was sent, and is not met again yet


class There(NamedTuple):
    """What the holder's file shows."""

    sameness: Sameness | None  # None: its file is not the one that was sent
    exists: bool
    changed: bool = False  # since the journal knew it, or cannot be read: it is met again


CANNOT_BE_READ = There(None, exists=True, changed=True)


def look_here(instance: Instance, holder: Holder) -> Sameness | bytes | None:
    """The first step, of the instance's own file: its data set's digest, or what settles it.

    None: the whole files are the same, and it is to be seen whether the other is still there.
    Raises OSError, and SourceChanged: it could not be read as it was scanned; as the last step.
    """
    path = instance.file.path
    if holder.path == path:  # known below another root
        same = _whole_file_same(instance, holder) or (
            holder.sha256 is None
            and (holder.size, holder.mtime_ns) == (instance.size, instance.identity.mtime_ns)
        )
        return Sameness.MOVED if same else Sameness.DIFFERENT
    if instance.sha256 is not None and _whole_file_same(instance, holder):
        if reopening(lambda: FileIdentity.of(path)) != instance.identity:
            raise SourceChanged
        return None
    offset = instance.header.data_set_offset
    if offset == META_OFFSET:  # where group 2 ends was not seen
        offset = reopening(lambda: _offset_of_data_set(path))
    here, identity = reopening(lambda: sha256_of(path, offset))
    if identity != instance.identity:
        raise SourceChanged
    return here


def look_there(holder: Holder, here: bytes | None) -> There:
    """The second step, of the holder's file."""
    exists = not _is_gone(holder.path)
    if here is None:
        return There(Sameness.SAME if exists else Sameness.MOVED, exists)
    if not holder.current:
        return There(None, exists, changed=exists and _is_met_again(holder))
    try:
        there = reopening(lambda: _data_set_sha256(holder))
    except SourcePausedError:
        raise
    except SourceChanged:
        there = None
    except OSError as error:
        return There(None, exists, changed=error.errno not in NOT_A_FILE)
    if there is None:
        return There(None, exists, changed=True)
    return There(Sameness.SAME if here == there else Sameness.DIFFERENT, exists)


def _is_gone(path: bytes) -> bool:
    """Whether there is no such name: one that may not be asked for now is no sign of a move."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def _is_met_again(holder: Holder) -> bool:
    """Whether a file that is not as it was sent is not what the journal has of it either."""
    if holder.row is None:
        return False
    for ask in (os.lstat, os.stat):  # a link, or what it leads to
        with suppress(OSError):
            status = ask(holder.path)
            if holder.row == (status.st_size, status.st_mtime_ns):
                return False
    return True


def without_the_other(instance: Instance, holder: Holder, there: There) -> Sameness:
    """The last step, where the holder's file says nothing: the instance's own file once more."""
    if _whole_file_same(instance, holder):
        return Sameness.SAME if there.exists else Sameness.MOVED
    if there.changed:
        return Sameness.CHANGED
    if holder.sha256 is None:
        return Sameness.UNKNOWN
    # It may have moved to where this run has not been yet: one more run shows that.
    may_come = not there.exists and not instance.file.failed_before
    return Sameness.CHANGED if may_come else Sameness.DIFFERENT


def _data_set_sha256(holder: Holder) -> bytes | None:
    """Digest of the holder's data set, or None when its file is not the one that was sent."""
    digest, identity = sha256_of(holder.path, _offset_of_data_set(holder.path))
    if identity.size != holder.size:
        return None
    if identity.mtime_ns != holder.mtime_ns:  # touched: its digest says whether that was all
        return digest if sha256_of(holder.path) == (holder.sha256, identity) else None
    return digest


def _offset_of_data_set(path: bytes) -> int:
    """Where group 2 ends, or, where that is not in MAX_HEAD_BYTES, begins: all is compared then."""
    with opened(path) as (fd, identity):
        for size in (HEAD_BYTES, MAX_HEAD_BYTES):
            head = memoryview(bytearray(min(size, identity.size)))
            offset = data_set_offset(head[: read_into(fd, head)])
            if offset is not None:
                return offset
    return META_OFFSET


def _whole_file_same(instance: Instance, holder: Holder) -> bool:
    if holder.sha256 is None or holder.size != instance.size:
        return False
    sha256 = instance.sha256
    if sha256 is None:
        sha256, identity = reopening(lambda: sha256_of(instance.file.path))
        if identity != instance.identity:
            raise SourceChanged
    return sha256 == holder.sha256
