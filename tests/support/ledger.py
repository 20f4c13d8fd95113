"""What the scripted server has seen: shared by its threads, read by the test at any moment."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.stow import Received


@dataclass(slots=True)
class Request:
    """One request, as far as it has been received."""

    number: int  # from 0, in the order in which the heads arrived
    connection: int  # from 0
    method: str
    path: str  # the target as sent, with its query
    headers: dict[str, str]  # names in lower case; repeated ones joined with ", "
    received_at: float  # monotonic seconds, when the head was complete
    content_length: int
    body_bytes: int = 0  # of the body, taken by the server so far
    status: int | None = None  # of the answer, set just before its first byte goes out
    body_kept: bool = True
    _kept: bytearray = field(default_factory=bytearray, repr=False)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)

    @property
    def complete(self) -> bool:
        """Says whether the whole body has arrived."""
        return self.body_bytes == self.content_length

    @property
    def sha256(self) -> str:
        """The digest of the body as far as it was received."""
        return self._digest.hexdigest()

    @property
    def body(self) -> bytes:
        """The body as far as it was received.

        Raises:
            LookupError: it was longer than the server was asked to keep.
        """
        if not self.body_kept:
            raise LookupError(f"this body was not kept: {self.body_bytes} bytes")
        return bytes(self._kept)

    def add(self, data: bytes, *, keep: bool) -> None:
        """Takes the next bytes of the body."""
        self._digest.update(data)
        if keep and self.body_kept:
            self._kept += data
        else:
            self.forget_body()
        self.body_bytes += len(data)

    def forget_body(self) -> None:
        """Frees the body; its digest and length stay."""
        self.body_kept = False
        self._kept = bytearray()

    @property
    def kept_bytes(self) -> int:
        """What this body costs in memory."""
        return len(self._kept)


def _nothing(_number: int) -> None:
    pass


class Ledger:
    """Counts, requests, stored instances and hooks; `changed` is notified of every change.

    Args:
        keep_body_bytes: how much of all bodies together stays in memory after their requests.
    """

    def __init__(self, keep_body_bytes: int) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.stopping = threading.Event()
        self.requests: list[Request] = []
        self.stored: list[Received] = []
        self.errors: list[BaseException] = []
        self.connections = 0
        self.open_connections = 0
        self.peak_connections = 0
        self.dropped_reuses = 0
        self.unanswered = 0
        self.peak_unanswered = 0
        self.answers = 0
        self.body_bytes = 0
        self.before_answer: Callable[[int], None] = _nothing
        self.after_answer: Callable[[int], None] = _nothing
        self.keep_body_bytes = keep_body_bytes
        self._kept_bytes = 0
        self._alarms: list[tuple[int, Callable[[], None]]] = []

    def connection_opened(self) -> int:
        """Counts a connection and gives its number."""
        with self.changed:
            self.connections += 1
            self.open_connections += 1
            self.peak_connections = max(self.peak_connections, self.open_connections)
            self.changed.notify_all()
            return self.connections - 1

    def connection_closed(self) -> None:
        """Counts a connection out."""
        with self.changed:
            self.open_connections -= 1
            self.changed.notify_all()

    def request_began(self, request: Request) -> None:
        """Numbers a request and counts it as unanswered."""
        with self.changed:
            request.number = len(self.requests)
            self.requests.append(request)
            self.unanswered += 1
            self.peak_unanswered = max(self.peak_unanswered, self.unanswered)
            self.changed.notify_all()

    def request_settled(self) -> None:
        """Counts a request out: its answer begins, or there will be none."""
        with self.changed:
            self.unanswered -= 1
            self.changed.notify_all()

    def request_ended(self, request: Request) -> None:
        """Keeps the body of a request that is over, if it still fits."""
        with self.changed:
            if self._kept_bytes + request.kept_bytes > self.keep_body_bytes:
                request.forget_body()
            self._kept_bytes += request.kept_bytes
            self.changed.notify_all()

    def next_answer(self) -> int:
        """Numbers an answer, from 1."""
        with self.changed:
            self.answers += 1
            return self.answers

    def store(self, instances: list[Received]) -> None:
        """Remembers what a step stored."""
        with self.changed:
            self.stored.extend(instances)
            self.changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """Remembers an error that the test must see."""
        with self.changed:
            self.errors.append(error)
            self.changed.notify_all()

    def drop_reuse(self) -> None:
        """Counts a kept connection that was reset under its next request."""
        with self.changed:
            self.dropped_reuses += 1
            self.changed.notify_all()

    def at_body_bytes(self, count: int, call: Callable[[], None]) -> None:
        """Has `call` called once, as soon as `count` body bytes of all requests were taken."""
        with self.changed:
            self._alarms.append((count, call))

    def room(self, wanted: int) -> int:
        """Bounds a read so that it ends at the next count that somebody waits for."""
        with self.changed:
            ahead = [count - self.body_bytes for count, _ in self._alarms]
            return max(1, min([wanted, *ahead]))

    def take(self, request: Request, data: bytes, *, keep_all: bool) -> None:
        """Adds body bytes to a request and calls whoever waited for their count."""
        keep = keep_all or request.body_bytes + len(data) <= self.keep_body_bytes
        with self.changed:
            request.add(data, keep=keep)
            self.body_bytes += len(data)
            due = [alarm for alarm in self._alarms if alarm[0] <= self.body_bytes]
            self._alarms = [alarm for alarm in self._alarms if alarm not in due]
            self.changed.notify_all()
        for _, call in due:
            call()
