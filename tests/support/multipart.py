"""A strict splitter of whole multipart/related bodies (RFC 2046 5.1, PS3.18 8.6.1.2).

It is the judge of a writer, so it forgives nothing: no preamble, CRLF everywhere, and every
`CRLF--boundary` in the body is a delimiter, even one inside a file.
"""

import re
from typing import NamedTuple

_PARAMETER = re.compile(r';\s*([A-Za-z0-9-]+)=("(?:[^"\\]|\\.)*"|[^\s;"]+)')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


class MultipartError(ValueError):
    """The body or its Content-Type is not what the standards ask for."""


class Part(NamedTuple):
    """One part; the names of its headers are in lower case."""

    headers: dict[str, str]
    body: bytes


def boundary_of(content_type: str) -> str:
    """Gives the boundary of a `multipart/related; type="application/dicom"` media type.

    Raises:
        MultipartError: it is another type, `type` is missing or not quoted (it has a slash),
            or the boundary is missing or has a character that RFC 2046 does not allow.
    """
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != "multipart/related":
        raise MultipartError(f"not multipart/related: {content_type!r}")
    rest = content_type[len(media_type) :]
    parameters: dict[str, str] = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
    if _PARAMETER.sub("", rest).strip():
        raise MultipartError(f"parameters cannot be read: {content_type!r}")
    if parameters.get("type") != '"application/dicom"':
        raise MultipartError(f'no type="application/dicom": {content_type!r}')
    boundary = parameters.get("boundary", "").strip('"')
    if not _BOUNDARY.fullmatch(boundary):
        raise MultipartError(f"no usable boundary: {content_type!r}")
    return boundary


def split(body: bytes, boundary: str) -> list[Part]:
    r"""Splits a whole body; a CRLF after the last delimiter is the only liberty.

    Raises:
        MultipartError: the body does not begin with its delimiter, ends early, has bytes after
            its end, no parts at all, or a part has no blank line after its headers.
    """
    delimiter = b"--" + boundary.encode("ascii")
    if not body.startswith(delimiter):
        raise MultipartError("the body does not begin with the delimiter")
    pieces = body[len(delimiter) :].split(b"\r\n" + delimiter)
    if pieces[-1] not in {b"--", b"--\r\n"}:
        raise MultipartError(f"the body does not end with the last delimiter: {pieces[-1][:20]!r}")
    if len(pieces) == 1:
        raise MultipartError("the body has no parts")
    return [_part(piece) for piece in pieces[:-1]]


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise MultipartError(f"a delimiter is not followed by CRLF: {piece[:20]!r}")
    head, blank, content = piece.partition(b"\r\n\r\n")
    if not blank:
        raise MultipartError(f"a part has no blank line: {piece[:60]!r}")
    headers: dict[str, str] = {}
    for line in head[2:].decode("ascii").split("\r\n") if len(head) > 2 else []:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            raise MultipartError(f"a part header cannot be read: {line!r}")
        headers[name.lower()] = value.strip()
    return Part(headers, content)
