"""The body of one request: measured, decoded, and vouched for at its end.

Memory: the piece that was just received. ``100 Continue`` is sent when somebody begins to read, so
a request that is refused by its head is refused before its body is on the way.
"""

import re
from collections.abc import AsyncIterator

from aiohttp import HttpVersion11, web

from ingester.emulator.answers import Refusal
from ingester.emulator.payload import PayloadMode, mode_of, reader_of
from ingester.emulator.sigv4 import Claim

# HealthImaging takes up to 1 GB of DICOM data a request. Whether that is the body, and whether the
# last byte counts, is not known: here a body must be smaller.
BODY_LIMIT_BYTES = 1_000_000_000

_NUMBER = re.compile(r"[0-9]{1,18}")


class Body:
    """What came with a request that may have a body.

    Args:
        request: Its headers are there; nothing of its body was read.
        limit_bytes: The least decoded size that is refused.
        claim: The signature of the request; None if nobody asks for one.

    Raises:
        Refusal: 400, 403, 411 or 413, by the head alone.
    """

    def __init__(self, request: web.Request, limit_bytes: int, claim: Claim | None) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self.is_begun = False
        self.content_encoding = request.headers.get("Content-Encoding", "identity").lower()
        self.mode: PayloadMode | None = None  # None: nobody vouches for it
        self._size: int | None = request.content_length
        declared = ""
        if claim is not None:
            declared = request.headers.get("x-amz-content-sha256", "")
            self.mode = mode_of(declared, self.content_encoding)
        self._reader = reader_of(self.mode, claim, declared)
        if self.mode is not None:
            self._size = self._decoded_size(request.headers.get("x-amz-decoded-content-length"))
        if self._size is not None and self._size >= limit_bytes:
            raise self._too_large()

    @property
    def is_held(self) -> bool:
        """Only the end tells whether this is what was signed: nothing of it may be kept before."""
        if self.mode in (PayloadMode.SHA256, PayloadMode.AWS_CHUNKED):
            return True
        return self._size is not None and self._request.content_length is None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The decoded body. Complete and vouched for when this ends by itself.

        Raises:
            Refusal: 400, 403 or 413; nothing that was given is to be believed if ``is_held``.
        """
        await self._continue()
        size = 0
        async for data in self._request.content.iter_any():
            for piece in self._reader.feed(data):
                size += len(piece)
                if size >= self._limit_bytes:
                    raise self._too_large()
                yield piece
        self._reader.close()
        if self._size not in (None, size):
            raise Refusal(400, "x-amz-decoded-content-length is not the length of what arrived")

    async def _continue(self) -> None:
        self.is_begun = True
        if "Expect" in self._request.headers and self._request.version == HttpVersion11:
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0  # it is no part of the answer

    def _decoded_size(self, declared: str | None) -> int | None:
        content_length = self._request.content_length
        if self.mode is PayloadMode.AWS_CHUNKED:
            self.content_encoding = "identity"  # what is left when the reader is through with it
            content_length = None
        if declared is None:
            if self.mode in (PayloadMode.LITERAL, PayloadMode.AWS_CHUNKED):
                raise Refusal(411, "x-amz-decoded-content-length is missing")
            return content_length
        if _NUMBER.fullmatch(declared) is None:
            raise Refusal(400, "x-amz-decoded-content-length is not a number")
        if content_length not in (None, int(declared)):
            raise Refusal(400, "x-amz-decoded-content-length is not that of the body")
        return int(declared)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a body must be smaller than {self._limit_bytes} bytes")


BODY = web.RequestKey("body", Body)


async def continue_later(request: web.Request) -> None:
    """Leave it to ``Body`` to ask for the rest. The ``expect_handler`` of every route."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
