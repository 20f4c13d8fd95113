"""A file as pydicom may see it: it reads as it likes, and cannot take more than we allow.

Bounds: MAX_READ_BYTES in total (seeking is free); MAX_READS calls, since every element and item
costs at least one read and becomes an object, as does each of the values between backslashes;
MAX_INFLATED_BYTES of a deflated data set, which pydicom would otherwise inflate whole, and 4 MiB
of it can hold 4 GiB. After that the file seems to end. Values of more than MAX_VALUE_BYTES are
passed over and seem to be empty: pydicom converts some that nobody asked for, a character set of
4 MiB to 500 MiB of objects. The worst hostile files that were made to test this cost 21 MiB and
1 s.
"""

import os
import zlib
from io import BytesIO
from typing import BinaryIO, Final

MAX_READ_BYTES: Final = 4 << 20
MAX_READS: Final = 50_000
MAX_INFLATED_BYTES: Final = 4 << 20
MAX_VALUE_BYTES: Final = 8 << 10
"""No identifier is so long. pydicom looks for the end of an undefined length in such pieces."""

_CHUNK_BYTES: Final = 16 << 10
_NOTHING_DEFLATED: Final = b"\x03\0"


class BoundedReader:
    """Read, seek and tell over a binary file; what stopped a reader is kept in attributes.

    Attributes:
        exhausted: A bound was met: what was read last may be incomplete.
        cut: Something was asked for that the file is too short to have.
        error: The OSError of the file itself. pydicom turns it into one of its own.
        is_inflated: pydicom has come to a deflated data set: from here on this reads its head.
    """

    def __init__(self, stream: BinaryIO, file_size: int) -> None:
        self._stream = stream
        self._file_size = file_size
        self._bytes_left = MAX_READ_BYTES
        self._reads_left = MAX_READS
        self._reads_ahead = False
        self.is_inflated = False
        self.exhausted = False
        self.cut = False
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or pass over more than MAX_VALUE_BYTES.

        pydicom reads without a size only to inflate everything after group 2. It gets an empty
        data set, and what was inflated can be read from here, under the same bounds.
        """
        if size < 0:
            self._inflate()
            return _NOTHING_DEFLATED
        if size > MAX_VALUE_BYTES:
            self.seek(size, os.SEEK_CUR)
            return b""
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
        """Whether all up to the end was read or skipped, and not only read ahead to inflate it."""
        return self.cut or (not self._reads_ahead and self._stream.tell() >= self._file_size)

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
        self._reads_left = max(0, self._reads_left - data.count(b"\\"))
        return data

    def _inflate(self) -> None:
        """Inflate the head of the data set, and read that from now on.

        Raises:
            zlib.error: It is not a deflated stream.
        """
        self._reads_ahead = True
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
        self._stream, self._file_size = BytesIO(head), len(head)
        self._reads_ahead, self.is_inflated = False, True
