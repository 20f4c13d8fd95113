"""Opens each file once, in a reader thread, and says what it is.

Takes lists of FileRef; gives an Instance or a Result for each, in order. Up to the inline limit a
file is read whole into a cached buffer; of larger ones, or when the budget has no bytes left, only
the head is read. A bug while one file is scanned is that file's outcome.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import BinaryIO

from ingester.budget import Budget, Buffer, Promise, cost_of
from ingester.dicom import Header, NeedMore, Problem, inspect_part10
from ingester.dicomweb.outcome import Outcome
from ingester.files import SourceChanged, opened, reopening, sha256_of
from ingester.items import FileIdentity, FileRef, Instance, Result, ended
from ingester.look import HEAD_BYTES, MAX_HEAD_BYTES, Asked, Look, fill, look_at
from ingester.readers import SourcePausedError, failure_of
from ingester.scan_pool import NO_POOL, RemoteReader, ScanPool
from ingester.threads import deliver, progressed

SHARED_TEXTS = 4096
"""So many are remembered, of as many files; then one may be kept twice."""

Found = Instance | Result


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """``max_resends``: files that are stored and changed since; beyond, the run stops."""

    inline_limit_bytes: int = 1 << 20
    checksums: bool = True
    max_file_bytes: int | None = None  # of the target
    too_large_hint: str = ""
    max_resends: int = 1 << 62


class Scanner:
    """Scans lists of files; blocking, thread-safe, one call for a list."""

    def __init__(self, options: ScanOptions, budget: Budget, pool: ScanPool = NO_POOL) -> None:
        self._options = options
        self._budget = budget
        self._pool = pool
        self._texts: dict[str, str] = {}

    @property
    def memory_bytes(self) -> int:
        """To cache files in."""
        return self._budget.total_bytes

    def cached_bytes(self, files: Sequence[FileRef]) -> int:
        """What these files take of the memory when they are cached."""
        limit = self._options.inline_limit_bytes
        return sum([cost_of(file.size) for file in files if 0 < file.size <= limit])

    async def promise(self, files: Sequence[FileRef]) -> Promise:
        """Bytes to cache these files in; see Budget."""
        return await self._budget.promise(self.cached_bytes(files))

    def scan(
        self, files: Sequence[FileRef], found: list[Found], promise: Promise | None = None
    ) -> None:
        """Add to ``found`` what each file is, in order. ``promise``: of bytes to cache them in.

        Raises for no file but these:
            SourcePausedError: the next of them cannot be read because its root cannot be.
            WrittenOff: it took too long; what was found until then is there.
        """
        reader = self._pool.borrow(len(files))
        if reader is not None:
            self._scan_there(reader, files, found, promise)
            return
        for file in files:
            _deliver(found, self._scan_one(file, promise))

    def _scan_there(
        self,
        reader: RemoteReader,
        files: Sequence[FileRef],
        found: list[Found],
        promise: Promise | None,
    ) -> None:
        """Scan in another process, and here what that cannot."""
        buffers: list[Buffer | None] = []
        try:
            sizes = [file.size for file in files]
            self._budget.take_all(sizes, self._options.inline_limit_bytes, buffers, promise)
            shared = all(buffer is None or buffer.place is not None for buffer in buffers)
            asked = [
                Asked(file.path, file.size, None if buffer is None else buffer.place)
                for file, buffer in zip(files, buffers, strict=True)
            ]
            # What has no place nobody else can fill.
            seen_there = reader.seen(asked) if shared else repeat(None)
            for position, (file, seen) in enumerate(zip(files, seen_there, strict=False)):
                if seen is not None:
                    progressed()  # raises, where nobody waits any more
                buffer, buffers[position] = buffers[position], None
                if seen is None or seen.header is None:
                    _give_back(buffer)
                    one = self._scan_one(file, promise)
                else:
                    judged = partial(self._judged, file, seen.header, seen.look, buffer)
                    one = _ended_at_worst(file, judged)
                _deliver(found, one)
        finally:
            self._pool.bring_back(reader)
            for buffer in buffers:
                _give_back(buffer)

    def _scan_one(self, file: FileRef, promise: Promise | None) -> Found:
        return _ended_at_worst(file, lambda: self._read(file, promise))

    def _read(self, file: FileRef, promise: Promise | None) -> Found:
        with opened(file.path) as (fd, identity):
            buffer = self._take(identity.size, promise)
            view = None if buffer is None else buffer.view
            if view is None:
                view = memoryview(bytearray(min(HEAD_BYTES, identity.size)))
            try:
                fill(fd, view)
                header = _header_of(fd, view, identity)
                look = look_at(fd, identity, view, checksums=self._options.checksums)
            except BaseException:
                _give_back(buffer)
                raise
            return self._judged(file, header, look, buffer)

    def _take(self, size: int, promise: Promise | None) -> Buffer | None:
        if 0 < size <= self._options.inline_limit_bytes:
            return self._budget.take(size, promise)
        return None

    def _judged(
        self, file: FileRef, header: Header | Problem, look: Look, buffer: Buffer | None
    ) -> Found:
        """What becomes of a file that was read; its buffer stays with an instance alone."""
        found: Found | None = None
        try:
            found = self._judge(file, header, look, buffer)
        finally:
            if not isinstance(found, Instance):
                _give_back(buffer)
        return found

    def _judge(
        self, file: FileRef, header: Header | Problem, look: Look, buffer: Buffer | None
    ) -> Found:
        identity, sha256, trusted = look
        if unchanged := self._unchanged(file, identity, sha256, trusted):
            return unchanged
        if isinstance(header, Problem):
            return Result(
                file, Outcome(header.outcome), header.reason_code, header.reason,
                size=identity.size, mtime_ns=identity.mtime_ns, mtime_trusted=trusted,
                sha256=sha256,
            )  # fmt: skip
        header = self._sharing(header)
        instance = Instance(file, identity, header, buffer, sha256, trusted, _findings(header))
        limit = self._options.max_file_bytes
        if limit is not None and identity.size > limit:
            return ended(
                instance, Outcome.TOO_LARGE, "larger_than_a_request", self._options.too_large_hint
            )
        return instance

    def _sharing(self, header: Header) -> Header:
        """The same with texts that all instances of a series have in common: 50,000 may be open.

        Why not sys.intern: Python 3.12.1 never lets go of what is interned, 122 bytes a UID.
        """
        texts = self._texts
        if len(texts) >= SHARED_TEXTS:
            texts.clear()
        shared = [texts.setdefault(text, text) for text in header[:-1]]
        return Header._make((*shared, header.data_set_offset))

    def _unchanged(
        self, file: FileRef, identity: FileIdentity, sha256: bytes | None, trusted: bool
    ) -> Result | None:
        """The file's record, if it was settled and the bytes are the same as then."""
        previous = file.previous
        if previous is None or not previous.settled or previous.sha256 is None:
            return None
        if previous.size != identity.size:
            return None
        if sha256 is None:
            sha256, again = sha256_of(file.path)
            if again != identity:
                raise SourceChanged
        if sha256 != previous.sha256:
            return None
        return Result(
            file, previous.outcome, size=identity.size, mtime_ns=identity.mtime_ns,
            mtime_trusted=trusted, sha256=sha256, unchanged=True,
        )  # fmt: skip


