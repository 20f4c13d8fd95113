"""Whether two files with the same UIDs hold the same data set. Blocking: runs in a reader thread.

'The same' is equal bytes after group 2 (PS3.10 7.1), so that a file meta group rewritten by another
program does not make one instance look like two. If the other copy cannot be read any more as it
was sent, equal SHA-256 of the whole files is the proof that is left.
"""

from __future__ import annotations

import os
from enum import Enum

from ingester.dicom import data_set_offset
from ingester.files import SourceChanged, opened, read_into, sha256_of
from ingester.items import FileIdentity, Holder, Instance

_HEAD_BYTES = 64 << 10


class Sameness(Enum):
    """What a comparison showed."""

    SAME = "same"
    MOVED = "moved"  # the same, and the file is not at its old path any more
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # the other copy is gone and no digest of it was kept


def compare(instance: Instance, holder: Holder) -> Sameness:
    """Compare an instance with the file that holds its claim.

    Raises:
        OSError, SourceChanged: the instance's own file could not be read as it was scanned.
    """
    path = instance.file.path
    if holder.path == path:  # known below another root
        same = _whole_file_same(instance, holder) or (
            holder.sha256 is None
            and (holder.size, holder.mtime_ns) == (instance.size, instance.identity.mtime_ns)
        )
        return Sameness.MOVED if same else Sameness.DIFFERENT
    if instance.sha256 is not None and _whole_file_same(instance, holder):
        if FileIdentity.of(path) != instance.identity:
            raise SourceChanged
        return Sameness.SAME if os.path.lexists(holder.path) else Sameness.MOVED
    here, identity = sha256_of(path, instance.header.data_set_offset)
    if identity != instance.identity:
        raise SourceChanged
    there = _data_set_sha256(holder) if holder.current else None
    if there is not None:
        return Sameness.SAME if here == there else Sameness.DIFFERENT
    if holder.sha256 is None:
        return Sameness.UNKNOWN
    if not _whole_file_same(instance, holder):
        return Sameness.DIFFERENT
    return Sameness.SAME if os.path.lexists(holder.path) else Sameness.MOVED


def compare_safely(instance: Instance, holder: Holder) -> Sameness | OSError | SourceChanged:
    """The same, with what went wrong as a value."""
    try:
        return compare(instance, holder)
    except (OSError, SourceChanged) as error:
        return error


def _data_set_sha256(holder: Holder) -> bytes | None:
    """Digest of the holder's data set, or None when its file is not the one that was sent."""
    try:
        with opened(holder.path) as fd:
            head = memoryview(bytearray(min(_HEAD_BYTES, holder.size)))
            read = read_into(fd, head)
        offset = data_set_offset(head[:read])
        if offset is None:
            return None
        digest, identity = sha256_of(holder.path, offset)
        if identity.size != holder.size:
            return None
        if identity.mtime_ns != holder.mtime_ns:  # touched: its digest says whether that was all
            return digest if sha256_of(holder.path) == (holder.sha256, identity) else None
    except (OSError, SourceChanged):
        return None
    return digest


def _whole_file_same(instance: Instance, holder: Holder) -> bool:
    if holder.sha256 is None or holder.size != instance.size:
        return False
    sha256 = instance.sha256
    if sha256 is None:
        sha256, identity = sha256_of(instance.file.path)
        if identity != instance.identity:
            raise SourceChanged
    return sha256 == holder.sha256
