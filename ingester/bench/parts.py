"""Finds the instances in a STOW-RS body while it streams through one small reused buffer.

Takes: a window of the connection's buffer at a time (`PartScanner.consume`).
Gives: one `Part` for each body part, with the two UIDs of its file meta (PS3.10 7.1).
Costs: one `bytearray.find` over every byte, and a few struct reads a part; nothing is copied.

Why the file meta and not the data set: a benchmark's sink must cost far less than its subject, and
the corpora here give both the same UIDs. It is no judge of foreign files; the emulator is.
"""

import hashlib
import re
import struct
from enum import Enum, auto
from typing import Final, NamedTuple

PART_HEAD_MAX_BYTES: Final = 16 * 1024
META_MAX_BYTES: Final = 64 * 1024

_ELEMENT = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<I")
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"})
_UID = re.compile(rb"[0-9.]{1,64}\Z")
_PART_TYPE = re.compile(
    rb"^content-type:[ \t]*application/dicom[ \t]*(;|\r|$)", re.IGNORECASE | re.MULTILINE
)


class FramingError(Exception):
    """The body is not what its Content-Type and Content-Length say: the request is answered 400."""


class Part(NamedTuple):
    """What is kept of one body part."""

    sop_class_uid: str  # (0002,0002) UI, empty when the part is not Part 10
    sop_instance_uid: str  # (0002,0003) UI, empty when the part is not Part 10
    sha256: str  # hex digest of the part's bytes, empty unless asked for


class NeedMore(Exception):  # noqa: N818 - it is a question, not an error
    """The bytes end before the file meta does."""


def read_uids(buffer: bytearray, start: int, end: int) -> tuple[str, str]:
    """Reads SOP Class and SOP Instance UID from the file meta, PS3.10 7.1.

    Returns:
        The two UIDs; two empty strings when `buffer[start:end]` is no Part 10 file.

    Raises:
        NeedMore: `end` lies before the second UID does.
    """
    magic = start + 128
    if end < magic + 4:
        raise NeedMore
    if buffer[magic : magic + 4] != b"DICM":
        return "", ""
    sop_class_uid = ""
    at = magic + 4
    while True:
        if end < at + 12:
            raise NeedMore
        group, element, vr, length = _ELEMENT.unpack_from(buffer, at)
        if group != 2:
            return "", ""
        at += 8
        if vr in _LONG_VRS:
            (length,) = _LONG_LENGTH.unpack_from(buffer, at)
            at += 4
        if element in (2, 3):
            if end < at + length:
                raise NeedMore
            value = bytes(buffer[at : at + length]).rstrip(b"\0 ")
            if not _UID.match(value):
                return "", ""
            if element == 3:
                return (sop_class_uid, value.decode("ascii")) if sop_class_uid else ("", "")
            sop_class_uid = value.decode("ascii")
        at += length


