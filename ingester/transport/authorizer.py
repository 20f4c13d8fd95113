"""What makes a request ours: headers that stay the same, or a signature for each attempt.

A signature is made when the request is sent, with the credentials of that moment and a clock that
the server's own answers put right. Keys and tokens that the server refuses are asked for anew;
where it is plain that they have expired, and they had been good, everybody waits for others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

from ingester.auth import Secret
from ingester.auth.chunks import ChunkSeed
from ingester.auth.credentials import CredentialSource
from ingester.auth.refreshing import Refreshing
from ingester.auth.sigv4 import Credentials, PayloadMode, Signer, learned_offset
from ingester.logs import WARNING, log
from ingester.transport.pause import Pause
from ingester.transport.quotes import without_quotes
from ingester.transport.reply import Answer

REFRESH_TIMEOUT_S = 60.0
CLOCK_INTERVAL_S = 60.0
"""A wrong Date in one answer must not make every request wrong."""
SMALLEST_SKEW = timedelta(seconds=30)
"""Date is right to a second and the time an answer takes; AWS allows 5 minutes."""

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "x-amz-security-token"})
_TOKEN_EXPIRED = re.compile(rb"ExpiredToken|token[^.\"<]{0,60}\bexpired", re.IGNORECASE)
"""AWS says 'The security token included in the request is expired'. A *signature* expires, too, by
the clock: that is another matter."""

V = TypeVar("V")


class Authorized(NamedTuple):
    """Headers for one attempt, and what they were made with."""

    headers: Mapping[str, str]
    chunks: ChunkSeed | None = None
    credentials: object = None  # the snapshot of a source
    offset: timedelta = timedelta()  # of the clock

    def __repr__(self) -> str:
        return "Authorized(…)"

    def hide_in(self, said: bytes) -> bytes:
        """What a server said, without what these headers say of us: there are some that quote."""
        for name, value in self.headers.items():
            if name.lower() in _SECRET_HEADERS:
                said = without_quotes(said, value.partition(" ")[2] or value)
        return said


class Authorizer(Protocol):
    """Authorizes attempts and learns from their refusals."""

    needs_sha256: bool  # of the whole body, before it is sent
    chunk_bytes: int  # of a body that goes out in signed chunks, else 0

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length: int, sha256: str | None
    ) -> Authorized:
        """Headers for an attempt that starts now. ``length`` is the body's, in bytes."""
        ...

    async def ready(self) -> None:
        """Wait until an attempt may start, or the run is to end. Raises NoCredentials."""
        ...

    def accepted(self, authorized: Authorized) -> None:
        """The server took an attempt."""
        ...

    async def refused(self, authorized: Authorized, answer: Answer, date: str | None) -> bool:
        """The server answered 401, 403 or 407, with this Date: mend what can be mended.

        Returns whether an attempt that starts now would be authorized otherwise.

        Raises:
            NoCredentials: what it was authorized with has expired, and nothing newer is to be had.
        """
        ...


class FixedHeaders:
    """No authentication, or Basic: always the same."""

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

    async def ready(self) -> None:
        """Always."""

    def accepted(self, authorized: Authorized) -> None:
        """See Authorizer."""

    async def refused(self, authorized: Authorized, answer: Answer, date: str | None) -> bool:
        """There is nothing to mend."""
        del authorized, answer, date
        return False


class _Renewed(Generic[V]):
    """What is common to all that is authorized by snapshots of a source."""

    a_401_is_an_end: ClassVar[bool]  # of what was good: nobody who took it says 401 otherwise

    def __init__(self, source: Refreshing[V], pause: Pause[V]) -> None:
        self._source = source
        self._pause = pause
        self._good: object = None  # the last snapshot that the server took

    async def ready(self) -> None:
        """See Authorizer."""
        await self._pause.over()

    def accepted(self, authorized: Authorized) -> None:
        """See Authorizer."""
        self._good = authorized.credentials

    async def _renewed(self, refused: object, answer: Answer, now: datetime) -> bool:
        """Whether there is something else than what was refused at ``now``, the server's time."""
        current = self._source.snapshot()
        if current is not refused:
            return True
        was_good = self._good is refused
        expired = self._source.expired(now) or _says_expired(answer)
        if was_good and (expired or (self.a_401_is_an_end and answer.status == 401)):
            return await self._pause.until_renewed(current)
        if await self._source.refresh_now(current, REFRESH_TIMEOUT_S) is not None:
            return True
        if expired:
            raise self._pause.gone()
        return False


def _says_expired(answer: Answer) -> bool:
    by_name = answer.error_type.startswith("ExpiredToken")
    return by_name or _TOKEN_EXPIRED.search(answer.body) is not None


class Bearer(_Renewed[Secret]):
    """A bearer token (RFC 6750)."""

    a_401_is_an_end = True  # 3.1: invalid_token
    needs_sha256 = False
    chunk_bytes = 0

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length: int, sha256: str | None
    ) -> Authorized:
        """See Authorizer."""
        del method, url, headers, length, sha256
        authorization = self._source.snapshot()
        return Authorized({"Authorization": authorization.reveal()}, credentials=authorization)

    async def refused(self, authorized: Authorized, answer: Answer, date: str | None) -> bool:
        """Ask the source for another token."""
        now = datetime.now(UTC)
        offset = learned_offset(date, now) or timedelta()
        return await self._renewed(authorized.credentials, answer, now + offset)


class SigV4(_Renewed[Credentials]):
    """AWS Signature Version 4."""

    a_401_is_an_end = False  # AWS says 403, and most keys have no end

    def __init__(
        self,
        signer: Signer,
        source: CredentialSource,
        pause: Pause[Credentials],
        *,
        chunk_bytes: int = 0,
    ) -> None:
        super().__init__(source, pause)
        self.needs_sha256 = signer.mode is PayloadMode.SHA256
        self.chunk_bytes = chunk_bytes if signer.mode is PayloadMode.AWS_CHUNKED else 0
        self._signer = signer
        self._offset = timedelta()
        self._good_offset: timedelta | None = None  # the last that the server took
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

    def accepted(self, authorized: Authorized) -> None:
        """See Authorizer."""
        super().accepted(authorized)
        self._good_offset = authorized.offset

    async def refused(self, authorized: Authorized, answer: Answer, date: str | None) -> bool:
        """Learn the clock's offset and ask the source for other keys."""
        self._learn(learned_offset(date, datetime.now(UTC)), refused=authorized.offset)
        if authorized.offset != self._offset:
            return True  # with the right time the same keys may do
        return await self._renewed(authorized.credentials, answer, datetime.now(UTC) + self._offset)

    def _learn(self, offset: timedelta | None, refused: timedelta) -> None:
        """Take an offset over, seldom. Go back where it was of somebody on the way, and wrong."""
        now = time.monotonic()
        if now - self._learned_at >= CLOCK_INTERVAL_S:
            if offset is not None and abs(offset - self._offset) >= SMALLEST_SKEW:
                self._offset, self._learned_at = offset, now
                log(WARNING, "clock_is_off", seconds=round(offset.total_seconds()))
        elif (
            refused == self._offset
            and self._good_offset is not None
            and offset is not None
            and abs(offset - refused) >= SMALLEST_SKEW
        ):
            self._offset = self._good_offset
