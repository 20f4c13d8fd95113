"""The steps of a script: what the scripted server does with one request.

A step may follow another that has read the body already, or part of it: counts of bytes are
counts from the beginning of the body.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import parse_qs, urlsplit

from tests.support.exchange import Exchange
from tests.support.ledger import Request
from tests.support.multipart import MultipartError
from tests.support.stow import (
    Received,
    files_of,
    read_instance,
    search_result,
    store_instances_response,
)

DICOM_JSON = "application/dicom+json"


class Step(Protocol):
    """Deals with one request: reads, answers or breaks."""

    def play(self, exchange: Exchange) -> None:
        """Plays the step; an exchange that gets no answer is closed afterwards."""


def _nobody(_uid: str) -> None:
    return None


def _everybody(_uid: str) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAll:
    """Stores every instance and answers with a correct Store Instances Response.

    Without options 200 when all are stored, 202 when some failed or have warnings, 409 when
    none is stored. A part without a SOP Instance UID is a failure without a UID.
    """

    status: int | None = None
    only: Callable[[str], bool] = _everybody  # others are neither stored nor named
    named: Callable[[str], bool] = _everybody  # others may be stored, but are in no list
    failures: Mapping[str, int] | Callable[[str], int | None] = _nobody  # UID: FailureReason
    warnings: Mapping[str, int] = field(default_factory=dict)  # UID: WarningReason
    unknown: Sequence[str] = ()  # UIDs never sent that the answer names as stored
    content_type: str | None = DICOM_JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    failed_uid_tag: str = "00081155"
    only_answer_bytes: int | None = None

    def play(self, exchange: Exchange) -> None:
        """Reads, stores, answers."""
        exchange.read_body(keep_all=True)
        status, body = self.store(exchange)
        headers = dict(self.headers)
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        exchange.answer(status, headers, body, only_bytes=self.only_answer_bytes)

    def store(self, exchange: Exchange) -> tuple[int, bytes]:
        """Stores what was read; gives the status and the body of the answer."""
        request = exchange.request
        try:
            files = files_of(request.headers.get("content-type", ""), request.body)
        except (MultipartError, UnicodeDecodeError) as error:
            error.add_note(f"request {request.number}: {request.method} {request.path}")
            exchange.ledger.failed(error)
            return 400, b""
        received = [read_instance(file) for file in files]
        reason_of = self.failures if callable(self.failures) else self.failures.get
        stored: list[Received] = []
        failed: list[tuple[Received, int]] = []
        for item in received:
            reason = reason_of(item.sop)
            if reason is not None:
                failed.append((item, reason))
            elif item.sop and self.only(item.sop):
                stored.append(item)
        exchange.ledger.store(stored)
        nameless = sum(not item.sop for item in received)
        named = [item for item in stored if self.named(item.sop)]
        named += [Received("", uid, "1.2.840.10008.5.1.4.1.1.7", "", "") for uid in self.unknown]
        status = 200
        if failed or nameless or any(item.sop in self.warnings for item in stored):
            status = 202 if stored else 409
        body = store_instances_response(
            stored=named,
            warnings_of=self.warnings,
            failed=[pair for pair in failed if self.named(pair[0].sop)],
            failed_uid_tag=self.failed_uid_tag,
            other_failures=[0xC000] * nameless,
            base_url=exchange.base_url,
        )
        return self.status or status, body


@dataclass(frozen=True, slots=True)
class Answer:
    """Reads the whole body, stores nothing, answers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def play(self, exchange: Exchange) -> None:
        """Reads and answers."""
        exchange.read_body()
        exchange.answer(self.status, self.headers, self.body)


@dataclass(frozen=True, slots=True)
class AnswerAndSee:
    """Like Answer, says that it closes the connection, and sets `read` when the client closes it.

    By then the client has taken the answer in: what happens after `read` happens after that.
    """

    read: threading.Event
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def play(self, exchange: Exchange) -> None:
        """Reads, answers, waits for the client's end."""
        exchange.read_body()
        exchange.answer(self.status, {**self.headers, "Connection": "close"}, self.body)
        exchange.finish()
        self.read.set()


