"""An HTTP proxy on loopback: CONNECT for HTTPS, the whole URL for HTTP (RFC 9110 9.3.6, 7.6)."""

from __future__ import annotations

import base64
import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HEAD_LIMIT = 65536


class Proxy:
    """Listens on a free port. ``asks_for``: user:password that a client has to send."""

    def __init__(self, asks_for: str | None = None) -> None:
        self.heads: list[str] = []  # of the requests to the proxy itself
        self.refused = 0
        self._wanted = None
        if asks_for is not None:
            self._wanted = "Basic " + base64.b64encode(asks_for.encode()).decode()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def methods(self) -> set[str]:
        """Of the requests to the proxy itself."""
        return {head.partition(" ")[0] for head in self.heads}

    @property
    def authorizations(self) -> set[str | None]:
        """The Proxy-Authorization of each of them."""
        return {_header(head, "proxy-authorization") for head in self.heads}

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
        for each in self._sockets:
            each.close()

    def _start(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError, OSError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ConnectionError):
            self._carry(client)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _carry(self, client: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received and len(received) < _HEAD_LIMIT:
            piece = client.recv(4096)
            if not piece:
                return
            received += piece
        raw, _, rest = received.partition(b"\r\n\r\n")
        head = raw.decode("latin-1")
        self.heads.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        if self._wanted is not None and _header(head, "proxy-authorization") != self._wanted:
            self.refused += 1
            client.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="p"\r\nContent-Length: 0\r\n'
                b"Connection: close\r\n\r\n"
            )
            return
        if method == "CONNECT":
            server = self._connect(target)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # One request a connection is all that is told apart here.
            parts = urlsplit(target)
            server = self._connect(parts.netloc)
            lines = [
                line
                for line in head.split("\r\n")[1:]
                if not line.lower().startswith(("proxy-", "connection:"))
            ]
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            first = f"{method} {path} HTTP/1.1"
            own = "\r\n".join([first, *lines, "Connection: close"])
            server.sendall(own.encode("latin-1") + b"\r\n\r\n")
        server.sendall(rest)
        self._relay(client, server)

    def _connect(self, address: str) -> socket.socket:
        host, _, port = address.rpartition(":")
        server = socket.create_connection((host, int(port)), 10)
        server.settimeout(None)
        self._sockets.append(server)
        return server

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        of = {each.fileno(): each for each in other}
        poll = select.poll()  # for any number of descriptors that the process has
        for number in of:
            poll.register(number, select.POLLIN)
        while not self._over.is_set():
            for number, _ in poll.poll(100):
                readable = of[number]
                data = readable.recv(65536)
                if not data:
                    with suppress(OSError):
                        other[readable].shutdown(socket.SHUT_WR)
                    return
                other[readable].sendall(data)


def _header(head: str, name: str) -> str | None:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return None
