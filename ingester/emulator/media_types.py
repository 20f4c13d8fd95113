"""Media types in Content-Type and Accept (RFC 9110 sections 8.3.1 and 12.5.1), read strictly.

A sender that forgets the quotes around ``application/dicom`` in the ``type`` parameter gets away
with it at some servers only; here it is told.
"""

import re
from dataclasses import dataclass, field

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_ESSENCE = re.compile(rf"[ \t]*({_NAME})/({_NAME})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*({_NAME})=(?:({_NAME})|"((?:[^"\\]|\\.)*)")[ \t]*')
_QUOTED_PAIR = re.compile(r"\\(.)")

# RFC 2046 section 5.1.1: 1 to 70 characters of this set, and the last one is no space.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type or media range: its essence and parameter names are in lower case."""

    essence: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_media_type(value: str) -> MediaType:
    """Read the value of a Content-Type header.

    Raises:
        ValueError: It does not follow the grammar, or names a parameter twice.
    """
    media_type, end = _scan(value, 0)
    if end != len(value):
        raise ValueError(f"not understood from character {end} on")
    return media_type


def parse_accept(value: str) -> list[MediaType]:
    """Read the media ranges of an Accept header; those refused by ``q=0`` are left out.

    Raises:
        ValueError: It does not follow the grammar.
    """
    ranges: list[MediaType] = []
    at = 0
    while True:
        media_range, at = _scan(value, at)
        if float(media_range.parameters.get("q", "1")) > 0:
            ranges.append(media_range)
        if at == len(value):
            return ranges
        if value[at] != ",":
            raise ValueError(f"not understood from character {at} on")
        at += 1


def covers(media_range: MediaType, essence: str) -> bool:
    """Tell whether a media range such as ``application/*`` contains a media type."""
    return media_range.essence in ("*/*", f"{essence.partition('/')[0]}/*", essence)


def is_boundary(value: str) -> bool:
    """Tell whether a boundary parameter is one that RFC 2046 section 5.1.1 allows."""
    return _BOUNDARY.fullmatch(value) is not None


def _scan(value: str, at: int) -> tuple[MediaType, int]:
    essence = _ESSENCE.match(value, at)
    if essence is None:
        raise ValueError(f"no type/subtype at character {at}")
    at = essence.end()
    parameters: dict[str, str] = {}
    while found := _PARAMETER.match(value, at):
        name, token, quoted = found.group(1).lower(), found.group(2), found.group(3)
        if name in parameters:
            raise ValueError(f"parameter given twice: {name}")
        parameters[name] = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
        at = found.end()
    return MediaType(f"{essence.group(1)}/{essence.group(2)}".lower(), parameters), at
