"""A real server that does to each request what the test has scripted.

    with ScriptedServer() as server:
        server.push(Answer(503, {"Retry-After": "2"}), StoreThenDrop())
        server.default = StoreAll()
        ...  # point a client at server.url
        assert [request.sha256 for request in server.requests] == ...

Every POST takes the next pushed step, then the default. Every other request takes the next step
of `push_get`, then `default_get` (a QIDO-RS search in what was stored), so that a look-up in
between does not shift the script. Each connection is a thread. Whatever goes wrong inside,
a body that cannot be split included, is raised when the `with` block ends.
"""

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.exchange import ConnectionOver, Exchange, Wire
from tests.support.ledger import Ledger, Request
from tests.support.steps import (
    Answer,
    AnswerAndSee,
    Choose,
    CloseAfter,
    DropIdle,
    EarlyAnswer,
    FindStored,
    NeverAnswer,
    NeverRead,
    ReadSlowly,
    Reset,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)

__all__ = [
    "Answer",
    "AnswerAndSee",
    "Choose",
    "CloseAfter",
    "DropIdle",
    "EarlyAnswer",
    "FindStored",
    "NeverAnswer",
    "NeverRead",
    "ReadSlowly",
    "Request",
    "Reset",
    "ScriptedServer",
    "Step",
    "StoreAll",
    "StoreThenDrop",
    "Wait",
]

BACKLOG = 128


