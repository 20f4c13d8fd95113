"""Whether requests go through an HTTP proxy, from the flag or the environment, and NO_PROXY.

Resolved here and passed on: aiohttp's own ``trust_env`` reads .netrc beside it and then refuses our
Authorization header.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes, urlsplit

from ingester.auth import Secret
from ingester.errors import UsageError
from ingester.target import URL_CHARACTERS


def proxy_for(
    url: str, given: str | None, where: str, environment: Mapping[str, str]
) -> Secret | None:
    """The proxy for requests to ``url``, None for none. Credentials in it come from HTTPS_PROXY.

    Raises UsageError for what is no proxy, or credentials in the flag.
    """
    parts = urlsplit(url)
    if given is not None:
        if "@" in given:
            raise UsageError(
                f"{where}: a flag or file must not hold credentials",
                "set HTTPS_PROXY in the environment",
            )
        proxy: str | None = given
    else:
        variable = f"{parts.scheme}_proxy"
        where = f"environment {variable.upper()}"
        proxy = environment.get(variable) or environment.get(variable.upper())
    if not proxy:
        return None
    if _bypassed(parts.netloc, environment):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        named = urlsplit(proxy)
        written = named.scheme == "http" and named.hostname and named.port != 0
        whole = written and URL_CHARACTERS.fullmatch(proxy)
    except ValueError:  # a bracket that is not closed, a port that is no number
        whole = False
    if not whole:
        raise UsageError(f"{where}: a proxy must be http://host:port")
    if b":" in unquote_to_bytes(named.username or ""):
        raise UsageError(f"{where}: a user name must not hold a colon (RFC 7617 2)")
    return Secret(proxy)


def split_proxy(whole: Secret | None) -> tuple[str | None, Secret | None]:
    """The URL without credentials, and them as a header: the bytes that are written, as of curl."""
    if whole is None:
        return None, None
    parts = urlsplit(whole.reveal())
    bare = f"http://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None:
        return bare, None
    user, password = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
    return bare, Secret("Basic " + b64encode(user + b":" + password).decode())


def _bypassed(host: str, environment: Mapping[str, str]) -> bool:
    from urllib.request import (  # type: ignore[attr-defined]  # noqa: PLC0415 - typeshed lacks it
        proxy_bypass_environment,
    )

    no_proxy = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return bool(proxy_bypass_environment(host, {"no": no_proxy}))
