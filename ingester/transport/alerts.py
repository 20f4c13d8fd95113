"""Whether a server refuses us in TLS: its alert, where it can be seen at all, and whether it stays.

In TLS 1.3 (RFC 8446) the handshake is over for a client before its certificate, or that it has
none, is looked at. The refusal comes when a body is on its way already, and a write that meets the
closed connection hides it: the request looks lost, its files in doubt. So before a server's first
answer one lost request is followed by a connection on which nothing is sent; after it the second
in a row is, as a certificate may expire in mid-run.

A balancer, one of whose backends is being restarted, may refuse a handshake, too, or answer it
without TLS. After an answer the first such is a lost connection like any other.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from ingester.transport.reply import NoAnswer

_ABOUT_US = frozenset(
    (
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate required",
        "certificate revoked",
        "certificate unknown",
        "handshake failure",
        "insufficient security",
        "protocol version",
        "unknown ca",
        "unrecognized name",
        "unsupported certificate",
    )
)
"""RFC 8446 6.2: those that come again whatever is sent. A broken record, for instance, does not."""

LISTEN_S = 2.0


def alert_in(error: BaseException) -> str | None:
    """What the server finds wrong with us, if that is why a connection ended."""
    seen: BaseException | None = error
    while seen is not None:
        # aiohttp's own errors are SSLErrors whose reason is not OpenSSL's.
        reason = getattr(seen, "reason", None) if isinstance(seen, ssl.SSLError) else None
        alert = str(reason).partition("_ALERT_")[2].lower().replace("_", " ")
        if alert:
            return alert if alert in _ABOUT_US else None
        seen = seen.__cause__ or seen.__context__
    return None


async def listen_for_alert(url: str, context: ssl.SSLContext) -> str | None:
    """Connect, say nothing, and hear what the server finds wrong with us."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(LISTEN_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context
            )
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except OSError as error:  # TimeoutError is one, and so is SSLError
        return alert_in(error)
    return None


class Refusals:
    """What all requests to one server have met in TLS since its last answer.

    ``context``: of connections to ask by; None where there is no TLS, or a proxy before it.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self.any = False  # a handshake that it refused, or answered without TLS
        self._url = url
        self._context = context
        self._listening = asyncio.Lock()
        self._heard = False  # any answer
        self._lost = 0
        self._alert: str | None = None

    def heard(self) -> None:
        """It has answered."""
        self.any, self._heard, self._lost, self._alert = False, True, 0, None

    async def explain(self, reply: NoAnswer, *, any_before: bool) -> NoAnswer:
        """What a request without an answer shows, with what others have met.

        ``any_before``: what ``any`` was when the request began. Of those that were under way
        together none is the second in a row.
        """
        if reply.kind in ("no_tls", "tls_refused"):
            stays = not self._heard or (any_before and self.any)
            self.any = True
            return reply if stays else NoAnswer("not_sent", reply.detail)
        if reply.kind != "lost" or self._context is None:
            return reply
        async with self._listening:
            self._lost += 1
            if self._lost == (2 if self._heard else 1):
                self._alert = await listen_for_alert(self._url, self._context)
        return reply if self._alert is None else NoAnswer("tls_refused", self._alert)
