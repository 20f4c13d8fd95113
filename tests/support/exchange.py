"""HTTP/1.1 (RFC 9112) as the scripted server speaks it: sockets, exact byte counts, real faults."""

import select
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

from tests.support.ledger import Ledger, Request

_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux
_HEAD_LIMIT = 256 * 1024
_HEAD_CHUNK = 4096  # what is read beyond the head cannot be pushed back: keep it small


class ConnectionOver(Exception):  # noqa: N818 - not an error of the server
    """The client is gone, or the server is being stopped."""


class Wire:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.drop_next_request = False
        self._buffer = bytearray()

    def read_head(self) -> bytes | None:
        """Reads a request line with its headers; None when the client has closed before one."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise ValueError("the head of a request is longer than 256 KiB")
            data = self._receive(_HEAD_CHUNK)
            if not data:
                return None
            self._buffer += data
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    def take(self, limit: int) -> bytes:
        """Gives at least one and at most `limit` bytes.

        Raises:
            ConnectionOver: the client closed or reset the connection.
        """
        if self._buffer:
            data = bytes(self._buffer[:limit])
            del self._buffer[:limit]
        else:
            data = self._receive(limit)
        if not data:
            raise ConnectionOver
        return data

    def _receive(self, limit: int) -> bytes:
        try:
            return self.sock.recv(limit)
        except OSError as error:
            raise ConnectionOver from error

    def send(self, data: bytes) -> None:
        """Hands everything to the kernel."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise ConnectionOver from error

    def wait_readable(self, seconds: float) -> bool:
        """Waits for bytes or the end of the connection; False when time is up."""
        if self._buffer:
            return True
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def wait_next(self) -> bool:
        """Waits for the next request without reading it; False when the client closes instead.

        With TLS the client's close_notify cannot be told from a request.
        """
        if self._buffer:
            return True
        try:
            return bool(socket.socket.recv(self.sock, 1, socket.MSG_PEEK))
        except OSError:
            return False

    def wait_gone(self, seconds: float) -> bool:
        """Waits, without reading, for the client to go away."""
        poll = select.poll()
        poll.register(self.sock.fileno(), _RDHUP)
        return bool(poll.poll(seconds * 1000))

    def set_receive_buffer(self, size: int) -> None:
        """Sets SO_RCVBUF; a window that was offered already is not taken back."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def reset(self) -> None:
        """Closes with RST."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def finish(self, linger_s: float = 60.0) -> None:
        """Sends FIN, then throws away what still arrives until the client closes.

        A plain close with unread bytes would be a RST. TLS gets no close_notify.
        """
        deadline = time.monotonic() + linger_s
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not socket.socket.recv(self.sock, 65536):
                    break
        self.sock.close()

    def interrupt(self) -> None:
        """Wakes whichever thread is blocked on this connection; called by another thread."""
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def handshake(self) -> None:
        """Completes a TLS handshake, if this is a TLS connection."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()


class Exchange:
    """One request and the means to deal with it; a step gets it to play with.

    Args:
        request: the head has been read, none of the body has.
        wire: its connection.
        ledger: where everything is counted.
        base_url: of the server, for the URLs in answers.
    """

    def __init__(self, request: Request, wire: Wire, ledger: Ledger, base_url: str) -> None:
        self.request = request
        self.wire = wire
        self.ledger = ledger
        self.base_url = base_url
        self.closed = False
        self._unsettled = True
        self._continue_due = request.headers.get("expect", "").lower() == "100-continue"

    def read_body(
        self,
        upto: int | None = None,
        *,
        keep_all: bool = False,
        chunk: int = 256 * 1024,
        bytes_per_s: float | None = None,
    ) -> None:
        """Reads on until `upto` bytes of the body were taken; all of it by default.

        Raises:
            ConnectionOver: the client went away before, or the server is being stopped.
        """
        request = self.request
        goal = request.content_length if upto is None else min(upto, request.content_length)
        if request.body_bytes < goal and self._continue_due:
            self._continue_due = False
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while request.body_bytes < goal:
            limit = self.ledger.room(min(chunk, goal - request.body_bytes))
            data = self.wire.take(limit)
            self.ledger.take(request, data, keep_all=keep_all)
            if bytes_per_s is not None:
                self.pause(len(data) / bytes_per_s)

    def pause(self, seconds: float) -> None:
        """Sleeps, unless the server is being stopped."""
        if self.ledger.stopping.wait(seconds):
            raise ConnectionOver

    def hold(self, seconds: float | None) -> None:
        """Does nothing, reads nothing, until time is up, or the client or the server ends."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            left = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
            if self.ledger.stopping.is_set() or self.wire.wait_gone(max(0.0, left)):
                raise ConnectionOver

    def answer(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        only_bytes: int | None = None,
    ) -> None:
        """Sends an answer with its Content-Length, or only the first bytes of it."""
        bodiless = status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        lines = [f"HTTP/1.1 {status} {_reason(status)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if not bodiless and not any(line.lower().startswith("content-length:") for line in lines):
            lines.append(f"Content-Length: {len(body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        data = head if bodiless or self.request.method == "HEAD" else head + body
        number = self.ledger.next_answer()
        self.request.status = status
        self.settle()
        self.ledger.before_answer(number)
        self.wire.send(data[:only_bytes])
        self.ledger.after_answer(number)

    def settle(self) -> None:
        """Counts the request out, once.

        Before the first byte of an answer: a client that sends its next request as soon as it
        has the answer must never look like two requests at a time.
        """
        if self._unsettled:
            self._unsettled = False
            self.ledger.request_settled()

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.closed = True
        self.settle()
        self.wire.reset()

    def finish(self) -> None:
        """Ends the connection with FIN."""
        self.closed = True
        self.settle()
        self.wire.finish()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
