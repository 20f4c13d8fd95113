"""What a server said before it broke the connection off.

A proxy that refuses a body early answers and resets the connection. The answer has come, but when
a write meets the reset first, the transport closes the socket with the answer unread in it. So a
second descriptor of the socket is kept while a body goes out. Over TLS nothing can be read by it:
there the request counts as lost.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
from asyncio import BaseTransport
from contextlib import suppress
from email.message import Message
from typing import NamedTuple

_PIECE_BYTES = 65536
_MOST_BYTES = 1 << 20
"""What says more has sent no answer: it may go on for ever."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([345][0-9]{2})[ \r\n]")


class LastWords(NamedTuple):
    """A whole answer that is no success: none is taken from a connection that broke."""

    status: int
    headers: Message
    body: bytes


class Listener:
    """Holds a descriptor of a transport's socket until ``close``."""

    def __init__(self, transport: BaseTransport) -> None:
        self._socket: socket.socket | None = None
        own = transport.get_extra_info("socket")
        if own is not None and own.fileno() >= 0 and transport.get_extra_info("sslcontext") is None:
            self._socket = socket.socket(fileno=os.dup(own.fileno()))

    def last_words(self) -> LastWords | None:
        """Read what is left in a socket that its transport has given up; never waits."""
        received = bytearray()
        if self._socket is not None:
            with suppress(OSError):  # nothing more, or the reset behind it
                while len(received) < _MOST_BYTES and (
                    piece := self._socket.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)
                ):
                    received += piece
        return _whole_answer(bytes(received))

    def close(self) -> None:
        """The request has ended."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _whole_answer(received: bytes) -> LastWords | None:
    stream = io.BytesIO(received)
    line = _STATUS_LINE.match(stream.readline())
    if line is None:
        return None  # nothing, the rest of an answer, a success, or no HTTP
    try:
        headers = http.client.parse_headers(stream)
    except http.client.HTTPException:
        return None
    body = stream.read()
    if headers.get("Content-Length", "").strip() != str(len(body)):
        return None  # cut off, or in chunks
    return LastWords(int(line[1]), headers, body)
