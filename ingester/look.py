"""The first look at a file that is open: its header and digest, while its bytes are warm.

The same in the reader threads of a run and in the processes that read for it. Blocking.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import NamedTuple

from ingester.dicom import Header
from ingester.files import SourceChanged, read_into
from ingester.items import FileIdentity

HEAD_BYTES = 64 << 10
"""Enough for the identity of all but a few files; more is read where it is asked for."""
MAX_HEAD_BYTES = 4 << 20
"""No real header needs more before (0020,0011)."""
UNTRUSTED_MTIME_NS = 2_000_000_000
"""A file changed again within the granularity of its time stamp would look unchanged."""


class Look(NamedTuple):
    """What a file was when it was read, but for what its header says."""

    identity: FileIdentity
    sha256: bytes | None  # of the whole file, where it was read whole and a digest is wanted
    mtime_trusted: bool  # False: changed within 2 s of the read, compare next time


def look_at(fd: int, identity: FileIdentity, view: memoryview, *, checksums: bool) -> Look:
    """What a file is whose bytes, or those of its head, were read into ``view`` and parsed.

    Raises:
        OSError: it cannot be asked.
        SourceChanged: it is not what it was when it was opened.
    """
    trusted = time.time_ns() - identity.mtime_ns >= UNTRUSTED_MTIME_NS
    sha256 = None
    if len(view) == identity.size and (checksums or not trusted):
        sha256 = hashlib.sha256(view).digest()
    if FileIdentity.from_status(os.fstat(fd)) != identity:
        raise SourceChanged
    return Look(identity, sha256, trusted)


def fill(fd: int, view: memoryview) -> None:
    """Read the first bytes of a file. Raises OSError, or SourceChanged where it is shorter."""
    if read_into(fd, view) != len(view):
        raise SourceChanged


class Asked(NamedTuple):
    """A file as a process that reads is asked for it."""

    path: bytes
    size: int  # bytes, as it was listed
    place: int | None  # in the arena, where it is to be read whole
    parse: bool = True  # False: its header is known


class Seen(NamedTuple):
    """What a process that reads found: a file like most."""

    header: Header | None  # None: it was not to be parsed
    look: Look
