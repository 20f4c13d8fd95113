"""A STOW-RS server that costs far less than the client it is there to measure.

Takes: Store Instances requests (PS3.18 10.5) with a Content-Length at `/studies` and
`/studies/{study}`, multipart/related or a single application/dicom.
Gives: a real Store Instances Response (Annex I) naming every instance received.
Bounds: one buffer of `BUFFER_BYTES` a connection; of a body only its UIDs are kept.
Ends: on SIGTERM or SIGINT, with one JSON line of totals on stdout and status 0.

It stores nothing, and believes the client about the study in the path. The first line on stdout
says where it listens: `{"url": ..., "pid": ...}`.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

from benchmarks.parts import FramingError, Part, PartScanner

# blast of 32 MiB bodies: 128 KiB to 512 KiB 0.24 CPU s/GB, 2 MiB 0.30; more than META_MAX_BYTES
BUFFER_BYTES: Final = 256 * 1024
HEAD_MAX_BYTES: Final = 64 * 1024

_PATH = re.compile(r"/studies(/[0-9.]{1,64})?/?(\?|\Z)")
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_TYPE = re.compile(r';\s*type="?application/dicom"?\s*(;|\Z)', re.IGNORECASE)
_PHRASES: Final = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
}
_STORED: Final = '{"00081150":{"vr":"UI","Value":["%s"]},"00081155":{"vr":"UI","Value":["%s"]}}'
_NOT_UNDERSTOOD: Final = '{"00081197":{"vr":"US","Value":[49152]}}'  # C000, and no UID to name


@dataclass(slots=True)
class Totals:
    """What was received by requests that were answered with a manifest."""

    requests: int = 0
    refused: int = 0  # requests answered without a manifest
    instances: int = 0
    bytes: int = 0  # request bodies, delimiters and part headers included
    sop_instance_uids: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)  # by SOP Instance UID, the last one wins


def manifest(parts: list[Part]) -> tuple[int, bytes]:
    """Answers a request body: the status and the Store Instances Response, PS3.18 Annex I."""
    stored = [
        _STORED % (part.sop_class_uid, part.sop_instance_uid)
        for part in parts
        if part.sop_instance_uid
    ]
    lists = []
    if stored:
        lists.append(_sequence("00081199", stored))
    failures = len(parts) - len(stored)
    if failures:
        lists.append(_sequence("0008119A", [_NOT_UNDERSTOOD] * failures))
    status = 200 if not failures else 202 if stored else 409
    return status, "".join(("{", ",".join(lists), "}")).encode("ascii")


def _sequence(tag: str, items: list[str]) -> str:
    return f'"{tag}":{{"vr":"SQ","Value":[{",".join(items)}]}}'


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, as far as the sink cares."""

    content_length: int = 0
    boundary: bytes | None = None  # None: the body is one file
    refusal: tuple[int, str] | None = None  # what to answer once the body was read past
    keep_alive: bool = True
    expects_continue: bool = False


