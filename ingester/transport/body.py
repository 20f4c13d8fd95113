"""One request's body: the same bytes on every attempt.

Takes the instances of a batch and their framing. What is cached is there; everything else is read
again from its file, many small files of a root in one call of a thread, and must still be the file
that was scanned. ``BodyPayload`` writes it, once for each attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import repeat

from ingester.arena import Region
from ingester.dicomweb.multipart import Framing
from ingester.files import SourceChanged, pieces_of, read_again, reopening
from ingester.items import Instance
from ingester.look import Asked, Seen
from ingester.readers import Readers, failure_of
from ingester.threads import deliver, progressed
from ingester.transport.reply import SourceFailed
from ingester.transport.source import Digest


class Body:
    """What one request carries. ``sha256[i]`` is known once file i was read whole."""

    def __init__(
        self,
        instances: Sequence[Instance],
        framing: Framing,
        readers: Readers,
        *,
        checksums: bool,
        sha256: Sequence[bytes | None] = (),
    ) -> None:
        self.instances = instances
        self.framing = framing
        self.readers = readers
        self.checksums = checksums
        self.bytes_out = 0  # given to a transport since the last attempt began; 0 after an answer
        self.whole_sha256: str | None = None  # of the whole body, where it was asked for
        self.sha256 = list(sha256) or [instance.sha256 for instance in instances]

    async def hash_whole(self) -> SourceFailed | None:
        """Compute ``whole_sha256``, reading what is not cached."""
        if self.whole_sha256 is not None:
            return None
        loop = asyncio.get_running_loop()
        digest: Digest = hashlib.sha256()
        cached: list[bytes | memoryview] = []
        for index, (lead, instance) in enumerate(
            zip(self.framing.before, self.instances, strict=True)
        ):
            cached.append(lead)
            if instance.buffer is not None and instance.buffer.view is not None:
                cached.append(instance.buffer.view)
                continue
            await loop.run_in_executor(self.readers.hashing, _update, digest, cached)
            cached = []
            try:
                digest = await loop.run_in_executor(
                    self.reader_of(index), self._hash_file, index, digest
                )
            except (OSError, SourceChanged) as error:
                return source_failure(index, error)
        cached.append(self.framing.end)
        await loop.run_in_executor(self.readers.hashing, _update, digest, cached)
        self.whole_sha256 = digest.hexdigest()
        return None

    def reader_of(self, index: int) -> Executor:
        """The threads of the root that file i lies in."""
        return self.readers.of(self.instances[index].file.directory.root)

    def _hash_file(self, index: int, before: Digest) -> Digest:
        instance = self.instances[index]

        def read() -> tuple[Digest, Digest]:
            digest, own = before.copy(), hashlib.sha256()
            for piece in pieces_of(instance.file.path, instance.identity):
                digest.update(piece)
                own.update(piece)
            return digest, own

        digest, own = reopening(read)
        if self.wants_sha256(index):
            self.check_sha256(index, own.digest())
        return digest

    def wants_sha256(self, index: int) -> bool:
        """Whether file i is hashed: asked for, to be compared, or its time stamp says nothing."""
        trusted = self.instances[index].mtime_trusted
        return self.checksums or not trusted or self.sha256[index] is not None

    def check_sha256(self, index: int, digest: bytes) -> None:
        """Keep a file's digest, or raise SourceChanged if other bytes were read before."""
        if self.sha256[index] is None:
            self.sha256[index] = digest
        elif self.sha256[index] != digest:
            raise SourceChanged

    def read_group(
        self,
        first: int,
        piece: Region,
        views: list[memoryview],
        failures: list[OSError | SourceChanged],
    ) -> None:
        """Read files from ``first`` on that are not cached and fit into ``piece`` together.

        One call in a reader thread for many small files of a root; ``views`` gets their bytes.
        Stops before a file that fails; ``failures`` gets why.
        """
        group = list(self._fitting(first, piece))
        pool = self.readers.pool
        remote = None if piece.place is None else pool.borrow(len(group))
        try:
            seen_there = repeat(None) if remote is None else remote.seen(self._asked(group, piece))
            for (index, start), seen in zip(group, seen_there, strict=False):
                view = piece.view[start : start + self.instances[index].size]
                try:
                    self._read_one(index, view, seen)
                except (OSError, SourceChanged) as error:
                    deliver(failures, error)  # before the process is through with all others
                    break
                deliver(views, view)
        finally:
            if remote is not None:
                pool.bring_back(remote)

    def _fitting(self, first: int, piece: Region) -> Iterator[tuple[int, int]]:
        """Which files, and where each begins in the piece."""
        used = 0
        reader = self.reader_of(first)
        for index in range(first, len(self.instances)):
            instance = self.instances[index]
            cached = instance.buffer is not None and instance.buffer.view is not None
            if cached or used + instance.size > len(piece) or self.reader_of(index) is not reader:
                return
            yield index, used
            used += instance.size

    def _asked(self, group: Sequence[tuple[int, int]], piece: Region) -> list[Asked]:
        assert piece.place is not None  # noqa: S101 - asked before
        some = [(self.instances[index], piece.place + start) for index, start in group]
        return [Asked(one.file.path, one.size, place, parse=False) for one, place in some]

    def _read_one(self, index: int, view: memoryview, seen: Seen | None) -> None:
        """Have a file's bytes in ``view``: where a process has not read them, read them here."""
        instance = self.instances[index]
        sha256 = None
        if seen is None or seen.look.identity != instance.identity:
            reopening(lambda: read_again(instance.file.path, instance.identity, view))
        else:
            progressed()
            sha256 = seen.look.sha256
        if self.wants_sha256(index):
            self.check_sha256(index, sha256 or hashlib.sha256(view).digest())


def _update(digest: Digest, pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        digest.update(piece)


def source_failure(index: int, error: OSError | SourceChanged) -> SourceFailed:
    """How an error of file i ends an attempt."""
    if isinstance(error, SourceChanged):
        return SourceFailed(index, "changed_while_sent", "the file changed since it was scanned")
    return SourceFailed(index, *failure_of(error))
