"""What an attempt that ended without an answer shows: aiohttp's and OpenSSL's errors as values."""

from __future__ import annotations

import os
import ssl
from typing import Literal

import aiohttp

from ingester.transport.alerts import alert_in
from ingester.transport.reply import NoAnswer

NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of a peer whose first bytes are no TLS record."""
CERTIFICATES: dict[int, Literal["tls_name", "tls_time"]] = {
    9: "tls_time",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "tls_time",  # X509_V_ERR_CERT_HAS_EXPIRED
    62: "tls_name",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "tls_name",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
"""OpenSSL's codes of what is wrong with a certificate that another authority would not mend."""
CONNECTING = (
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ConnectionTimeoutError,
)
"""With a proxy it is the proxy that these are about: nobody else is looked up or connected to.
So is a time that was over before a byte went out: it did not answer, or let nothing through."""
BROKEN_OFF = "the connection was closed before the end of the answer, or the rest is no HTTP"
"""Which of the two aiohttp does not tell: it closes a connection on which no HTTP comes."""


def no_answer_of(error: Exception, *, sent: bool, expired: str | None, proxied: bool) -> NoAnswer:
    """What an attempt ended with.

    ``sent``: bytes of the body were handed to the transport. ``expired``: which of the watchdog's
    times was over, or that the answer broke off. ``proxied``: it went through a proxy.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        kind, words = _certificate(error.certificate_error)
        return NoAnswer(kind, f"{type(error).__name__}: {words}")
    if (alert := alert_in(error)) is not None:
        return NoAnswer("tls_refused", alert)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", None) or type(error).__name__
        return NoAnswer("no_tls" if reason in NO_TLS else "not_sent", reason)
    number = getattr(error, "errno", None)
    words = f": {os.strerror(number)}" if isinstance(number, int) and number > 0 else ""
    detail = f"{type(error).__name__}{words}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return NoAnswer("no_proxy", f"HTTP {error.status}")
    if not sent:
        way_ended = proxied and (isinstance(error, CONNECTING) or expired == "stalled")
        return NoAnswer("no_proxy" if way_ended else "not_sent", detail)
    if expired == "stalled":
        return NoAnswer("stalled", "the server took no byte of the body")
    if expired == "answer_timeout":
        return NoAnswer("answer_timeout", "the server had the body and did not answer")
    if expired == "broken_off":
        return NoAnswer("lost", BROKEN_OFF)
    return NoAnswer("lost", detail)


def _certificate(error: Exception) -> tuple[Literal["tls", "tls_name", "tls_time"], str]:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "tls", str(error)
    return CERTIFICATES.get(error.verify_code, "tls"), error.verify_message
