"""The body of a Store Instances request (PS3.18 8.7 and 10.5.1, RFC 2387, RFC 2046 5.1.1).

No CRLF before the first delimiter, one before each other, ``--B--`` at the end. Nothing here holds
a file's bytes: a body is the small texts between them, and its exact length.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

PART_CONTENT_TYPE = b"Content-Type: application/dicom\r\n\r\n"


class Framing(NamedTuple):
    """What surrounds the files of one body: ``before[i]``, file i, …, ``end``."""

    before: tuple[bytes, ...]
    end: bytes
    content_type: str
    content_length: int  # bytes, files included


def new_boundary() -> str:
    """128 random bits as token characters: never in the data, the same for no two bodies."""
    return secrets.token_hex(16)


def multipart_framing(sizes: Sequence[int], boundary: str, *, quoted: bool) -> Framing:
    """Framing of a ``multipart/related`` body of files of ``sizes`` bytes.

    ``type`` is always quoted, it has a slash. A boundary of token characters is read unquoted by
    the most servers; AWS documents it quoted (``quoted``).
    """
    first = f"--{boundary}\r\n".encode() + PART_CONTENT_TYPE
    other = b"\r\n" + first
    end = f"\r\n--{boundary}--".encode()
    before = (first, *(other for _ in sizes[1:]))
    boundary_parameter = f'"{boundary}"' if quoted else boundary
    return Framing(
        before,
        end,
        f'multipart/related; type="application/dicom"; boundary={boundary_parameter}',
        len(first) + len(other) * (len(sizes) - 1) + sum(sizes) + len(end),
    )


def single_framing(size: int) -> Framing:
    """Framing of a file sent alone as ``application/dicom`` (HealthImaging, StoreDICOM)."""
    return Framing((b"",), b"", "application/dicom", size)