def read_head(raw: bytes) -> Head:
    """Reads a request line and its headers (RFC 9112), without the empty line that ends them."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    method, _, rest = first.partition(" ")
    path, _, version = rest.rpartition(" ")
    keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    length = headers.get("content-length", "0")
    content_type = headers.get("content-type", "")
    boundary = _BOUNDARY.search(content_type)
    refusal = None
    if not version.startswith("HTTP/1.") or not re.fullmatch(r"[0-9]{1,18}", length):
        refusal, keep_alive, length = (400, "not an HTTP/1 request"), False, "0"
    elif "transfer-encoding" in headers or (method == "POST" and "content-length" not in headers):
        refusal, keep_alive, length = (411, "a Content-Length is required"), False, "0"
    elif not _PATH.match(path):
        refusal = 404, "the sink knows /studies and /studies/{study}"
    elif method != "POST":
        refusal = 405, "the sink only stores"
    elif re.match(r"application/dicom\s*(;|\Z)", content_type, re.IGNORECASE):
        boundary = None
    elif not (
        re.match(r"multipart/related\s*;", content_type, re.IGNORECASE)
        and _TYPE.search(content_type)
    ):
        refusal = 415, "neither multipart/related of application/dicom nor application/dicom"
    elif boundary is None:
        refusal = 400, "the Content-Type has no boundary"
    return Head(
        content_length=int(length),
        boundary=(boundary[1] or boundary[2]).encode("latin-1") if boundary else None,
        refusal=refusal,
        keep_alive=keep_alive,
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


class SinkProtocol(asyncio.BufferedProtocol):
    """One connection: heads and bodies pass through one buffer, in place."""

    def __init__(self, totals: Totals, *, latency_s: float, digests: bool) -> None:
        self._totals = totals
        self._latency_s = latency_s
        self._digests = digests
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._fill = 0  # how much of the buffer holds bytes
        self._pos = 0  # how much of that was taken
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None  # None between requests
        self._remaining = 0  # body bytes not taken yet
        self._scanner = PartScanner(None)
        self._refusal: tuple[int, str] | None = None
        self._waiting = False  # an answer is being held back by the latency

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's only looks like one

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forgets the transport: a late answer has nowhere to go."""
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Gives the free end of the buffer; it is never empty (see `buffer_updated`)."""
        return self._view[self._fill :]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what it can, and moves the few bytes left to the front."""
        self._fill += nbytes
        self._advance()

    def _advance(self) -> None:
        self._pos = 0
        while not self._waiting and (self._read_body() if self._head else self._read_head()):
            pass
        left = self._fill - self._pos
        if self._pos and left:
            self._view[:left] = bytes(self._view[self._pos : self._fill])
        self._fill = left

    def _read_head(self) -> bool:
        """Returns whether a head was complete."""
        stop = self._buffer.find(b"\r\n\r\n", self._pos, self._fill)
        if stop >= 0:
            head = read_head(bytes(self._view[self._pos : stop]))
            self._pos = stop + 4
        elif self._fill - self._pos > HEAD_MAX_BYTES:
            head = Head(refusal=(431, "the head does not end"), keep_alive=False)
            self._pos = self._fill
        else:
            return False
        self._head = head
        self._remaining = head.content_length
        self._refusal = head.refusal
        self._scanner = PartScanner(head.boundary, digests=self._digests)
        if head.expects_continue and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bool:
        """Returns whether a body was complete."""
        end = min(self._fill, self._pos + self._remaining)
        final = end - self._pos == self._remaining
        after = end  # a body that is refused is read past, so that the client reads why
        if self._refusal is None:
            try:
                after = self._scanner.consume(self._buffer, self._pos, end, final=final)
            except FramingError as error:
                self._refusal = 400, str(error)
        self._remaining -= after - self._pos
        self._pos = after
        if final:
            self._answer()
        return final

    def _answer(self) -> None:
        if self._latency_s:
            self._waiting = True
            if self._transport is not None:
                self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._latency_s, self._answer_late)
        else:
            self._write_answer()

    def _answer_late(self) -> None:
        self._waiting = False
        self._write_answer()
        if self._transport is not None:
            self._transport.resume_reading()
            self._advance()

    def _write_answer(self) -> None:
        head, self._head = self._head, None
        if head is None or self._transport is None:
            return
        totals = self._totals
        if self._refusal is None and not self._scanner.parts:
            self._refusal = 400, "the body holds no part"
        if self._refusal is None:
            parts = self._scanner.parts
            status, body = manifest(parts)
            totals.requests += 1
            totals.bytes += head.content_length
            for part in parts:
                if part.sop_instance_uid:
                    totals.instances += 1
                    totals.sop_instance_uids.add(part.sop_instance_uid)
                    if self._digests:
                        totals.digests[part.sop_instance_uid] = part.sha256
            content_type = "application/dicom+json"
        else:
            status, text = self._refusal
            totals.refused += 1
            body, content_type = text.encode("ascii"), "text/plain"
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s"
            % (
                status,
                _PHRASES[status].encode("ascii"),
                content_type.encode("ascii"),
                len(body),
                b"" if head.keep_alive else b"Connection: close\r\n",
                body,
            )
        )
        if not head.keep_alive:
            self._transport.close()


def _say(**values: str | float) -> None:
    print(json.dumps(values), flush=True)


async def serve(*, port: int, latency_s: float, verify: str | None) -> None:
    """Serves on loopback until a signal, then prints the totals and writes the digests."""
    totals = Totals()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(
        lambda: SinkProtocol(totals, latency_s=latency_s, digests=verify is not None),
        "127.0.0.1",
        port,
        backlog=1024,
    )
    port = server.sockets[0].getsockname()[1]
    cpu_at_start = time.process_time()
    _say(url=f"http://127.0.0.1:{port}", pid=os.getpid())
    await stopped.wait()
    cpu_s = time.process_time() - cpu_at_start
    server.close()
    if verify is not None:
        with open(verify, "w", encoding="ascii") as out:  # noqa: ASYNC230 - nothing is served now
            json.dump(totals.digests, out)
    _say(
        requests=totals.requests,
        refused=totals.refused,
        instances=totals.instances,
        distinct_instances=len(totals.sop_instance_uids),
        bytes=totals.bytes,
        cpu_s=round(cpu_s, 3),
    )


def main() -> None:
    """Reads the options and serves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument(
        "--verify", metavar="FILE", help="hash every instance; {sop: sha256} goes to FILE on exit"
    )
    options = parser.parse_args()
    uvloop.run(serve(port=options.port, latency_s=options.latency_ms / 1000, verify=options.verify))


if __name__ == "__main__":
    main()
