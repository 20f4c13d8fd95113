"""A body in signed chunks of one size (``aws-chunked``), cut and signed as it goes out.

A chunk's signature stands before its bytes, so they are gathered first: copied, 0.1 ms a MiB, into
a buffer that is the transport's from then on and never used again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Protocol

from ingester.auth.chunks import CRLF, ChunkSeed, ChunkSigner


class Wire(Protocol):
    """Where the chunks go: what aiohttp gives to a payload."""

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take bytes, and perhaps keep a reference to them."""


class ChunkWriter:
    """Writes the chunks of one attempt. Hashing happens in ``executor``."""

    def __init__(self, seed: ChunkSeed, executor: Executor) -> None:
        self._signer = ChunkSigner(seed)
        self._size = seed.chunk_bytes
        self._executor = executor
        self._chunk = bytearray()

    async def write(self, writer: Wire, data: bytes | memoryview) -> None:
        """Take bytes of the body; full chunks go out."""
        view = memoryview(data)
        while view:
            room = self._size - len(self._chunk)
            self._chunk += view[:room]
            view = view[room:]
            if len(self._chunk) == self._size:
                await self._send(writer)

    async def end(self, writer: Wire) -> None:
        """Send what is left, and the empty chunk that ends the body."""
        if self._chunk:
            await self._send(writer)
        await writer.write(self._signer.end())

    async def _send(self, writer: Wire) -> None:
        chunk, self._chunk = self._chunk, bytearray()
        loop = asyncio.get_running_loop()
        frame = await loop.run_in_executor(self._executor, self._signer.frame, chunk)
        await writer.write(frame)
        await writer.write(chunk)
        await writer.write(CRLF)
