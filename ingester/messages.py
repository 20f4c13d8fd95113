"""Messages on a stream socket between a run and the processes that read for it."""

from __future__ import annotations

import socket
import struct

_LENGTH = struct.Struct("=I")
_RECEIVE_BYTES = 64 << 10

READY = b"\1"
"""What a process says once, on the socket it gets others on: from now on nobody waits for it to
begin."""


def message(payload: bytes) -> bytes:
    """The payload as it goes out."""
    return _LENGTH.pack(len(payload)) + payload


class Messages:
    """Receives messages; several may come at once."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._received = bytearray()

    def next(self) -> bytes | None:
        """The next one, or None at the end of the stream. Blocks. Raises OSError."""
        received = self._received
        while True:
            if len(received) >= _LENGTH.size:
                end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
                if len(received) >= end:
                    payload = bytes(received[_LENGTH.size : end])
                    del received[:end]
                    return payload
            more = self._peer.recv(_RECEIVE_BYTES)
            if not more:
                return None
            received += more
