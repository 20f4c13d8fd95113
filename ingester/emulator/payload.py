"""How a request vouches for its body, and what reads the body so.

The literal and true chunks have one value of ``x-amz-content-sha256`` in common;
``Content-Encoding: aws-chunked`` tells them apart.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Protocol

from ingester.emulator.answers import Refusal
from ingester.emulator.chunks import ChunkReader
from ingester.emulator.sigv4 import Claim

STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED = "UNSIGNED-PAYLOAD"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class PayloadMode(StrEnum):
    """The four ways, by the names that the command line has for them."""

    LITERAL = "literal"  # the streaming value over a raw body, as the documentation's curl sends it
    SHA256 = "sha256"  # the hash of the body; without the header it is in the signature alone
    UNSIGNED = "unsigned"
    AWS_CHUNKED = "aws-chunked"  # the streaming value over chunks that are signed one by one


ALL_MODES = frozenset(PayloadMode)


def parse_modes(value: str) -> frozenset[PayloadMode]:
    """Read a list with commas.

    Raises:
        ValueError: A name that is none, or no name at all.
    """
    try:
        return frozenset(PayloadMode(name.strip()) for name in value.split(","))
    except ValueError as error:
        known = ", ".join(PayloadMode)
        raise ValueError(f"payload modes are some of {known}, with commas") from error


def mode_of(declared: str, content_encoding: str) -> PayloadMode:
    """The mode of a request by its ``x-amz-content-sha256``, which is empty if not sent.

    Raises:
        Refusal: 400, none of the four.
    """
    if declared == STREAMING:
        chunked = content_encoding.strip().lower() == PayloadMode.AWS_CHUNKED
        return PayloadMode.AWS_CHUNKED if chunked else PayloadMode.LITERAL
    if declared == UNSIGNED:
        return PayloadMode.UNSIGNED
    if declared == "" or _SHA256.fullmatch(declared):
        return PayloadMode.SHA256
    raise Refusal(400, f"x-amz-content-sha256 is not {UNSIGNED}, {STREAMING} or a SHA-256")


class Reader(Protocol):
    """What turns the bytes of a body into what they stand for, and vouches for them at the end."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Give the next bytes, get what they decode to. To be iterated to its end."""

    def close(self) -> None:
        """Say that the body is over. Raises Refusal if it is not what was signed."""


class RawReader:
    """The body as it is, with nothing to compare it to."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Hand on what came."""
        yield data

    def close(self) -> None:
        """Nothing is left to be checked."""


class HashReader:
    """The body as it is, against the hash that was declared, or that only the signature knows."""

    def __init__(self, claim: Claim, declared: str) -> None:
        self._claim = claim
        self._declared = declared
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Hand on what came."""
        self._digest.update(data)
        yield data

    def close(self) -> None:
        """Compare.

        Raises:
            Refusal: 400 for another body than declared, 403 where the signature alone tells.
        """
        found = self._digest.hexdigest()
        if not self._declared:
            self._claim.prove(found)
        elif not hmac.compare_digest(found, self._declared):
            raise Refusal(400, "x-amz-content-sha256 is not the hash of the body that arrived")


def reader_of(mode: PayloadMode | None, claim: Claim | None, declared: str) -> Reader:
    """Check the signature, where that is possible at the start, and give the reader of the body.

    Raises:
        Refusal: 403, the signature is another one.
    """
    if mode is None or claim is None:
        return RawReader()
    if declared:
        claim.prove(declared)
    match mode:
        case PayloadMode.AWS_CHUNKED:
            return ChunkReader(claim)
        case PayloadMode.SHA256:
            return HashReader(claim, declared)
        case _:
            return RawReader()