class ScriptedServer:
    """Listens on a free port of the loopback interface.

    Args:
        tls: makes it an HTTPS server.
        host: a name in `url` that the certificate has; it listens on 127.0.0.1 anyway.
        receive_buffer: SO_RCVBUF of every connection, from its first window on.
        keep_body_bytes: how much of all bodies together stays in memory after their requests.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        keep_body_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.default: Step = StoreAll()
        self.default_get: Step = FindStored()
        self.ledger = Ledger(keep_body_bytes)
        self.handshake_failures = 0
        self._tls = tls
        self._host = host
        self._receive_buffer = receive_buffer
        self._script: deque[Step] = deque()
        self._get_script: deque[Step] = deque()
        self._wires: dict[Wire, threading.Thread] = {}
        self._down = threading.Event()
        self._listener = self._bind(0)
        self._listener.listen(BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="scripted", daemon=True)

    @property
    def url(self) -> str:
        """Where the DICOMweb services begin: the client posts to `url` + `/studies`."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def push(self, *steps: Step) -> None:
        """Adds steps for the next POST requests."""
        self._script.extend(steps)

    def push_get(self, *steps: Step) -> None:
        """Adds steps for the next requests that are not POST."""
        self._get_script.extend(steps)

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which their heads arrived."""
        with self.ledger.changed:
            return list(self.ledger.requests)

    @property
    def posts(self) -> list[Request]:
        """The POST requests among them."""
        return [request for request in self.requests if request.method == "POST"]

    @property
    def stored(self) -> dict[str, list[str]]:
        """The SHA-256 of every file stored, by SOP Instance UID, in the order of storing."""
        by_uid: dict[str, list[str]] = {}
        with self.ledger.changed:
            for item in self.ledger.stored:
                by_uid.setdefault(item.sop, []).append(item.sha256)
        return by_uid

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self.ledger.connections

    @property
    def peak_connections(self) -> int:
        """The most connections open at a time."""
        return self.ledger.peak_connections

    @property
    def peak_requests(self) -> int:
        """The most requests at a time: the head has arrived, the answer has not begun."""
        return self.ledger.peak_unanswered

    @property
    def answers(self) -> int:
        """How many answers were sent, whole or in part, by whatever step."""
        return self.ledger.answers

    @property
    def body_bytes(self) -> int:
        """How many body bytes of all requests together were taken."""
        return self.ledger.body_bytes

    @property
    def dropped_reuses(self) -> int:
        """How many kept connections were reset under their next request (see DropIdle)."""
        return self.ledger.dropped_reuses

    def ask_by(self, tls: ssl.SSLContext) -> None:
        """Has connections from now on made by another context."""
        self._tls = tls

    def before_answer(self, call: Callable[[int], None]) -> None:
        """Has `call(n)` called just before the first byte of the n-th answer, n from 1.

        What the step stores is stored by then. It runs in the thread of the connection: only
        this answer waits for it. An answer that is never sent is not counted.
        """
        self.ledger.before_answer = call

    def after_answer(self, call: Callable[[int], None]) -> None:
        """Has `call(n)` called when the n-th answer is with the kernel, under the same terms."""
        self.ledger.after_answer = call

    def at_body_bytes(self, count: int, call: Callable[[], None]) -> None:
        """Has `call()` called once when `count` body bytes of all requests were taken.

        With one connection the count is exact; nothing more is read there before it returns.
        """
        self.ledger.at_body_bytes(count, call)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Waits for something about this server, such as `len(server.requests) == 3`.

        Raises:
            TimeoutError: it did not come true.
        """
        with self.ledger.changed:
            if not self.ledger.changed.wait_for(condition, timeout_s):
                raise TimeoutError(f"not true within {timeout_s} s")

    def settle(self) -> None:
        """Waits until all is done that will be, for a client that has ended."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as last:
            last.shutdown(socket.SHUT_WR)
            assert last.recv(1) == b""  # so all that were in the backlog before it are accepted
        self.wait_until(lambda: self.ledger.open_connections == 0)

    def go_down(self) -> None:
        """Refuses connections, and breaks those that are open, until `come_back`.

        The port stays bound: nobody else can get it meanwhile.
        """
        self._down.set()
        self._stop_accepting()
        self._listener = self._bind(self.port)
        with self.ledger.changed:
            wires = list(self._wires)
        for wire in wires:
            wire.interrupt()
        self._join(wires)

    def come_back(self) -> None:
        """Listens again on the same port."""
        self._listener.listen(BACKLOG)
        self._down.clear()
        self._acceptor = threading.Thread(target=self._accept, name="scripted", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ledger.stopping.set()
        self.go_down()
        self._listener.close()
        errors = [problem for problem in self.ledger.errors if isinstance(problem, Exception)]
        if errors and error is None:
            raise ExceptionGroup("in the scripted server", errors)
        for problem in errors:
            if error is not None:
                error.add_note(f"in the scripted server: {problem!r}")

    def _bind(self, port: int) -> socket.socket:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._receive_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            listener.bind(("127.0.0.1", port))
            listener.settimeout(0.2)
        except OSError:
            listener.close()
            raise
        return listener

    def _stop_accepting(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor.is_alive():
            self._acceptor.join(60)
        self._listener.close()

    def _join(self, wires: list[Wire]) -> None:
        deadline = time.monotonic() + 60
        for wire in wires:
            thread = self._wires.get(wire)
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    raise TimeoutError(f"connection {wire.number} does not end")

    def _accept(self) -> None:
        while not self._down.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
            except OSError:  # the client is gone already
                sock.close()
                continue
            wire = Wire(sock, self.ledger.connection_opened())
            name = f"scripted-{self.port}-{wire.number}"
            thread = threading.Thread(target=self._serve, args=(wire,), name=name, daemon=True)
            with self.ledger.changed:
                self._wires[wire] = thread
            thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            self._handshake(wire)
            while self._one_request(wire):
                pass
        except ConnectionOver:
            pass
        except BaseException as error:  # noqa: BLE001 - the test gets it
            self.ledger.failed(error)
        finally:
            if self._down.is_set():
                wire.reset()
            wire.sock.close()
            with self.ledger.changed:
                self._wires.pop(wire, None)
            self.ledger.connection_closed()

    def _handshake(self, wire: Wire) -> None:
        try:
            wire.handshake()
        except OSError as error:
            self.handshake_failures += 1
            raise ConnectionOver from error

    def _one_request(self, wire: Wire) -> bool:
        """Serves the next request of a connection; False when the connection is over."""
        if wire.drop_next_request:
            if wire.wait_next():
                self.ledger.drop_reuse()
            wire.reset()
            return False
        head = wire.read_head()
        if head is None:
            return False
        request = _parse(head, wire.number)
        self.ledger.request_began(request)
        exchange = Exchange(request, wire, self.ledger, self.url)
        try:
            self._next_step(request.method).play(exchange)
        finally:
            exchange.settle()
            self.ledger.request_ended(request)
        closing = request.headers.get("connection", "").lower() == "close"
        return request.status is not None and request.complete and not exchange.closed | closing

    def _next_step(self, method: str) -> Step:
        script, default = (
            (self._script, self.default)
            if method == "POST"
            else (self._get_script, self.default_get)
        )
        try:
            return script.popleft()
        except IndexError:
            return default


def _parse(head: bytes, connection: int) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, version = first.split(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not HTTP/1.1: {first!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(f"a header cannot be read: {line!r}")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise ValueError("a body without a Content-Length is not what this client sends")
    return Request(
        number=-1,
        connection=connection,
        method=method,
        path=path,
        headers=headers,
        received_at=time.monotonic(),
        content_length=int(headers.get("content-length", "0")),
    )
