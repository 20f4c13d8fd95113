"""Reads the head of a request to the sink: a request line and its headers (RFC 9112).

Takes: the bytes before the empty line.
Gives: a `Head`, with what the request is refused for where it is no store.
"""

import re
from dataclasses import dataclass
from typing import Final

HEAD_MAX_BYTES: Final = 64 * 1024

# with the base path of HealthImaging, so that its signed requests can be measured too
_PATH = re.compile(r"(/datastore/[0-9a-z]{32})?/studies(/[0-9.]{1,64})?/?(\?|\Z)")
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_TYPE = re.compile(r';\s*type="?application/dicom"?\s*(;|\Z)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, as far as the sink cares."""

    content_length: int = 0
    boundary: bytes | None = None  # None: the body is one file
    refusal: tuple[int, str] | None = None  # what to answer once the body was read past
    keep_alive: bool = True
    expects_continue: bool = False


def read_head(raw: bytes) -> Head:
    """Reads a request line and its headers, without the empty line that ends them."""
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
