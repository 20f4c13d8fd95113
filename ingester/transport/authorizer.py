"""What makes a request ours: headers that stay the same, or a signature for each attempt.

A signature is made when the request is sent, with the credentials of that moment and a clock that
the server's own answers put right.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from ingester.auth.chunks import ChunkSeed
from ingester.auth.credentials import CredentialSource
from ingester.auth.sigv4 import Credentials, PayloadMode, Signer, learned_offset

REFRESH_TIMEOUT_S = 60.0
CLOCK_INTERVAL_S = 60.0
"""A wrong Date in one answer must not make every request wrong."""
SMALLEST_SKEW = timedelta(seconds=30)
"""Date is right to a second and the time an answer takes; AWS allows 5 minutes."""


class Authorized(NamedTuple):
    """Headers for one attempt, and what they were made with."""

    headers: Mapping[str, str]
    chunks: ChunkSeed | None = None
    credentials: Credentials | None = None
    offset: timedelta = timedelta()  # of the clock

    def __repr__(self) -> str:
        return "Authorized(…)"


class Authorizer(Protocol):
    """Authorizes attempts and learns from their refusals."""

    needs_sha256: bool  # of the whole body, before it is sent
    chunk_bytes: int  # of a body that goes out in signed chunks, else 0

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length: int, sha256: str | None
    ) -> Authorized:
        """Headers for an attempt that starts now. ``length`` is the body's, in bytes."""
        ...

    async def refused(self, authorized: Authorized, date: str | None) -> bool:
        """The server answered 401 or 403, with this Date: mend what can be mended.

        Returns whether an attempt that starts now would be authorized otherwise.
        """
        ...


class FixedHeaders:
    """No authentication, Basic or Bearer: always the same."""

    needs_sha256 = False
    chunk_bytes = 0

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._authorized = Authorized(dict(headers))

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length: int, sha256: str | None
    ) -> Authorized:
        """See Authorizer."""
        del method, url, headers, length, sha256
        return self._authorized

    async def refused(self, authorized: Authorized, date: str | None) -> bool:
        """There is nothing to mend."""
        del authorized, date
        return False


class SigV4:
    """AWS Signature Version 4."""

    def __init__(self, signer: Signer, source: CredentialSource, *, chunk_bytes: int = 0) -> None:
        self.needs_sha256 = signer.mode is PayloadMode.SHA256
        self.chunk_bytes = chunk_bytes if signer.mode is PayloadMode.AWS_CHUNKED else 0
        self._signer = signer
        self._source = source
        self._offset = timedelta()
        self._learned_at = float("-inf")

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length: int, sha256: str | None
    ) -> Authorized:
        """See Authorizer."""
        credentials = self._source.snapshot()
        signed = self._signer.sign(
            method,
            url,
            headers,
            credentials=credentials,
            now=datetime.now(UTC) + self._offset,
            content_length=length,
            content_sha256=sha256,
        )
        return Authorized(signed.headers, signed.chunks, credentials, self._offset)

    async def refused(self, authorized: Authorized, date: str | None) -> bool:
        """Learn the clock's offset and ask the source for other keys."""
        offset = learned_offset(date, datetime.now(UTC))
        now = time.monotonic()
        if (
            offset is not None
            and abs(offset - self._offset) >= SMALLEST_SKEW
            and now - self._learned_at >= CLOCK_INTERVAL_S
        ):
            self._offset, self._learned_at = offset, now
        if authorized.offset != self._offset:
            return True  # with the right time the same keys may do
        if authorized.credentials is None:
            return False
        other = await self._source.refresh_now(authorized.credentials, REFRESH_TIMEOUT_S)
        return other is not None
