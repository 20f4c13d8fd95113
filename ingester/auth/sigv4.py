"""AWS Signature Version 4 in the headers of a request, in four ways to treat its body.

Takes a request as it will be sent, credentials and the time; gives every header to add. Pure: no
clock, no I/O, about 0.1 ms. Each attempt is signed again when it is sent, because
a signature is good for about 5 minutes and for the credentials of that moment.

Signed are Host, Content-Type and all X-Amz-… headers, and Content-Encoding with Content-Length in
chunks. Nothing that a proxy or the HTTP client may change (User-Agent, Accept, Accept-Encoding).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import urlsplit

from ingester.auth import Secret
from ingester.auth.chunks import CHUNK_BYTES, MIN_CHUNK_BYTES, ChunkSeed, encoded_length

STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256().hexdigest()
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OURS = frozenset(
    (
        "authorization",
        "content-encoding",
        "content-length",
        "host",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
    )
)


class PayloadMode(StrEnum):
    """What the signature says about the body, and how the body goes out.

    A request without a body is signed with the digest of nothing in every mode.
    """

    LITERAL = "literal"  # the streaming literal over a raw body: AWS HealthImaging's documentation
    SHA256 = "sha256"  # its digest: AWS's sample sender
    UNSIGNED = "unsigned"
    AWS_CHUNKED = "aws-chunked"  # the same literal, and the body in signed chunks


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys that belong together. Neither shown nor pickled."""

    access_key: str = field(repr=False)
    secret_key: Secret = field(repr=False)
    token: Secret | None = field(repr=False)  # of temporary credentials

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")


@dataclass(frozen=True, slots=True)
class SignedHeaders:
    """All headers to add to the request, replacing any of the same name."""

    headers: Mapping[str, str] = field(repr=False)  # holds Authorization and the token
    chunks: ChunkSeed | None = None  # for the body in aws-chunked

    def __reduce__(self) -> NoReturn:
        raise TypeError("signatures are not pickled")


class Signer:
    """Signs for one service in one region. Imports botocore when it is made."""

    def __init__(
        self, region: str, service: str, mode: PayloadMode, *, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        if chunk_bytes < MIN_CHUNK_BYTES:
            raise ValueError(f"chunks have at least {MIN_CHUNK_BYTES} bytes")
        from ingester.auth.canonical import Canonicalizer  # noqa: PLC0415 - 0.1 s, AWS only

        self.region = region
        self.service = service
        self.mode = mode
        self._chunk_bytes = chunk_bytes
        self._canonicalizer = Canonicalizer(region, service)
        self._last_key: tuple[str, Secret, bytes] | None = None

    def sign(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        credentials: Credentials,
        now: datetime,
        content_length: int,
        content_sha256: str | None = None,
    ) -> SignedHeaders:
        """Sign one attempt.

        ``url`` is absolute, ASCII, and exactly what is requested (yarl: ``encoded=True``).
        ``headers`` are the caller's, of which Content-Type and X-Amz-… are signed.
        ``now`` is aware, with the clock offset applied. ``content_length`` is the body's before
        any encoding, 0 for none. ``content_sha256`` is its digest in hex, for that mode.

        Raises:
            ValueError: the digest is missing, the time is naive, the URL is not ASCII.
        """
        if now.tzinfo is None or not url.isascii():
            raise ValueError("only aware times and ASCII URLs are signed")
        amz_date = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        added = {
            "Host": _host(url),
            "X-Amz-Date": amz_date,
            **self._payload_headers(content_length, content_sha256),
        }
        if credentials.token is not None:
            added["X-Amz-Security-Token"] = credentials.token.reveal()

        chunked = "Content-Encoding" in added
        signed = {
            name: value
            for name, value in headers.items()
            if _is_signed(name.lower()) and name.lower() not in _OURS
        } | added
        if not chunked:
            signed.pop("Content-Length", None)
        canonical = self._canonicalizer.canonicalize(method, url, signed, amz_date)
        key = self._signing_key(amz_date[:8], credentials.secret_key)
        signature = _hmac(key, canonical.string_to_sign).hex()
        scope = f"{amz_date[:8]}/{self.region}/{self.service}/aws4_request"
        added["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={canonical.signed_headers}, Signature={signature}"
        )
        seed = ChunkSeed(signature, key, scope, amz_date, self._chunk_bytes) if chunked else None
        return SignedHeaders(added, seed)

    def _payload_headers(self, length: int, sha256: str | None) -> dict[str, str]:
        if not length:
            return {"X-Amz-Content-SHA256": EMPTY_SHA256}
        match self.mode:
            case PayloadMode.SHA256:
                if sha256 is None:
                    raise ValueError("the body's digest is to be signed, and it is not known")
                return {"X-Amz-Content-SHA256": sha256, "Content-Length": str(length)}
            case PayloadMode.UNSIGNED:
                return {"X-Amz-Content-SHA256": UNSIGNED, "Content-Length": str(length)}
            case PayloadMode.LITERAL:
                return {
                    "X-Amz-Content-SHA256": STREAMING,
                    "X-Amz-Decoded-Content-Length": str(length),
                    "Content-Length": str(length),
                }
            case PayloadMode.AWS_CHUNKED:
                return {
                    "X-Amz-Content-SHA256": STREAMING,
                    "X-Amz-Decoded-Content-Length": str(length),
                    "Content-Encoding": "aws-chunked",
                    "Content-Length": str(encoded_length(length, self._chunk_bytes)),
                }

    def _signing_key(self, date: str, secret_key: Secret) -> bytes:
        last = self._last_key
        if last is not None and last[0] == date and last[1] == secret_key:
            return last[2]
        key = b"AWS4" + secret_key.reveal().encode()
        for part in (date, self.region, self.service, "aws4_request"):
            key = _hmac(key, part)
        self._last_key = (date, secret_key, key)
        return key


def _is_signed(name: str) -> bool:
    return name == "content-type" or name.startswith("x-amz-")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _host(url: str) -> str:
    """The Host header of a URL: lower case, without user and the scheme's own port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = _DEFAULT_PORTS.get(parts.scheme)
    return host if parts.port in {None, default} else f"{host}:{parts.port}"


LARGEST_SKEW: Final = timedelta(days=36_525)
"""A clock without a battery is decades behind; a century on, times are beyond datetime's range."""


def learned_offset(date_header: str | None, now: datetime) -> timedelta | None:
    """How far a server's clock is ahead of ours by its Date header (RFC 9110 5.6.7).

    ``now`` is aware: our time when the answer came. Right to a second and the time the answer
    took. None where there is no date to be read, or one that no clock has.
    """
    if date_header is None:
        return None
    try:
        date = parsedate_to_datetime(date_header)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        offset = date - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return offset if abs(offset) <= LARGEST_SKEW else None
