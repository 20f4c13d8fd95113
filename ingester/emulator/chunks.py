"""``Content-Encoding: aws-chunked`` with a signature on every chunk, decoded as it arrives.

    10000;chunk-signature=<64 hexadecimal digits>CRLF <65536 bytes> CRLF … 0;chunk-signature=…CRLF CRLF

Each signature signs the one before, so chunks cannot be left out, repeated or exchanged; the last
one is empty and says that nothing is missing. Data is handed on before the signature of its chunk
is checked: whoever takes it must not act on it before the end.
"""  # noqa: E501 - the frame on one line

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator

from ingester.emulator.answers import Refusal
from ingester.emulator.sigv4 import Claim, invalid_signature

MIN_CHUNK_BYTES = 8192  # but the last one with data

_HEADER = re.compile(rb"([0-9a-fA-F]{1,12});chunk-signature=([0-9a-f]{64})")
_MAX_HEADER_BYTES = 128


class ChunkReader:
    """Feed it the encoded body, then close it; see ``payload.Reader``."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._previous = claim.signature
        self._signature = ""
        self._digest = hashlib.sha256()
        self._data = b""
        self._at = 0
        self._size = 0
        self._left = 0
        self._short = False  # a chunk so short that it must be the last with data
        self._ended = False
        self._step: Callable[[], bytes | None] = self._header

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the next bytes, get what they decode to.

        Raises:
            Refusal: 400 for a broken frame, 403 for a signature.
        """
        self._data = self._data[self._at :] + data
        self._at = 0
        while (piece := self._step()) is not None:
            if piece:
                yield piece

    def close(self) -> None:
        """Say that the body is over.

        Raises:
            Refusal: 400, the last, empty chunk is missing.
        """
        if not self._ended or self._at < len(self._data):
            raise Refusal(400, "body: aws-chunked: the last, empty chunk is missing or cut off")

    def _header(self) -> bytes | None:
        if self._ended:
            if self._at < len(self._data):
                raise Refusal(400, "body: aws-chunked: bytes after the last chunk")
            return None
        end = self._data.find(b"\r\n", self._at, self._at + _MAX_HEADER_BYTES)
        if end < 0 and len(self._data) - self._at < _MAX_HEADER_BYTES:
            return None
        found = _HEADER.fullmatch(self._data, self._at, max(end, self._at))
        if found is None:
            raise Refusal(400, "body: aws-chunked: not 'size;chunk-signature=…'")
        self._size = self._left = int(found[1], 16)
        if self._size and self._short:
            raise Refusal(403, f"a chunk but the last has under {MIN_CHUNK_BYTES} bytes")
        self._short = self._size < MIN_CHUNK_BYTES
        self._signature = found[2].decode("ascii")
        self._digest = hashlib.sha256()
        self._at = end + 2
        self._step = self._content
        return b""

    def _content(self) -> bytes | None:
        if self._left == 0:
            self._step = self._end
            return b""
        piece = self._data[self._at : self._at + self._left]
        if not piece:
            return None
        self._at += len(piece)
        self._left -= len(piece)
        self._digest.update(piece)
        return piece

    def _end(self) -> bytes | None:
        if len(self._data) - self._at < 2:
            return None
        if not self._data.startswith(b"\r\n", self._at):
            raise Refusal(400, "body: aws-chunked: no CRLF after a chunk")
        expected = self._claim.chunk_signature(self._previous, self._digest.hexdigest())
        if not hmac.compare_digest(expected, self._signature):
            raise invalid_signature("The signature of a chunk is not the one we calculated.")
        self._previous = expected
        self._at += 2
        self._ended = self._size == 0
        self._step = self._header
        return b""
