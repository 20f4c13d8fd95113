"""The second stage: opens each file once, in a reader thread, and says what it is.

Takes lists of FileRef; gives lists of Instance, everything else is decided here. Up to the inline
limit a file is read whole into a cached buffer; of larger ones, or when the budget has no bytes
left, only the head is read. A bug while one file is scanned is that file's outcome, and a hundred
of them stop the run. A file that does not answer is given up: it ends, and what follows it in its
list goes to another thread. The files of a paused root end as pending. Ends when the walk has
ended and all lists are scanned.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ingester.budget import Budget, Buffer
from ingester.channel import Channel, Sink
from ingester.dicom import Header, NeedMore, Problem, inspect_part10
from ingester.dicomweb.outcome import IN_THE_STORE, Outcome
from ingester.errors import FatalError
from ingester.files import SourceChanged, opened, read_into, reopening, sha256_of
from ingester.items import FileIdentity, FileRef, Instance, Result, ended, pending
from ingester.ledger import Ledger
from ingester.readers import SOURCE_PAUSED, Readers, SourcePausedError, failure_of
from ingester.threads import ReadTimeoutError, deliver

HEAD_BYTES = 64 << 10
"""Enough for the identity of all but a few files; more is read where it is asked for."""
MAX_HEAD_BYTES = 4 << 20
"""No real header needs more before (0020,0011)."""
UNTRUSTED_MTIME_NS = 2_000_000_000
"""A file changed again within the granularity of its time stamp would look unchanged."""
MAX_INTERNAL_ERRORS = 100

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

    def __init__(self, options: ScanOptions, budget: Budget) -> None:
        self._options = options
        self._budget = budget

    def scan(self, files: Sequence[FileRef], found: list[Found]) -> None:
        """Add to ``found`` what each file is, in order.

        Raises for no file but these:
            SourcePausedError: the next of them cannot be read because its root cannot be.
            WrittenOff: it took too long; what was found until then is there.
        """
        head = memoryview(bytearray(HEAD_BYTES))
        for file in files:
            one = self._scan_one(file, head)
            try:
                deliver(found, one)
            except BaseException:  # nobody waits for it any more
                if isinstance(one, Instance):
                    _give_back(one.buffer)
                raise

    def _scan_one(self, file: FileRef, head: memoryview) -> Found:
        try:
            return reopening(lambda: self._read(file, head))
        except SourcePausedError:
            raise
        except (OSError, SourceChanged) as error:
            return Result(file, Outcome.UNREADABLE, *failure_of(error))
        except Exception as error:  # noqa: BLE001 - the one sanctioned: a bug costs one file
            reason = f"a bug of this program: {type(error).__name__}"
            return Result(file, Outcome.INVALID, "internal_error", reason)

    def _read(self, file: FileRef, head: memoryview) -> Found:
        with opened(file.path) as (fd, identity):
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
    ) -> Found:
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
    """The readers of all sources: ``workers`` of ``worker`` run, some for each channel of files."""

    def __init__(
        self,
        scanner: Scanner,
        readers: Readers,
        ledger: Ledger,
        out: Sink[list[Instance]],
        options: ScanOptions,
        workers: int,
    ) -> None:
        self._scanner = scanner
        self._readers = readers
        self._ledger = ledger
        self._out = out
        self._options = options
        self._workers = workers
        self._internal_errors = 0
        self._resends = 0

    async def worker(self, lists: Channel[list[FileRef]]) -> None:
        """Scan lists until there are no more. Raises FatalError as the options say."""
        try:
            async for files in lists:
                left = files
                while left:
                    found = await self._scan(left)
                    left = left[len(found) :]
                    await self._hand_over(found)
        finally:
            self._workers -= 1
            if self._workers == 0:
                self._out.close()

    async def _scan(self, files: Sequence[FileRef]) -> list[Found]:
        """What the first of these are, of one at least."""
        found: list[Found] = []
        readers = self._readers.of(files[0].directory.root)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(readers, self._scanner.scan, files, found)
        except ReadTimeoutError as error:
            stuck = files[len(found) : len(found) + 1]
            found += [Result(file, Outcome.UNREADABLE, *failure_of(error)) for file in stuck]
        except SourcePausedError:
            found += [pending(file, SOURCE_PAUSED) for file in files[len(found) :]]
        return found

    async def _hand_over(self, found: Sequence[Found]) -> None:
        results = [item for item in found if isinstance(item, Result)]
        instances = [item for item in found if isinstance(item, Instance)]
        self._ledger.decide(results)
        self._count(results, instances)
        if instances:
            await self._out.put(instances, weight=len(instances))

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
