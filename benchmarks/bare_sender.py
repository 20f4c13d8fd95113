"""The least that sends a corpus with the project's own libraries: what they have to give at all.

Takes: the directory of the corpus's files (a directory a study), the URL of the store, the
authority to trust ("" for plain HTTP), and whether every file is digested ("sha256" or "none").
Gives: a JSON object with what was met, and what was in bodies that were answered 200.
Bounds: `REQUESTS` at a time, and buffers of `RING_BYTES` for each, or two where a file is longer
than a piece: its pieces are read and digested one after the other.

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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

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


class Span(NamedTuple):
    """Bytes of a file, all of them where it is not longer than a piece."""

    file: File
    start: int
    size: int  # bytes

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return self.size == self.file.size


_Sized = TypeVar("_Sized", File, Span)


def _in_lists(items: Iterable[_Sized], most: int) -> Iterator[list[_Sized]]:
    """Lists of `most` bytes at most, or of one."""
    current: list[_Sized] = []
    size = 0
    for item in items:
        if current and size + item.size > most:
            yield current
            current, size = [], 0
        current.append(item)
        size += item.size
    if current:
        yield current


def _spans(files: Sequence[File]) -> Iterator[Span]:
    for file in files:
        for start in range(0, file.size, PIECE_BYTES):
            yield Span(file, start, min(PIECE_BYTES, file.size - start))


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
        self._pieces = list(_in_lists(_spans(files), PIECE_BYTES))
        self._readers = readers
        self._ring = ring
        self._digest = digest
        self._of_long = hashlib.sha256()  # of the long file that is being read
        self._size = sum(len(self._head) + file.size for file in files) + len(self._end)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not text."""
        del encoding, errors
        raise TypeError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it: a buffer is filled again when the transport has nothing of it left."""
        pieces, ring = self._pieces, self._fitting_ring()
        ahead = len(ring) - 1
        reads = deque(self._reading(number, ring) for number in range(min(ahead, len(pieces))))
        for number in range(len(pieces)):
            view = await reads.popleft()
            await writer.write(view)
            if number + ahead < len(pieces):
                # into the buffer of the piece before this one
                await wait_until_flushed(writer, leave=len(view))
                reads.append(self._reading(number + ahead, ring))
        await writer.write(self._end)

    def _fitting_ring(self) -> list[bytearray]:
        longest = max(sum(len(self._head) + span.size for span in piece) for piece in self._pieces)
        if not self._ring or len(self._ring[0]) < longest:
            self._ring[:] = [bytearray(longest) for _ in range(max(2, RING_BYTES // longest))]
        all_whole = all(span.whole for piece in self._pieces for span in piece)
        return self._ring if all_whole else self._ring[:2]

    def _reading(self, number: int, ring: Sequence[bytearray]) -> asyncio.Future[memoryview]:
        loop = asyncio.get_running_loop()
        buffer = ring[number % len(ring)]
        return loop.run_in_executor(self._readers, self._read, self._pieces[number], buffer)

    def _read(self, piece: Sequence[Span], buffer: bytearray) -> memoryview:
        view = memoryview(buffer)
        end = 0
        for span in piece:
            start = end
            if span.start == 0:
                start += len(self._head)
                view[end:start] = self._head
            end = start + span.size
            with open(span.file.path, "rb", buffering=0) as content:
                content.seek(span.start)
                if content.readinto(view[start:end]) != span.size:
                    raise EOFError(span.file.path)
            if self._digest:
                self._add(span, view[start:end])
        return view[:end]

    def _add(self, span: Span, content: memoryview) -> None:
        """Digest it; a long file's spans come one after the other."""
        if span.whole:
            hashlib.sha256(content).digest()
            return
        if span.start == 0:
            self._of_long = hashlib.sha256()
        self._of_long.update(content)
        if span.start + span.size == span.file.size:
            self._of_long.digest()


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
