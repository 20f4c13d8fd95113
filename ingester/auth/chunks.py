"""``aws-chunked`` bodies, each chunk signed: SigV4 with ``STREAMING-AWS4-HMAC-SHA256-PAYLOAD``.

Amazon S3 API reference, 'Signature calculations for the Authorization header: transferring payload
in multiple chunks'. On the wire a chunk is ``hex(length);chunk-signature=SIGNATURE CRLF data CRLF``
and the last one is empty. Each signature covers the one before, the first that of the request's
headers (the seed), so chunks can neither be changed, left out nor exchanged.

Pure and blocking: SHA-256 of a chunk takes about 1 ms a MiB, so what hashes belongs in a thread
(hashlib lets the others run). Why not awscrt or botocore: neither signs chunks from Python.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import NoReturn

MIN_CHUNK_BYTES = 8 * 1024
"""Every chunk but the last has at least so many bytes, or the request is refused."""

CHUNK_BYTES = 64 * 1024
"""The size in Amazon's own example; framing adds 0.14 %."""

CRLF = b"\r\n"
_SIGNATURE_FIELD = b";chunk-signature="
_SIGNATURE_LENGTH = 64
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


def encoded_length(body_length: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Bytes on the wire of a body cut into chunks of ``chunk_bytes``, the last one shorter.

    Raises:
        ValueError: the length is negative or the chunks are too small.
    """
    if body_length < 0 or chunk_bytes < MIN_CHUNK_BYTES:
        raise ValueError(f"not a body of chunks of at least {MIN_CHUNK_BYTES} bytes")
    whole, rest = divmod(body_length, chunk_bytes)
    return (
        whole * _framed_length(chunk_bytes)
        + (_framed_length(rest) if rest else 0)
        + _framed_length(0)
    )


def _framed_length(length: int) -> int:
    return len(f"{length:x}") + len(_SIGNATURE_FIELD) + _SIGNATURE_LENGTH + 4 + length


@dataclass(frozen=True, slots=True)
class ChunkSeed:
    """What a request's header signature hands on to its chunks. Good for one attempt."""

    signature: str = field(repr=False)
    signing_key: bytes = field(repr=False)
    scope: str  # date/region/service/aws4_request
    amz_date: str  # as in X-Amz-Date
    chunk_bytes: int = CHUNK_BYTES

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not pickled")


class ChunkSigner:
    """Signs the chunks of one attempt in their order."""

    def __init__(self, seed: ChunkSeed) -> None:
        self._signature = seed.signature
        self._key = seed.signing_key
        self._start = f"AWS4-HMAC-SHA256-PAYLOAD\n{seed.amz_date}\n{seed.scope}\n"

    def frame(self, *parts: bytes | bytearray | memoryview) -> bytes:
        """What goes before the next chunk, whose bytes are those of ``parts``; CRLF goes after it.

        Blocking. Without bytes it is the last chunk's.
        """
        digest = hashlib.sha256()
        length = 0
        for part in parts:
            digest.update(part)
            length += len(part)
        words = f"{self._start}{self._signature}\n{_EMPTY_SHA256}\n{digest.hexdigest()}"
        self._signature = hmac.new(self._key, words.encode(), hashlib.sha256).hexdigest()
        return b"%x%b%b\r\n" % (length, _SIGNATURE_FIELD, self._signature.encode())

    def end(self) -> bytes:
        """The last chunk, which is empty, whole."""
        return self.frame() + CRLF