@dataclass(frozen=True, slots=True)
class EarlyAnswer:
    """Answers after so many bytes of the body, while the rest is still on its way.

    Afterwards: `read` takes the rest and keeps the connection; `close` says so, sends FIN and
    throws the rest away; `reset` closes at once, which may cost the client the answer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_bytes: int = 0
    afterwards: Literal["read", "close", "reset"] = "read"

    def play(self, exchange: Exchange) -> None:
        """Reads some, answers, and deals with the rest."""
        exchange.read_body(self.after_bytes)
        headers = dict(self.headers)
        if self.afterwards == "close":
            headers.setdefault("Connection", "close")
        exchange.answer(self.status, headers, self.body)
        if self.afterwards == "read":
            exchange.read_body()
        elif self.afterwards == "close":
            exchange.finish()
        else:
            exchange.reset()


@dataclass(frozen=True, slots=True)
class Reset:
    """Resets the connection (RST) after so many bytes of the body; None: after all of it."""

    after_bytes: int | None = 0

    def play(self, exchange: Exchange) -> None:
        """Reads some and resets."""
        exchange.read_body(self.after_bytes)
        exchange.reset()


@dataclass(frozen=True, slots=True)
class CloseAfter:
    """Closes the connection (FIN) after so many bytes of the body; None: after all of it."""

    after_bytes: int | None = 0

    def play(self, exchange: Exchange) -> None:
        """Reads some and closes."""
        exchange.read_body(self.after_bytes)
        exchange.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreThenDrop:
    """Stores everything, then closes without an answer, or after its first bytes."""

    store: StoreAll = field(default_factory=StoreAll)
    answer_bytes: int = 0
    reset: bool = False

    def play(self, exchange: Exchange) -> None:
        """Reads, stores, and breaks."""
        exchange.read_body(keep_all=True)
        status, body = self.store.store(exchange)
        if self.answer_bytes:
            headers = {"Content-Type": DICOM_JSON}
            exchange.answer(status, headers, body, only_bytes=self.answer_bytes)
        if self.reset:
            exchange.reset()
        else:
            exchange.finish()


@dataclass(frozen=True, slots=True)
class ReadSlowly:
    """Drains the body at a rate, with a small receive buffer, then goes on with a step.

    A window of up to 64 KiB was offered before the request came; for less than that, give the
    server itself a `receive_buffer`.
    """

    bytes_per_s: float
    chunk: int = 4096
    then: Step = field(default_factory=StoreAll)

    def play(self, exchange: Exchange) -> None:
        """Reads slowly, then plays the other step."""
        exchange.wire.set_receive_buffer(max(2048, self.chunk))
        exchange.read_body(keep_all=True, chunk=self.chunk, bytes_per_s=self.bytes_per_s)
        self.then.play(exchange)


@dataclass(frozen=True, slots=True)
class NeverRead:
    """Reads the head only, for some seconds or until the end; then resets."""

    seconds: float | None = None

    def play(self, exchange: Exchange) -> None:
        """Holds the connection."""
        exchange.hold(self.seconds)
        exchange.reset()


@dataclass(frozen=True, slots=True)
class NeverAnswer:
    """Reads the whole body and is silent, for some seconds or until the end; then closes."""

    seconds: float | None = None

    def play(self, exchange: Exchange) -> None:
        """Reads and holds the connection."""
        exchange.read_body()
        exchange.hold(self.seconds)
        exchange.finish()


@dataclass(frozen=True, slots=True)
class DropIdle:
    """Plays a step, then loses the kept connection without having said so.

    `after_answer` closes it (FIN) once it was idle for `idle_s`; with 0 at once, whether the next
    request is on its way or not, which is then lost without having been counted. `next_request` resets it when
    the next request arrives, of which not a byte is read.
    """

    then: Step = field(default_factory=StoreAll)
    when: Literal["after_answer", "next_request"] = "after_answer"
    idle_s: float = 0.0

    def play(self, exchange: Exchange) -> None:
        """Plays the other step and spoils the connection."""
        self.then.play(exchange)
        if self.when == "next_request":
            exchange.wire.drop_next_request = True
        elif self.idle_s == 0 or not exchange.wire.wait_readable(self.idle_s):
            exchange.finish()


@dataclass(frozen=True, slots=True)
class Wait:
    """Reads the body, waits for seconds or for an event of the test, then plays a step."""

    until: float | threading.Event
    then: Step = field(default_factory=StoreAll)

    def play(self, exchange: Exchange) -> None:
        """Reads, waits, and plays the other step."""
        exchange.read_body(keep_all=True)
        if isinstance(self.until, threading.Event):
            while not self.until.is_set():
                exchange.hold(0.01)
        else:
            exchange.hold(self.until)
        self.then.play(exchange)


@dataclass(frozen=True, slots=True)
class Choose:
    """Reads the body, then lets the test choose the step by the request."""

    pick: Callable[[Request], Step]

    def play(self, exchange: Exchange) -> None:
        """Reads and plays what was chosen."""
        exchange.read_body(keep_all=True)
        self.pick(exchange.request).play(exchange)


@dataclass(frozen=True, slots=True)
class FindStored:
    """Answers a QIDO-RS search for instances from what was stored (PS3.18 10.6).

    Knows `/instances` below a study and series or not, SOPInstanceUID, StudyInstanceUID and
    SeriesInstanceUID (lists by comma or backslash), `limit` and `offset`.
    """

    nothing_found: int = 200  # with an empty list; some servers say 204

    def play(self, exchange: Exchange) -> None:
        """Searches and answers."""
        exchange.read_body()
        url = urlsplit(exchange.request.path)
        if not url.path.endswith("/instances"):
            exchange.answer(404)
            return
        query = {name: ",".join(values) for name, values in parse_qs(url.query).items()}
        wanted = {
            field_name: set(query[keyword].replace("\\", ",").split(","))
            for field_name, keyword in (
                ("sop", "SOPInstanceUID"),
                ("study", "StudyInstanceUID"),
                ("series", "SeriesInstanceUID"),
            )
            if keyword in query
        }
        segments = url.path.split("/")
        for level, field_name in (("studies", "study"), ("series", "series")):
            if level in segments:
                wanted[field_name] = {segments[segments.index(level) + 1]}
        with exchange.ledger.changed:
            by_uid = {item.sop: item for item in exchange.ledger.stored}
        found = [
            search_result(item)
            for item in by_uid.values()
            if all(getattr(item, name) in uids for name, uids in wanted.items())
        ]
        begin = int(query.get("offset", "0"))
        found = found[begin : begin + int(query.get("limit", "1000"))]
        status = 200 if found else self.nothing_found
        exchange.answer(status, {"Content-Type": DICOM_JSON}, json.dumps(found).encode())