class _State(Enum):
    FIRST_DELIMITER = auto()
    AFTER_DELIMITER = auto()
    PART_HEAD = auto()
    META = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class PartScanner:
    """Walks one request body; the caller keeps the bytes that `consume` did not take.

    Args:
        boundary: of a multipart/related body, without its dashes; None when the body is one file.
        digests: whether each part's SHA-256 is wanted.
    """

    def __init__(self, boundary: bytes | None, *, digests: bool = False) -> None:
        self.parts: list[Part] = []
        self._delimiter = None if boundary is None else b"\r\n--" + boundary
        self._keep = 0 if boundary is None else len(boundary) + 3
        self._digests = digests
        self._state = _State.META if boundary is None else _State.FIRST_DELIMITER
        self._hash = hashlib.sha256()
        self._uids = "", ""

    def consume(self, buffer: bytearray, pos: int, end: int, *, final: bool) -> int:
        """Takes what can be understood of `buffer[pos:end]`.

        Args:
            buffer: where the body passes through.
            pos: the first byte not taken yet.
            end: one past the last byte that is there.
            final: whether the body ends at `end`.

        Returns:
            The first byte that must be offered again with more behind it; `end` when `final`.

        Raises:
            FramingError: the body is malformed, or it ends too early.
        """
        while True:
            state = self._state
            if state is _State.CONTENT:
                after = self._content(buffer, pos, end, final=final)
            elif state is _State.META:
                after = self._meta(buffer, pos, end, final=final)
            elif state is _State.PART_HEAD:
                after = self._part_head(buffer, pos, end)
            elif state is _State.AFTER_DELIMITER:
                after = self._after_delimiter(buffer, pos, end)
            elif state is _State.FIRST_DELIMITER:
                after = self._first_delimiter(buffer, pos, end)
            else:
                return self._epilogue(buffer, pos, end)
            if self._state is state:
                if final:
                    raise FramingError("the body ends before its closing delimiter")
                return after
            pos = after

    def _first_delimiter(self, buffer: bytearray, pos: int, end: int) -> int:
        assert self._delimiter is not None  # noqa: S101 - only multipart bodies begin here
        if end < pos + len(self._delimiter):
            return pos
        for delimiter in (self._delimiter[2:], self._delimiter):
            if buffer.startswith(delimiter, pos, end):
                self._state = _State.AFTER_DELIMITER
                return pos + len(delimiter)
        raise FramingError("the body does not begin with its delimiter")

    def _after_delimiter(self, buffer: bytearray, pos: int, end: int) -> int:
        if end < pos + 2:
            return pos
        mark = buffer[pos : pos + 2]
        if mark == b"\r\n":
            # The CRLF stays: it may also be the first half of the empty line that ends the head.
            self._state = _State.PART_HEAD
            return pos
        if mark == b"--":
            self._state = _State.EPILOGUE
            return pos + 2
        raise FramingError("a delimiter is followed by something else")

    def _part_head(self, buffer: bytearray, pos: int, end: int) -> int:
        stop = buffer.find(b"\r\n\r\n", pos, end)
        if stop < 0:
            if end - pos > PART_HEAD_MAX_BYTES:
                raise FramingError("a part's header does not end")
            return pos
        if not _PART_TYPE.search(buffer[pos + 2 : stop]):
            raise FramingError("a part is not application/dicom")
        self._state = _State.META
        if self._digests:
            self._hash = hashlib.sha256()
        return stop + 4

    def _find(self, buffer: bytearray, pos: int, end: int) -> int:
        return -1 if self._delimiter is None else buffer.find(self._delimiter, pos, end)

    def _meta(self, buffer: bytearray, pos: int, end: int, *, final: bool) -> int:
        stop = self._find(buffer, pos, end)
        limit = stop if stop >= 0 else max(pos, end - self._keep)
        try:
            self._uids = read_uids(buffer, pos, limit)
        except NeedMore:
            if stop < 0 and not final and limit - pos < META_MAX_BYTES:
                return pos
            self._uids = "", ""
        self._state = _State.CONTENT
        return self._taken(buffer, pos, limit, ends=stop >= 0)

    def _content(self, buffer: bytearray, pos: int, end: int, *, final: bool) -> int:
        stop = self._find(buffer, pos, end)
        if stop >= 0:
            return self._taken(buffer, pos, stop, ends=True)
        if final and self._delimiter is None:
            return self._taken(buffer, pos, end, ends=True)
        return self._taken(buffer, pos, max(pos, end - self._keep), ends=False)

    def _taken(self, buffer: bytearray, pos: int, stop: int, *, ends: bool) -> int:
        """Accounts for content bytes; `ends` when a delimiter or the body's end follows them."""
        if self._digests:
            with memoryview(buffer) as view:
                self._hash.update(view[pos:stop])
        if not ends:
            return stop
        digest = self._hash.hexdigest() if self._digests else ""
        self.parts.append(Part(*self._uids, digest))
        if self._delimiter is None:
            self._state = _State.EPILOGUE
            return stop
        self._state = _State.AFTER_DELIMITER
        return stop + len(self._delimiter)

    def _epilogue(self, buffer: bytearray, pos: int, end: int) -> int:
        if bytes(buffer[pos:end]) not in (b"", b"\r", b"\n", b"\r\n"):
            raise FramingError("bytes follow the closing delimiter")
        return end
