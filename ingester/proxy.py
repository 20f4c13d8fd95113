"""Whether requests go through an HTTP proxy, from the flag or the environment, and NO_PROXY.

Resolved here and passed on: aiohttp's own ``trust_env`` reads .netrc beside it and then refuses our
Authorization header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from ingester.auth import Secret, basic_authorization
from ingester.errors import UsageError
from ingester.target import DEFAULT_PORTS, URL_CHARACTERS, is_a_host

_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]+)")


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
    if _bypassed(parts, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        named = urlsplit(proxy)
        written = named.scheme == "http" and named.hostname and named.port != 0
        whole = written and URL_CHARACTERS.fullmatch(proxy) and is_a_host(named.hostname or "")
    except ValueError:  # a bracket that is not closed, a port that is no number
        whole = False
    if not whole:
        raise UsageError(f"{where}: a proxy must be http://host:port")
    if ":" in unquote(named.username or ""):
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
    user, password = (
        unquote(text or "", errors="surrogateescape") for text in (parts.username, parts.password)
    )
    return bare, Secret(basic_authorization(user, Secret(password)))


def _bypassed(target: SplitResult, no_proxy: str) -> bool:
    """Whether NO_PROXY has the target: a name, those below it, an address, a network, or all."""
    host = (target.hostname or "").rstrip(".")
    port = target.port or DEFAULT_PORTS[target.scheme]
    for given in no_proxy.lower().replace(",", " ").split():
        if given == "*":
            return True
        with_port = _WITH_PORT.fullmatch(given)
        if with_port is not None and int(with_port[2]) != port:
            continue
        name = given if with_port is None else with_port[1]
        name = name.strip("[]").removeprefix("*").lstrip(".")
        if name and (host == name or host.endswith(f".{name}") or _is_in(host, name)):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # one of them is a name
        return False