def _ended_at_worst(file: FileRef, read: Callable[[], Found]) -> Found:
    """What ``read`` says of a file, or how it ends that it cannot. Raises SourcePausedError."""
    try:
        return reopening(read)
    except SourcePausedError:
        raise
    except (OSError, SourceChanged) as error:
        return Result(file, Outcome.UNREADABLE, *failure_of(error))
    except Exception as error:  # noqa: BLE001 - the one sanctioned: a bug costs one file
        reason = f"a bug of this program: {type(error).__name__}"
        return Result(file, Outcome.INVALID, "internal_error", reason)


def _deliver(found: list[Found], one: Found) -> None:
    try:
        deliver(found, one)
    except BaseException:  # nobody waits for it any more
        if isinstance(one, Instance):
            _give_back(one.buffer)
        raise


def _header_of(fd: int, view: memoryview, identity: FileIdentity) -> Header | Problem:
    def open_file() -> BinaryIO:
        # Not by its name, which may be another file's by now, or a FIFO's.
        os.lseek(fd, 0, os.SEEK_SET)
        return open(os.dup(fd), "rb")

    found = inspect_part10(view, identity.size, open_file)
    while isinstance(found, NeedMore):
        if found.size > MAX_HEAD_BYTES:
            reason = f"no identity in the first {MAX_HEAD_BYTES >> 20} MiB"
            return Problem("invalid", "header_too_large", reason, None)
        longer = memoryview(bytearray(min(identity.size, max(found.size, 4 * len(view)))))
        fill(fd, longer)
        found, view = inspect_part10(longer, identity.size, open_file), longer
    return found


def _findings(header: Header) -> tuple[str, ...]:
    meta = header.media_storage_sop_instance_uid
    return ("meta_uid_differs",) if meta and meta != header.sop_instance_uid else ()


def _give_back(buffer: Buffer | None) -> None:
    if buffer is not None:
        buffer.give_back()
