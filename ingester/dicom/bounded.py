"""A file as pydicom may see it: it reads as it likes, and cannot take more than we allow.

Bounds: MAX_READ_BYTES in total (seeking is free), MAX_READS calls, since every element and item
costs at least one read and becomes an object; MAX_INFLATED_BYTES of a deflated data set, which
pydicom would otherwise inflate whole, and 4 MiB of it can hold 4 GiB. After that the file seems to
end. The worst hostile files that were made to test this cost 21 MiB and 0.7 s.
"""

import zlib
from typing import BinaryIO, Final

MAX_READ_BYTES: Final = 4 << 20
MAX_READS: Final = 50_000
MAX_INFLATED_BYTES: Final = 256 << 10

_CHUNK_BYTES: Final = 16 << 10


class BoundedReader:
    """Read, seek and tell over a binary file; what stopped a reader is kept in attributes.

    Attributes:
        exhausted: A bound was met: what was read last may be incomplete.
        cut: Something was asked for that the file is too short to have.
        error: The OSError of the file itself. pydicom turns it into one of its own.
    """

    def __init__(self, stream: BinaryIO, file_size: int) -> None:
        self._stream = stream
        self._file_size = file_size
        self._bytes_left = MAX_READ_BYTES
        self._reads_left = MAX_READS
        self._inflated = False
        self.exhausted = False
        self.cut = False
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; without a size, a bounded head of the deflated data set.

        pydicom reads without a size only to inflate everything after group 2.
        """
        if size < 0:
            return self._deflated_head()
        data = self._take(size)
        # Looking for one more element at the very end of a file is how reading ends.
        if len(data) < size and not self.exhausted and (data or size > 8):
            self.cut = True
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as a file does."""
        try:
            position = self._stream.seek(offset, whence)
        except OSError as exc:
            self.error = exc if exc.errno else self.error
            raise
        if position > self._file_size:
            self.cut = True
        return position

    def tell(self) -> int:
        """Tell as a file does."""
        return self._stream.tell()

    @property
    def at_end(self) -> bool:
        """Whether everything up to the end of the file was read or skipped.

        Inflating reads ahead, so of a deflated data set only `cut` says it.
        """
        return self.cut or (not self._inflated and self._stream.tell() >= self._file_size)

    def _take(self, size: int) -> bytes:
        """Read within the bounds."""
        allowed = min(size, self._bytes_left)
        if self._reads_left == 0:
            self.exhausted = True
            return b""
        # A length that passes the end of the file asks for more than there is to have.
        if allowed < size and self._file_size - self._stream.tell() > allowed:
            self.exhausted = True
        self._reads_left -= 1
        try:
            data = self._stream.read(allowed)
        except OSError as exc:
            self.error = exc if exc.errno else self.error
            raise
        self._bytes_left -= len(data)
        return data

    def _deflated_head(self) -> bytes:
        """Inflate the head of the data set and deflate it again, stored, for pydicom to inflate.

        Raises:
            zlib.error: It is not a deflated stream.
        """
        self._inflated = True
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        head = bytearray()
        while not inflater.eof and len(head) < MAX_INFLATED_BYTES:
            chunk = inflater.unconsumed_tail or self._take(_CHUNK_BYTES)
            if not chunk:
                self.cut = True
                break
            head += inflater.decompress(chunk, MAX_INFLATED_BYTES - len(head))
        if not inflater.eof and not self.cut:
            self.exhausted = True
        deflater = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
        return deflater.compress(head) + deflater.flush()
