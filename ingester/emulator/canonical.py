"""The canonical request of Signature Version 4, from a request as it came over the wire.

The form is that of every service but S3: the path is normalised and encoded once more. A header
that is signed but was not sent counts as empty: curl 7.88 signs an empty ``x-amz-security-token``
and leaves it out.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

_SPACES = re.compile(r"[ \t]+")


class Head(NamedTuple):
    """A request without its body, as it came over the wire."""

    method: str
    target: str  # path and query, still encoded
    headers: dict[str, list[str]]  # by lower-case name, in the order they came

    @classmethod
    def of(cls, method: str, target: str, headers: Iterable[tuple[str, str]]) -> "Head":
        """Gather headers that were sent more than once."""
        by_name: dict[str, list[str]] = {}
        for name, value in headers:
            by_name.setdefault(name.lower(), []).append(value)
        return cls(method, target, by_name)

    def value(self, name: str) -> str:
        """The value of a header; empty if it was not sent."""
        return ",".join(self.headers.get(name, ()))


def canonical_head(head: Head, signed: list[str]) -> bytes:
    """The canonical request up to the payload hash."""
    path, _, query = head.target.partition("?")
    if not path.startswith("/"):  # the absolute form, as a proxy gets it
        path = urlsplit(path).path
    lines = [head.method, _canonical_path(path), _canonical_query(query)]
    for name in signed:
        values = [_SPACES.sub(" ", value.strip()) for value in head.headers.get(name, [""])]
        lines.append(f"{name}:{','.join(values)}")
    lines += ["", ";".join(signed), ""]
    return wire_bytes("\n".join(lines))


def _canonical_path(path: str) -> str:
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    end = "/" if segments and path.endswith("/") else ""
    return quote(wire_bytes("/" + "/".join(segments) + end), safe="/~")


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(
        f"{name}={value}"
        for name, value in sorted((_recoded(name), _recoded(value)) for name, _, value in pairs)
    )


def _recoded(value: str) -> str:
    return quote(unquote_to_bytes(wire_bytes(value)), safe="~")


def wire_bytes(value: str) -> bytes:
    """What came over the wire: aiohttp keeps bytes that are not UTF-8 as surrogates."""
    return value.encode("utf-8", "surrogateescape")
