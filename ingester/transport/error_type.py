"""What AWS calls an error: a word that says more than the status, and nothing of a patient.

It is the head ``x-amzn-ErrorType`` or, as AWS JSON 1.1 has it, ``__type`` in the body; either may
have a namespace before a ``#`` and an address after a ``:``. It is a server's word all the same: it
is shown if it looks like a name, and in a message it stands after the colon, so not in the log.
"""

from __future__ import annotations

import re

import msgspec

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}")
_BODY_BYTES = 64 << 10
"""AWS sends a few hundred."""


class _Body(msgspec.Struct):
    error_type: str = msgspec.field(default="", name="__type")


def error_type_of(header: str | None, body: bytes) -> str:
    """The name of the error in an answer, "" if it has none. ``header``: x-amzn-ErrorType."""
    given = header or _in_body(body)
    name = given.rpartition("#")[2].partition(":")[0]
    return name if _NAME.fullmatch(name) else ""


def _in_body(body: bytes) -> str:
    if len(body) > _BODY_BYTES or not body.lstrip().startswith(b"{"):
        return ""
    try:
        return msgspec.json.decode(body, type=_Body).error_type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
