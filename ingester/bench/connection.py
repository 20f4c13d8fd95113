"""One connection of the sink: heads and bodies pass through one buffer, in place.

Takes: bytes, plain or as they come out of TLS.
Gives: answers, and counts in `Totals` of all connections.
Bounds: `BUFFER_BYTES`; of a body only its UIDs are kept.
"""

import asyncio
import time
from typing import Final, cast

from ingester.bench.answers import Totals, manifest, response
from ingester.bench.heads import HEAD_MAX_BYTES, Head, read_head
from ingester.bench.knobs import Knobs
from ingester.bench.parts import FramingError, PartScanner

# blast of 32 MiB bodies: 128 KiB to 512 KiB 0.24 CPU s/GB, 2 MiB 0.30; more than META_MAX_BYTES
BUFFER_BYTES: Final = 256 * 1024


class SinkProtocol(asyncio.BufferedProtocol):
    """Reads requests one after another and answers each."""

    def __init__(self, totals: Totals, knobs: Knobs, *, digests: bool) -> None:
        self._totals = totals
        self._knobs = knobs
        self._digests = digests
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._fill = 0  # how much of the buffer holds bytes
        self._pos = 0  # how much of that was taken
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None  # None between requests
        self._remaining = 0  # body bytes not taken yet
        self._scanner = PartScanner(None)
        self._refusal: tuple[int, str] | None = None
        self._answered = False  # before its end: the rest of the body is read past
        self._waiting = False  # an answer is being held back by the latency
        self._pausing = False  # the line is full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's only looks like one

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forgets the transport: a late answer has nowhere to go. Counts a body broken off."""
        self._transport = None
        if self._head is not None:
            taken = self._head.content_length - self._remaining
            self._totals.wasted_bytes += taken + min(self._fill, self._remaining)
            self._head = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Gives the free end of the buffer; it is never empty (see `buffer_updated`)."""
        return self._view[self._fill :]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what it can, and moves the few bytes left to the front."""
        self._fill += nbytes
        self._advance()
        if self._knobs.line is not None:
            pause_s = self._knobs.line.pause_s(nbytes)
            if pause_s and not self._pausing and self._transport is not None:
                self._pausing = True
                self._transport.pause_reading()
                asyncio.get_running_loop().call_later(pause_s, self._line_free)

    def _line_free(self) -> None:
        self._pausing = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._waiting and not self._pausing and self._transport is not None:
            self._transport.resume_reading()

    def _advance(self) -> None:
        self._pos = 0
        while not self._waiting and (self._read_body() if self._head else self._read_head()):
            pass
        left = self._fill - self._pos
        if self._pos and left:
            self._view[:left] = bytes(self._view[self._pos : self._fill])
        self._fill = left

    def _read_head(self) -> bool:
        """Returns whether a head was complete."""
        stop = self._buffer.find(b"\r\n\r\n", self._pos, self._fill)
        if stop >= 0:
            head = read_head(bytes(self._view[self._pos : stop]))
            self._pos = stop + 4
        elif self._fill - self._pos > HEAD_MAX_BYTES:
            head = Head(refusal=(431, "the head does not end"), keep_alive=False)
            self._pos = self._fill
        else:
            return False
        self._totals.first_at = self._totals.first_at or time.monotonic()
        self._head = head
        self._remaining = head.content_length
        self._refusal = head.refusal
        self._answered = False
        self._scanner = PartScanner(head.boundary, digests=self._digests)
        if head.refusal is None and self._knobs.retry_after_s is not None:
            retry_after_s = self._knobs.retry_after_s()
            if retry_after_s is not None:
                self._refuse_early(head, retry_after_s)
        if head.expects_continue and not self._answered and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _refuse_early(self, head: Head, retry_after_s: int) -> None:
        """Answers 503 before the body, as a server does that guards its door."""
        self._totals.throttled += 1
        self._refusal = 503, "too many requests"
        # whether a body follows is the client's choice where it asked first, RFC 9110 10.1.1
        self._write_answer(head, close=head.expects_continue, retry_after_s=retry_after_s)
        self._answered = True

    def _read_body(self) -> bool:
        """Returns whether a body was complete."""
        end = min(self._fill, self._pos + self._remaining)
        final = end - self._pos == self._remaining
        after = end  # a body that is refused is read past, so that the client reads why
        if self._refusal is None:
            try:
                after = self._scanner.consume(self._buffer, self._pos, end, final=final)
            except FramingError as error:
                self._refusal = 400, str(error)
        self._remaining -= after - self._pos
        self._pos = after
        if final:
            self._end_body()
        return final

    def _end_body(self) -> None:
        if self._knobs.latency_s and not self._answered:
            self._waiting = True
            if self._transport is not None:
                self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._knobs.latency_s, self._answer_late)
        else:
            self._answer()

    def _answer_late(self) -> None:
        self._waiting = False
        self._answer()
        self._read_on()
        if self._transport is not None:
            self._advance()

    def _answer(self) -> None:
        """Ends a request whose body is there; nothing is counted when nobody hears the answer."""
        head, self._head = self._head, None
        if head is None:
            return
        if self._refusal is None and not self._scanner.parts:
            self._refusal = 400, "the body holds no part"
        if self._refusal is None:
            self._totals.take(self._scanner.parts, head.content_length)
        else:
            self._totals.wasted_bytes += head.content_length
        if not self._answered:
            self._write_answer(head, close=not head.keep_alive)

    def _write_answer(self, head: Head, *, close: bool, retry_after_s: int | None = None) -> None:
        if self._transport is None:
            return
        close = close or not head.keep_alive
        if self._refusal is None:
            status, body = manifest(self._scanner.parts)
            content_type = "application/dicom+json"
        else:
            status, text = self._refusal
            self._totals.refused += 1
            body, content_type = text.encode("ascii"), "text/plain"
        self._transport.write(
            response(status, body, content_type, close=close, retry_after_s=retry_after_s)
        )
        self._totals.last_at = time.monotonic()
        if close:
            self._transport.close()
