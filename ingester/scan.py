"""The second stage: opens each file once, in a reader thread, and says what it is.

Takes lists of FileRef; gives lists of Instance, everything else is decided here. Up to the inline
limit a file is read whole into a cached buffer; of larger ones, or when the budget has no bytes
left, only the head is read. A bug while one file is scanned is that file's outcome, and a hundred
of them stop the run. Ends when the walk has ended and all lists are scanned.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import BinaryIO

from ingester.budget import Budget, Buffer
from ingester.channel import Channel, Sink
from ingester.dicom import Header, NeedMore, Problem, inspect_part10
from ingester.dicomweb.outcome import IN_THE_STORE, Outcome
from ingester.errors import FatalError
from ingester.files import SourceChanged, opened, read_into, sha256_of
from ingester.items import FileIdentity, FileRef, Instance, Result, ended
from ingester.ledger import Ledger

HEAD_BYTES = 64 << 10
"""Enough for the identity of all but a few files; more is read where it is asked for."""
MAX_HEAD_BYTES = 4 << 20
"""No real header needs more before (0020,0011)."""
UNTRUSTED_MTIME_NS = 2_000_000_000
"""A file changed again within the granularity of its time stamp would look unchanged."""
MAX_INTERNAL_ERRORS = 100

_REOPEN = frozenset({errno.ESTALE, errno.EIO})


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

    def __init__(self, options: ScanOptions, budget: Budget) -> None:
        self._options = options
        self._budget = budget

    def scan(self, files: Sequence[FileRef]) -> list[Instance | Result]:
        """What each file is, in order. Never raises for a file."""
        head = memoryview(bytearray(HEAD_BYTES))
        return [self._scan_one(file, head) for file in files]

    def _scan_one(self, file: FileRef, head: memoryview) -> Instance | Result:
        try:
            try:
                return self._read(file, head)
            except OSError as error:
                if error.errno not in _REOPEN:
                    raise
                return self._read(file, head)
        except OSError as error:
            code = "vanished" if error.errno == errno.ENOENT else "read_error"
            return Result(file, Outcome.UNREADABLE, code, os.strerror(error.errno or 0))
        except SourceChanged:
            reason = "the file changed while it was read"
            return Result(file, Outcome.UNREADABLE, "changed_while_read", reason)
        except Exception as error:  # noqa: BLE001 - the one sanctioned: a bug costs one file
            reason = f"a bug of this program: {type(error).__name__}"
            return Result(file, Outcome.INVALID, "internal_error", reason)

    def _read(self, file: FileRef, head: memoryview) -> Instance | Result:
        with opened(file.path) as fd:
            identity = FileIdentity.of(fd)
            buffer = self._take(identity.size)
            try:
                found = self._inspect(file, fd, identity, buffer, head)
            except BaseException:
                _give_back(buffer)
                raise
            if isinstance(found, Result):
                _give_back(buffer)
            return found

    def _take(self, size: int) -> Buffer | None:
        return self._budget.take(size) if 0 < size <= self._options.inline_limit_bytes else None

    def _inspect(
        self,
        file: FileRef,
        fd: int,
        identity: FileIdentity,
        buffer: Buffer | None,
        head: memoryview,
    ) -> Instance | Result:
        view = head[: identity.size] if buffer is None or buffer.view is None else buffer.view
        _fill(fd, view)
        header = _header_of(fd, view, identity)
        whole = view if len(view) == identity.size else None
        trusted = time.time_ns() - identity.mtime_ns >= UNTRUSTED_MTIME_NS
        sha256 = None
        if whole is not None and (self._options.checksums or not trusted):
            sha256 = hashlib.sha256(whole).digest()
        if FileIdentity.of(fd) != identity:
            raise SourceChanged
        if unchanged := self._unchanged(file, identity, sha256, trusted):
            return unchanged
        if isinstance(header, Problem):
            return Result(
                file, Outcome(header.outcome), header.reason_code, header.reason,
                size=identity.size, mtime_ns=identity.mtime_ns, mtime_trusted=trusted,
                sha256=sha256,
            )  # fmt: skip
        instance = Instance(file, identity, header, buffer, sha256, trusted, _findings(header))
        limit = self._options.max_file_bytes
        if limit is not None and identity.size > limit:
            return ended(
                instance, Outcome.TOO_LARGE, "larger_than_a_request", self._options.too_large_hint
            )
        return instance

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


def _fill(fd: int, view: memoryview) -> None:
    if read_into(fd, view) != len(view):
        raise SourceChanged


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
        _fill(fd, longer)
        found, view = inspect_part10(longer, identity.size, open_file), longer
    return found


def _findings(header: Header) -> tuple[str, ...]:
    meta = header.media_storage_sop_instance_uid
    return ("meta_uid_differs",) if meta and meta != header.sop_instance_uid else ()


def _give_back(buffer: Buffer | None) -> None:
    if buffer is not None:
        buffer.give_back()


class ScanStage:
    """The readers of all sources: ``worker`` runs once a reader thread."""

    def __init__(
        self,
        scanner: Scanner,
        readers: Executor,
        ledger: Ledger,
        files: Channel[list[FileRef]],
        out: Sink[list[Instance]],
        options: ScanOptions,
    ) -> None:
        self._scanner = scanner
        self._readers = readers
        self._ledger = ledger
        self._files = files
        self._out = out
        self._options = options
        self._workers = 0
        self._internal_errors = 0
        self._resends = 0

    async def worker(self) -> None:
        """Scan lists until there are no more. Raises FatalError as the options say."""
        loop = asyncio.get_running_loop()
        self._workers += 1
        try:
            async for files in self._files:
                found = await loop.run_in_executor(self._readers, self._scanner.scan, files)
                results = [item for item in found if isinstance(item, Result)]
                instances = [item for item in found if isinstance(item, Instance)]
                self._ledger.decide(results)
                self._count(results, instances)
                if instances:
                    await self._out.put(instances, weight=len(instances))
        finally:
            self._workers -= 1
            if self._workers == 0:
                self._out.close()

    def _count(self, results: Sequence[Result], instances: Sequence[Instance]) -> None:
        self._internal_errors += sum(r.reason_code == "internal_error" for r in results)
        if self._internal_errors >= MAX_INTERNAL_ERRORS:
            raise FatalError(
                f"{MAX_INTERNAL_ERRORS} files met a bug of this program",
                "please report it; the files are recorded as invalid: internal_error",
            )
        self._resends += sum(_is_resend(instance.file) for instance in instances)
        if self._resends > self._options.max_resends:
            raise FatalError(
                f"{self._resends} files that are stored have changed since",
                "if that is meant, raise --max-resend",
            )


def _is_resend(file: FileRef) -> bool:
    previous = file.previous
    return previous is not None and previous.settled and previous.outcome in IN_THE_STORE
