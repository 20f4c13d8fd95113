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
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import uvloop

from benchmarks.parts import FramingError, Part, PartScanner

BUFFER_BYTES: Final = 256 * 1024  # 64 KiB to 1 MiB measure alike; it must exceed META_MAX_BYTES
HEAD_MAX_BYTES: Final = 64 * 1024

_PATH = re.compile(r"/studies(/[0-9.]{1,64})?/?(\?|\Z)")
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.I)
_TYPE = re.compile(r';\s*type="?application/dicom"?\s*(;|\Z)', re.I)
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
_STORED: Final = (
    '{"00081150":{"vr":"UI","Value":["%s"]},"00081155":{"vr":"UI","Value":["%s"]},'
    '"00081190":{"vr":"UR","Value":["%s/studies/-/series/-/instances/%s"]}}'
)
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


def manifest(parts: list[Part], url: str) -> tuple[int, bytes]:
    """Answers a request body: the status and the Store Instances Response, PS3.18 Annex I."""
    stored = [
        _STORED % (part.sop_class_uid, part.sop_instance_uid, url, part.sop_instance_uid)
        for part in parts
        if part.sop_instance_uid
    ]
    lists = []
    if stored:
        lists.append('"00081199":{"vr":"SQ","Value":[%s]}' % ",".join(stored))
    failures = len(parts) - len(stored)
    if failures:
        lists.append(
            '"0008119A":{"vr":"SQ","Value":[%s]}' % ",".join([_NOT_UNDERSTOOD] * failures)
        )
    status = 200 if not failures else 202 if stored else 409
    return status, ("{%s}" % ",".join(lists)).encode("ascii")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, as far as the sink cares."""

    content_length: int
    boundary: bytes | None  # None: the body is one file
    refusal: tuple[int, str] | None  # what to answer once the body was read past
    keep_alive: bool
    expects_continue: bool


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
    elif re.match(r"application/dicom\s*(;|\Z)", content_type, re.I):
        boundary = None
    elif not (re.match(r"multipart/related\s*;", content_type, re.I) and _TYPE.search(content_type)):
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

    def __init__(self, totals: Totals, url: str, latency_s: float, *, digests: bool) -> None:
        self._totals = totals
        self._url = url
        self._latency_s = latency_s
        self._digests = digests
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._fill = 0
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None  # None between requests
        self._remaining = 0  # body bytes not taken yet
        self._scanner = PartScanner(None)
        self._refusal: tuple[int, str] | None = None
        self._waiting = False  # an answer is being held back by the latency

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport to answer on."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_server gives no other
        self._transport = transport

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
        pos = 0
        while not self._waiting:
            after = self._read_head(pos) if self._head is None else self._read_body(pos)
            if after is None:
                break
            pos = after
        left = self._fill - pos
        if pos and left:
            self._view[:left] = bytes(self._view[pos : self._fill])
        self._fill = left

    def _read_head(self, pos: int) -> int | None:
        """Returns where the body begins, or None when the head is not complete."""
        stop = self._buffer.find(b"\r\n\r\n", pos, self._fill)
        if stop < 0:
            if self._fill - pos > HEAD_MAX_BYTES:
                self._head = Head(0, None, (431, "the head does not end"), False, False)
                self._answer()
                return self._fill
            return None
        head = read_head(bytes(self._view[pos:stop]))
        self._head = head
        self._remaining = head.content_length
        self._refusal = head.refusal
        self._scanner = PartScanner(head.boundary, digests=self._digests)
        if head.expects_continue and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return stop + 4

    def _read_body(self, pos: int) -> int | None:
        """Returns where the next request begins, or None when the body is not complete."""
        end = min(self._fill, pos + self._remaining)
        final = end - pos == self._remaining
        after = end  # a body that is refused is read past, so that the client reads why
        if self._refusal is None:
            try:
                after = self._scanner.consume(self._buffer, pos, end, final=final)
            except FramingError as error:
                self._refusal = 400, str(error)
        self._remaining -= after - pos
        if final:
            self._answer()
            return after
        left = self._fill - after
        if after and left:
            self._view[:left] = bytes(self._view[after : self._fill])
        self._fill = left
        return None

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
            status, body = manifest(parts, self._url)
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
