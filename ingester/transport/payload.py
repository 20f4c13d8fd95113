"""Writes a Body as aiohttp asks for it: one attempt, never more than pieces of it in memory.

A cached buffer goes back to the budget only when the transport has no byte of it left: a drained
write is not a flushed one (uvloop keeps a reference to what it was given, and buffers refilled
after a drain corrupted 2 of 40 parts). Nor is a piece used again after a body that was given up: a
thread that is stuck in a read may still fill it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable
from traceback import clear_frames
from typing import TypeVar

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ingester.arena import Region
from ingester.auth.chunks import ChunkSeed, encoded_length
from ingester.budget import Buffer
from ingester.errors import NoThreadError
from ingester.files import PIECE_BYTES, SourceChanged
from ingester.threads import ReadTimeoutError
from ingester.transport.body import Body, source_failure
from ingester.transport.chunked import ChunkWriter
from ingester.transport.flush import flushed_position, wait_until_flushed
from ingester.transport.last_words import LastWords, Listener
from ingester.transport.reply import SourceFailed
from ingester.transport.small_files import TOGETHER_BYTES, SmallFiles
from ingester.transport.source import Source

HALF_PIECE_BYTES = PIECE_BYTES // 2
NO_PIECE = Region(memoryview(b""), None)

T = TypeVar("T")


class SourceBroke(Exception):  # noqa: N818 - ends one attempt; a SourceFailed says what happened
    """Reading a file for the body failed. Carries no path: aiohttp quotes it in its own error."""


class _Written:
    """A cached buffer that the transport was given, and the position its bytes end at."""

    __slots__ = ("buffer", "end")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.end = sys.maxsize  # not yet written as a whole


class BodyPayload(Payload):
    """Writes a Body once: one attempt.

    ``handed_over`` counts the bytes given to the transport; ``failure`` says which file broke the
    attempt off, ``no_thread`` that the system did. ``piece`` is the worker's own MiB for what is
    read again.
    """

    def __init__(self, body: Body, piece: Region, chunk_bytes: int = 0) -> None:
        super().__init__(body, content_type=body.framing.content_type)
        length = body.framing.content_length
        self._size = encoded_length(length, chunk_bytes) if chunk_bytes else length
        self.body = body
        self._chunks: ChunkWriter | None = None
        self._piece = piece
        self._writer: AbstractStreamWriter | None = None
        self._transport: asyncio.WriteTransport | None = None  # aiohttp forgets one it closes
        self.local_address: object = None  # of its connection
        self._listener: Listener | None = None
        self._small = SmallFiles()
        self._unflushed: deque[_Written] = deque()
        self._read_ahead: deque[memoryview] = deque()
        self.handed_over = 0
        self.reading = False  # it waits for a disk, not for the server
        self.complete = False
        self._settled = False
        self.failure: SourceFailed | None = None
        self.no_thread: NoThreadError | None = None

    def sign_chunks(self, seed: ChunkSeed | None) -> None:
        """Send the body in chunks signed from this seed, or as it is."""
        self._chunks = None if seed is None else ChunkWriter(seed, self.body.readers.hashing)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not text, and never in memory as a whole."""
        del encoding, errors
        raise TypeError("a body of files is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body.

        Raises:
            SourceBroke: a file is not what was scanned; ``failure`` has the details.
            NoThreadError: there is none to read or to sign; ``no_thread`` says it, too.
            aiohttp.ClientError, OSError: the connection broke.
        """
        self._writer = writer
        self._transport = writer.transport
        if writer.transport is not None:
            self.local_address = writer.transport.get_extra_info("sockname")
            self._listener = Listener(writer.transport)
        try:
            await self._write_all(writer)
        except BaseException as error:
            if isinstance(error, NoThreadError):  # aiohttp would call the connection lost
                self.no_thread = NoThreadError(*error.args)
            # aiohttp keeps it with the request; its frames would keep an open file and the piece
            # until a collection, which is rare.
            clear_frames(error.__traceback__)
            raise
        self.complete = True

    async def _write_all(self, writer: AbstractStreamWriter) -> None:
        framing = self.body.framing
        small = self._small
        each = zip(framing.before, self.body.instances, strict=True)
        for index, (lead, instance) in enumerate(each):
            buffer = instance.buffer
            if buffer is not None and small.add(lead, buffer):
                if small.size >= TOGETHER_BYTES:
                    await self._put(small.take())
                continue
            if small:
                await self._put(small.take())
            await self._write_file(writer, index, lead)
        if small or framing.end:
            await self._put(small.take(framing.end))
        if self._chunks is not None:
            await self._chunks.end(writer)

    def last_words(self) -> LastWords | None:
        """What the server had answered when the connection broke, where nobody has read it."""
        return None if self._listener is None else self._listener.last_words()

    def stop_listening(self) -> None:
        """The exchange is over."""
        if self._listener is not None:
            self._listener.close()

    def settle(self) -> Region | None:
        """Give back every buffer the transport is done with and forget the others, and the piece.

        A body that was given up is not left to drain: a closing transport keeps its socket and
        its bytes until the peer has taken them, and uvloop does not end before that.
        Returns the piece, if it may be used again; the second time nothing happens.
        """
        if self._settled:
            return None
        self._settled = True
        position = -1 if self._writer is None else flushed_position(self._writer)
        clean = self._writer is None or position >= self._writer.output_size
        if self._transport is not None and not clean and (position < 0 or not self.complete):
            self._transport.abort()
        while self._unflushed:
            written = self._unflushed.popleft()
            if written.end <= position:
                written.buffer.give_back()
            else:
                written.buffer.drop()
        piece, self._piece = self._piece, NO_PIECE  # aiohttp may keep this for a while
        self._read_ahead.clear()
        self._small.clear()
        return piece if clean and self.complete else None  # a thread may still be filling it

    async def _put(self, data: bytes | memoryview) -> None:
        assert self._writer is not None  # noqa: S101 - set by write()
        self.handed_over += len(data)
        self.body.bytes_out += len(data)
        if self._chunks is None:
            await self._writer.write(data)
        else:
            await self._chunks.write(self._writer, data)

    async def _write_file(self, writer: AbstractStreamWriter, index: int, lead: bytes) -> None:
        instance = self.body.instances[index]
        buffer = instance.buffer
        if buffer is not None and buffer.view is not None:
            written = _Written(buffer)  # first: a write that is broken off may have taken it
            self._unflushed.append(written)
            await self._put(buffer.after(lead))
            written.end = writer.output_size
            self._give_back_flushed(writer)
            return
        if lead:
            await self._put(lead)
        try:
            if instance.size > len(self._piece):
                await self._stream(writer, index)
                return
            if not self._read_ahead:
                await self._fill_piece(writer, index)
        except (OSError, SourceChanged) as error:
            if isinstance(error, OSError) and not self.reading:
                raise  # the connection's, not the file's
            raise self._broken_off(index, error) from None
        finally:
            self.reading = False
        await self._put(self._read_ahead.popleft())

    def _give_back_flushed(self, writer: AbstractStreamWriter) -> None:
        position = flushed_position(writer)
        while self._unflushed and self._unflushed[0].end <= position:
            self._unflushed.popleft().buffer.give_back()

    async def _fill_piece(self, writer: AbstractStreamWriter, index: int) -> None:
        await wait_until_flushed(writer)
        self._give_back_flushed(writer)
        loop = asyncio.get_running_loop()
        body = self.body
        views: list[memoryview] = []
        failures: list[OSError | SourceChanged] = []
        reader, read = body.reader_of(index), body.read_group
        try:
            await self._reads(
                loop.run_in_executor(reader, read, index, self._piece, views, failures)
            )
        except ReadTimeoutError as error:
            failure = failures[0] if failures else error
            raise self._broken_off(index + len(views), failure) from None
        if not views:  # else the one that failed is read again when it is its turn
            raise self._broken_off(index, failures[0]) from None
        self._read_ahead.extend(views)

    def _broken_off(self, index: int, error: OSError | SourceChanged) -> SourceBroke:
        """Keep what happened to file i; returns what ends the attempt.

        The error comes from a thread, in whose frames are its future, the file and the piece: each
        would be kept until a collection finds that they are kept by each other alone.
        """
        self.failure = source_failure(index, error)
        error.__traceback__ = error.__context__ = None
        return SourceBroke()

    async def _reads(self, result: Awaitable[T]) -> T:
        """Wait for a reader thread; after an error of it ``reading`` stays set."""
        self.reading = True
        value = await result
        self.reading = False
        return value

    async def _stream(self, writer: AbstractStreamWriter, index: int) -> None:
        """Send a large file in two alternating halves of the piece: read one, send the other."""
        loop = asyncio.get_running_loop()
        body = self.body
        instance = body.instances[index]
        reader, wants_sha256 = body.reader_of(index), body.wants_sha256(index)
        opening = loop.run_in_executor(reader, Source.open, instance, wants_sha256)
        opened = await self._reads(opening)
        file: AsyncFileIO = wrap(opened, executor=reader)
        sent, half, last = 0, 0, 0
        await wait_until_flushed(writer)
        while sent < instance.size:
            await wait_until_flushed(writer, leave=last)
            start = half * HALF_PIECE_BYTES
            length = min(HALF_PIECE_BYTES, instance.size - sent)
            view = self._piece.view[start : start + length]
            count = await self._reads(file.readinto(view))
            assert count  # noqa: S101 - see Source
            sent += count
            if sent == instance.size and opened.digest is not None:
                body.check_sha256(index, opened.digest.digest())
            await self._put(view[:count])
            half, last = half ^ 1, count
