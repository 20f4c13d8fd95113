"""What came of one attempt to send a request: always one of these values."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

NOTHING_SENT = frozenset(
    ("not_sent", "tls", "tls_name", "tls_time", "tls_refused", "no_tls", "no_proxy")
)
"""Kinds of ``NoAnswer`` after which the server has no byte of the body."""

MEANT_BY_A_400 = MappingProxyType(
    {
        "ThrottlingException": 429,
        "Throttling": 429,
        "TooManyRequestsException": 429,
        "RequestLimitExceeded": 429,
        "ExpiredTokenException": 403,
        "ExpiredToken": 403,
        "RequestExpired": 403,
        "IncompleteSignature": 403,
        "InvalidSignatureException": 403,
        "MissingAuthenticationToken": 403,
        "UnrecognizedClientException": 403,
        "InvalidClientTokenId": 403,
        "AccessDeniedException": 403,
        "NotAuthorized": 403,
    }
)
"""Errors common to all of AWS that come with 400 as well as with these: they speak of the load or
of the credentials, never of the body. Its own tools go by the name, not by the status."""


class Answer(NamedTuple):
    """The server answered."""

    status: int
    body: bytes
    retry_after: str | None = None
    request_id: str = ""
    mended: bool = False  # a 401, 403 or 407, and the next attempt has other keys or another clock
    credentials_sent: bool = True  # False: a 401, 403 or 407 to a request that had none
    tunnelled: bool = False  # a refusal of credentials from behind the proxy that was named
    error_type: str = ""  # what AWS calls the error; letters, digits and dots

    @property
    def meant_status(self) -> int:
        """The status that decides what is done; ``status`` is what people are told."""
        return MEANT_BY_A_400.get(self.error_type, 400) if self.status == 400 else self.status


class NoAnswer(NamedTuple):
    """It did not. ``maybe_stored``: a byte of the body went out, nobody knows what became of it."""

    kind: Literal[
        "not_sent",
        "lost",
        "stalled",
        "answer_timeout",
        "answer_too_long",
        "tls",
        "tls_name",
        "tls_time",
        "tls_refused",
        "no_tls",
        "no_proxy",
    ]
    detail: str  # the error's class and number, no file, no UID, no credential

    @property
    def maybe_stored(self) -> bool:
        """Whether the server may have stored some of it."""
        return self.kind not in NOTHING_SENT


class SourceFailed(NamedTuple):
    """A file could not be sent as it was scanned; the request was abandoned before its end."""

    position: int  # of the instance in the body
    reason_code: str
    reason: str


Reply = Answer | NoAnswer | SourceFailed
