"""A large file that is read for a body: from its first byte to its last, as it was scanned."""

from __future__ import annotations

import hashlib
from io import FileIO
from typing import Protocol, Self

from ingester.files import SourceChanged, open_to_read, reopening
from ingester.items import FileIdentity, Instance
from ingester.threads import failed, progressed


class Digest(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
        ...

    def copy(self) -> Self:
        """Another one of the same bytes."""
        ...

    def digest(self) -> bytes:
        """Of the bytes so far."""
        ...

    def hexdigest(self) -> str:
        """The same as text."""
        ...


class Source(FileIO):
    """A file that is read from its first byte to its last, as it was when it was scanned.

    Reading and hashing are one call of a thread: two for each piece cost 7 % of the rate
    (benchmarks, ``cr``). It closes itself when the last who uses it lets go: a thread may be stuck
    in it.
    """

    def __init__(self, instance: Instance, *, wants_sha256: bool) -> None:
        super().__init__(instance.file.path, opener=lambda path, _flags: open_to_read(path))
        self.digest: Digest | None = hashlib.sha256() if wants_sha256 else None
        self._identity = instance.identity
        self._read_bytes = 0
        self._check()

    @classmethod
    def open(cls, instance: Instance, wants_sha256: bool) -> Self:
        """Open for reading. Blocking; raises OSError, SourceChanged."""
        return reopening(lambda: cls(instance, wants_sha256=wants_sha256))

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # of any buffer
        """See FileIO; at least a byte. Tells the thread's executor how it went.

        Raises OSError, and SourceChanged where the file ends early or is another one at its end:
        before its last bytes can make a body whole.
        """
        try:
            count = super().readinto(buffer) or 0
        except OSError as error:
            failed(error)
            raise
        progressed()
        if not count:
            raise SourceChanged
        self._read_bytes += count
        if self.digest is not None:
            self.digest.update(buffer[:count])
        if self._read_bytes == self._identity.size:
            self._check()
        return count

    def _check(self) -> None:
        if FileIdentity.of(self.fileno()) != self._identity:
            raise SourceChanged

    def __del__(self) -> None:
        self.close()
