"""What a reply without a usable manifest shows by itself, whatever else is known."""

from __future__ import annotations

from ingester.transport.reply import Answer, NoAnswer

THROTTLED = frozenset({425, 429, 503})
"""Refused for the server's load: nothing was stored, and everybody slows down."""
CONFLICT = 409
"""It refuses all for what they are, and so it has let us in."""
PROXY_AUTHENTICATION_REQUIRED = 407
"""A proxy let nothing through: ours, or one on the way that nobody named."""
UNAUTHORIZED = frozenset({401, 403, PROXY_AUTHENTICATION_REQUIRED})
"""Refused for credentials, or a clock: nothing was stored, and it is no word about the files."""

NO_TRUST = {
    "tls": (
        "the server's certificate cannot be verified",
        "give the certificate authority that signed it with --ca-bundle",
    ),
    "tls_name": (
        "the server's certificate is for another name",
        "is it the right server? Then --url must have a name that is in its certificate",
    ),
    "tls_time": (
        "the server's certificate is not valid now",
        "have it renewed; if it should be valid, check this machine's clock",
    ),
    "tls_refused": (
        "the server refuses the TLS connection",
        "does it ask for a certificate? Give yours with --client-cert",
    ),
    "no_tls": (
        "what listens there does not speak TLS",
        "is it http://, or is TLS at another port?",
    ),
}
"""What is told of each kind, and what to do next."""


def leaves_in_doubt(reply: Answer | NoAnswer) -> bool:
    """Whether the server may have stored some of it without saying so."""
    if isinstance(reply, NoAnswer):
        return reply.maybe_stored
    return reply.status == 408 or (reply.status >= 500 and reply.status != 503)


def may_follow_a_crash(reply: Answer | NoAnswer) -> bool:
    """Whether it says no more than that the server is gone: perhaps after it stored some.

    A 503 that names no time is what a proxy answers for a server that it lost.
    """
    return isinstance(reply, Answer) and reply.status == 503 and reply.retry_after is None


def named(answer: Answer) -> str:
    """The end of a message: the error's type after a colon, where the server gave one."""
    return f": {answer.error_type}" if answer.error_type else ""


def shows_an_outage(reply: Answer | NoAnswer) -> bool:
    """Whether a server that answers so may be away, rather than refuse this very request."""
    if isinstance(reply, NoAnswer):
        return reply.kind == "tls_refused" or reply.kind not in NO_TRUST
    return reply.meant_status in (404, 405, 408, 425, 429) or reply.status >= 500
