"""Whether a server refuses us in TLS: its alert, where it can be seen at all, and whether it stays.

In TLS 1.3 (RFC 8446) the handshake is over for a client before its certificate, or that it has
none, is looked at. The refusal comes when a body is on its way already, and a write that meets the
closed connection hides it: the request looks lost, its files in doubt. So before a server's first
answer one lost request is followed by a connection on which nothing is sent; after it the second
in a row is, as a certificate may expire in mid-run.

A server that is starting, or a balancer one of whose backends is, may refuse a handshake, too, or
answer it without TLS. After an answer that is a lost connection like any other, unless it goes on.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple
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


class Alert(NamedTuple):
    """What a server said to a connection on which nothing was sent."""

    name: str
    in_handshake: bool  # and not after it, as of our certificate in TLS 1.3


async def listen_for_alert(url: str, context: ssl.SSLContext) -> Alert | None:
    """Connect, say nothing, and hear what the server finds wrong with us."""
    parts = urlsplit(url)
    in_handshake = True
    try:
        async with asyncio.timeout(LISTEN_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context
            )
            in_handshake = False
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except OSError as error:  # TimeoutError is one, and so is SSLError
        alert = alert_in(error)
        return None if alert is None else Alert(alert, in_handshake)
    return None


class Refusals:
    """What all requests to one server have met in TLS since its last answer.

    ``context``: of connections to ask by; None where there is no TLS, or a proxy before it.
    ``patience_s``: for so long after an answer it may refuse handshakes, and is starting.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.for_good = False  # whoever asks again is refused again
        self._url = url
        self._context = context
        self._patience_s = patience_s
        self._clock = clock
        self._listening = asyncio.Lock()
        self._heard = False  # any answer
        self._since: float | None = None  # that it refused a handshake
        self._lost = 0
        self._alert: str | None = None

    def heard(self) -> None:
        """It has answered."""
        self._heard, self._since, self._lost, self._alert = True, None, 0, None
        self.for_good = False

    def nobody_there(self) -> None:
        """Nothing listens where it does: it is down, and what refuses next is another time."""
        self._since, self._lost, self.for_good = None, 0, False

    async def explain(self, reply: NoAnswer, *, answered_before: bool = False) -> NoAnswer:
        """What a request without an answer shows, with what others have met.

        ``answered_before``: on its connection, so nothing was found wrong with us there.
        """
        if reply.kind in ("no_tls", "tls_refused"):
            return reply if self._goes_on() else NoAnswer("not_sent", reply.detail)
        if reply.kind != "lost" or answered_before or self._context is None:
            return reply
        async with self._listening:
            self._lost += 1
            if self._lost == (2 if self._heard else 1):
                alert = await listen_for_alert(self._url, self._context)
                if alert is not None and (not alert.in_handshake or self._goes_on()):
                    self._alert = alert.name
        return reply if self._alert is None else NoAnswer("tls_refused", self._alert)

    def _goes_on(self) -> bool:
        """Whether a handshake that was refused now was so for longer than while a server starts."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self.for_good = not self._heard or now - self._since > self._patience_s
        return self.for_good
