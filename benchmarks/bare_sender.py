"""The least that sends a corpus with the project's own libraries: what they have to give at all.

Takes: the directory of the corpus's files (a directory a study), the URL of the store, the
authority to trust ("" for plain HTTP), and whether every file is digested ("sha256" or "none").
Gives: a JSON object with what was met, and what was in bodies that were answered 200.
Bounds: `REQUESTS` at a time, and buffers of `RING_BYTES`, or of two pieces, for each.

Threads read, and digest, pieces of a body, one call and one write for each piece; aiohttp on uvloop
sends. No header is read, nothing is signed, recorded, tried again or said of a file, and what one
directory holds is believed to be of one study. Ends at the first trouble.
"""

import asyncio
import hashlib
import json
import os
import secrets
import ssl
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import aiohttp
import uvloop
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ingester.transport.flush import wait_until_flushed

REQUESTS: Final = 8
READERS: Final = 4
BODY_BYTES: Final = 32 << 20
PIECE_BYTES: Final = 1 << 20
RING_BYTES: Final = 12 << 20


class File(NamedTuple):
    """A file of the corpus."""

    path: str
    size: int  # bytes


def _in_lists(files: Sequence[File], most: int) -> Iterator[list[File]]:
    """Lists of `most` bytes at most, or of one file."""
    current: list[File] = []
    size = 0
    for file in files:
        if current and size + file.size > most:
            yield current
            current, size = [], 0
        current.append(file)
        size += file.size
    if current:
        yield current


def bodies(directory: str) -> Iterator[list[File]]:
    """The files of each request."""
    for folder, _, names in os.walk(directory):
        paths = [os.path.join(folder, name) for name in sorted(names)]
        yield from _in_lists([File(path, os.stat(path).st_size) for path in paths], BODY_BYTES)


class Body(Payload):
    """A multipart body that is read while it is written.

    `ring` is the worker's own, for one body after the other.
    """

    def __init__(
        self,
        files: Sequence[File],
        readers: ThreadPoolExecutor,
        ring: list[bytearray],
        *,
        digest: bool,
    ) -> None:
        boundary = secrets.token_hex(16)
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        super().__init__(files, content_type=kind)
        self._head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"\r\n--{boundary}--".encode()
        self._pieces = list(_in_lists(files, PIECE_BYTES))
        self._readers = readers
        self._ring = ring
        self._digest = digest
        self._size = sum(len(self._head) + file.size for file in files) + len(self._end)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not text."""
        del encoding, errors
        raise TypeError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it: a buffer is filled again when the transport has nothing of it left."""
        pieces, ring = self._pieces, self._fitting_ring()
        ahead = len(ring) - 1
        reads = deque(self._reading(number) for number in range(min(ahead, len(pieces))))
        for number in range(len(pieces)):
            view = await reads.popleft()
            await writer.write(view)
            if number + ahead < len(pieces):
                # into the buffer of the piece before this one
                await wait_until_flushed(writer, leave=len(view))
                reads.append(self._reading(number + ahead))
        await writer.write(self._end)

    def _fitting_ring(self) -> list[bytearray]:
        longest = max(sum(len(self._head) + file.size for file in piece) for piece in self._pieces)
        if not self._ring or len(self._ring[0]) < longest:
            self._ring[:] = [bytearray(longest) for _ in range(max(2, RING_BYTES // longest))]
        return self._ring

    def _reading(self, number: int) -> asyncio.Future[memoryview]:
        loop = asyncio.get_running_loop()
        buffer = self._ring[number % len(self._ring)]
        return loop.run_in_executor(self._readers, self._read, self._pieces[number], buffer)

    def _read(self, piece: Sequence[File], buffer: bytearray) -> memoryview:
        view = memoryview(buffer)
        end = 0
        for file in piece:
            start = end + len(self._head)
            view[end:start] = self._head
            end = start + file.size
            with open(file.path, "rb", buffering=0) as content:
                if content.readinto(view[start:end]) != file.size:
                    raise EOFError(file.path)
            if self._digest:
                hashlib.sha256(view[start:end]).digest()
        return view[:end]


async def send(directory: str, url: str, ca: str, *, digest: bool) -> int:
    """How many files went out in bodies that were answered 200, which is all or an exception."""
    context: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
    todo = bodies(directory)
    sent = 0

    async def worker(session: aiohttp.ClientSession, readers: ThreadPoolExecutor) -> None:
        nonlocal sent
        ring: list[bytearray] = []
        for files in todo:
            body = Body(files, readers, ring, digest=digest)
            async with session.post(f"{url}/studies", data=body, raise_for_status=True) as answer:
                await answer.read()
            sent += len(files)

    connector = aiohttp.TCPConnector(limit=REQUESTS, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        with ThreadPoolExecutor(READERS) as readers:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(REQUESTS):
                    tasks.create_task(worker(session, readers))
    return sent


def main(arguments: Sequence[str]) -> None:
    """Send what the command line names."""
    directory, url, ca, digest = arguments
    sent = uvloop.run(send(directory, url, ca, digest=digest == "sha256"))
    print(json.dumps({"files": sent, "outcomes": {"stored": sent}}))


if __name__ == "__main__":
    main(sys.argv[1:])
