"""A strict reader of multipart/related bodies (PS3.18 section 8.6, RFC 2046 section 5.1.1).

Takes the body in chunks of any size, gives events, and holds no more than one chunk, a delimiter
and a part's header. Nothing is repaired: no preamble, no padding after a boundary, no bare line
feed, no folded header, nothing after the end delimiter but one CRLF. A delimiter is found by
``bytes.find`` (about 10 GB/s, 5 GB/s on data made of near misses), never byte by byte.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_PART_HEADER_BYTES = 8192

_HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")

_NUMBER = re.compile(r"[0-9]{1,18}")


class MultipartError(ValueError):
    """The body breaks the multipart grammar; says how, never quotes the body."""


class PartBegin(NamedTuple):
    """A part starts; its header names are in lower case."""

    headers: dict[str, str]


class PartEnd(NamedTuple):
    """The part that was begun is complete: its delimiter has been seen."""

    size: int  # bytes of content


Event = PartBegin | bytes | PartEnd  # bytes: the next piece of the content of the current part


class MultipartParser:
    """Feed it the body, then close it.

    Args:
        boundary: The boundary parameter of the Content-Type, without its dashes.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._data = b""
        self._at = 0
        self._in_part = False
        self._size = 0
        self._declared_size: int | None = None
        self._ended = False
        self._step: Callable[[list[Event]], bool] = self._first_delimiter

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Give the next bytes of the body, get what they complete. To be iterated to its end.

        Raises:
            MultipartError: The grammar is broken, behind the events that were given. The parser
                is of no use afterwards.
        """
        self._data = self._data[self._at :] + chunk
        self._at = 0
        more = True
        while more:
            events: list[Event] = []
            more = self._step(events)
            yield from events

    def close(self) -> None:
        """Say that the body is over.

        Raises:
            MultipartError: The end delimiter is missing, or stray bytes follow it.
        """
        if not self._ended:
            raise MultipartError("the body ends before the end delimiter")
        if self._data[self._at :] not in (b"", b"\r\n"):
            raise MultipartError("bytes after the end delimiter")

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _first_delimiter(self, _: list[Event]) -> bool:
        dash_boundary = self._delimiter[2:]
        if not dash_boundary.startswith(self._data[: len(dash_boundary)]):
            raise MultipartError("the body does not begin with the boundary delimiter")
        if self._left < len(dash_boundary):
            return False
        self._at += len(dash_boundary)
        self._step = self._after_delimiter
        return True

    def _after_delimiter(self, events: list[Event]) -> bool:
        if self._left < 2:
            return False
        mark = self._data[self._at : self._at + 2]
        if mark not in (b"\r\n", b"--"):
            raise MultipartError("neither CRLF nor two dashes after a boundary")
        # Only now is it a delimiter, and not the boundary on a line of the content.
        if self._in_part:
            events.append(PartEnd(self._size))
        elif mark == b"--":
            raise MultipartError("no part in the body")
        self._at += 2
        self._step = self._part_header if mark == b"\r\n" else self._after_end
        self._ended = mark == b"--"
        return True

    def _part_header(self, events: list[Event]) -> bool:
        if self._data.startswith(b"\r\n", self._at):
            raise MultipartError("a part without a header")
        end = self._data.find(b"\r\n\r\n", self._at)
        if (len(self._data) if end < 0 else end) - self._at > MAX_PART_HEADER_BYTES:
            raise MultipartError("a part's header is too long")
        if end < 0:
            return False
        headers = _read_header(self._data[self._at : end])
        length = headers.get("content-length")
        if length is not None and not _NUMBER.fullmatch(length):
            raise MultipartError("a part's Content-Length is not a number")
        self._declared_size = None if length is None else int(length)
        self._size = 0
        events.append(PartBegin(headers))
        self._in_part = True
        # The CRLF of the empty line stays: a delimiter right behind it would be made with it.
        self._at = end + 2
        self._step = self._content_begin
        return True

    def _content_begin(self, _: list[Event]) -> bool:
        head = self._data[self._at : self._at + len(self._delimiter)]
        if head == self._delimiter:
            raise MultipartError("a delimiter where the content of a part begins")
        if self._delimiter.startswith(head):
            return False
        self._at += 2
        self._step = self._content
        return True

    def _content(self, events: list[Event]) -> bool:
        found = self._data.find(self._delimiter, self._at)
        # Without a delimiter the last bytes stay: it may go on in the next chunk.
        end = found if found >= 0 else len(self._data) - len(self._delimiter) + 1
        if end > self._at:
            events.append(self._data[self._at : end])
            self._size += end - self._at
            self._at = end
        if found < 0:
            return False
        if self._declared_size not in (None, self._size):
            raise MultipartError("a part's Content-Length is not the length of its content")
        self._at += len(self._delimiter)
        self._step = self._after_delimiter
        return True

    def _after_end(self, _: list[Event]) -> bool:
        rest = self._data[self._at :]
        if not b"\r\n".startswith(rest[:3]):
            raise MultipartError("bytes after the end delimiter")
        return False


def _read_header(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        found = _HEADER_LINE.fullmatch(line)
        if found is None:
            raise MultipartError("a part's header has a line that is not 'name: value'")
        name = found.group(1).decode("ascii").lower()
        if name in headers:
            raise MultipartError(f"a part's header has a field twice: {name}")
        headers[name] = found.group(2).strip(b" \t").decode("latin-1")
    return headers
