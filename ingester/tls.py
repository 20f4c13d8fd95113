"""How a server proves who it is, and how we do: the TLS context of a run.

Certificates are verified, by the system's authorities or by a bundle; with ``--insecure`` nothing
is, and every place that speaks of the run says so. A private key is never asked a password for:
nobody may be there to answer.
"""

from __future__ import annotations

import os
import ssl
from typing import NoReturn

from ingester.config import Config
from ingester.errors import UsageError

INSECURE = "WARNING: --insecure: nobody verifies who the server is; patient data may go to anybody"


def ssl_context(config: Config) -> ssl.SSLContext | None:
    """For https, else None. Raises UsageError for a file that cannot be used."""
    if not config.url.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the CA bundle cannot be read ({_reason(error)}): {config.ca_bundle}"
        ) from error
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_cert is not None:
        _prove_ourselves(context, config.client_cert, config.client_key)
    return context


def _prove_ourselves(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    for what, path in (("certificate", certificate), ("key", key)):
        try:
            with open(path or certificate, "rb"):
                pass
        except OSError as error:
            raise UsageError(
                f"the client {what} cannot be read ({_reason(error)}): {path}"
            ) from error
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise UsageError(
            f"the client key is encrypted: {key or certificate}",
            "keep one without a password, for this user only: openssl pkey -in KEY -out NEW",
        ) from None
    except (OSError, ssl.SSLError) as error:
        hint = (
            "" if key else "the key is looked for in the same file; else name it with --client-key"
        )
        raise UsageError(
            f"the client certificate or its key is no PEM file, or they do not belong together"
            f" ({_reason(error)}): {certificate}",
            hint,
        ) from error


class _Encrypted(Exception):  # noqa: N818 - caught above
    pass


def _no_password() -> NoReturn:
    raise _Encrypted


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return os.strerror(error.errno or 0)
