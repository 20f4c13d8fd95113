"""Which store a run speaks to: a base URL, or an AWS HealthImaging data store in a region.

``--url`` alone is a generic server without authentication; ``--datastore`` is AWS HealthImaging
with SigV4; a private or emulated HealthImaging is a URL with ``--server healthimaging``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from ingester.errors import UsageError

_DATASTORE = re.compile(r"[0-9a-z]{32}")
URL_CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~]*")  # RFC 3986 2
_OTHER_PARTITION = re.compile(r"(cn|us-gov|us-iso[a-z]*|eu-isoe|eusc)-")
_SERVICE = re.compile(r"[a-z0-9-]+")
DEFAULT_PORTS = {"http": 80, "https": 443}
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]+")


def resolve_target(
    values: MutableMapping[str, Any],
    origins: MutableMapping[str, str],
    environment: Mapping[str, str],
) -> None:
    """Fill in url, server, auth and region. Raises UsageError for no target, two, or half of one.

    The host name of a data store is documented for the commercial regions; others have --url.
    """
    _region(values, origins, environment)
    if values["datastore"] is not None:
        _from_datastore(values, origins)
    elif values["url"] is None:
        raise UsageError(
            "no target", "name the store with --url https://host/path, or --datastore and --region"
        )
    else:
        _default(values, origins, "server", "generic", "default with --url")
        _default(values, origins, "auth", "none", "default with --url")
        values["url"] = normal_url(values["url"], origins["url"])
    if not _SERVICE.fullmatch(values["signing_service"]):
        where = origins["signing_service"]
        raise UsageError(f"{where}: not an AWS service: {values['signing_service']}")
    if values["auth"] == "sigv4" and values["region"] is None:
        raise UsageError("SigV4 needs a region", "give --region, or set AWS_REGION")


def _from_datastore(values: MutableMapping[str, Any], origins: MutableMapping[str, str]) -> None:
    where = origins["datastore"]
    if values["url"] is not None:
        raise UsageError(
            f"two targets: {where} and {origins['url']}",
            "a private or emulated data store is --url …/datastore/ID --server healthimaging",
        )
    if not _DATASTORE.fullmatch(values["datastore"]):
        raise UsageError(f"{where}: a data store id is 32 of [0-9a-z]: {values['datastore']}")
    if values["region"] is None:
        raise UsageError("a data store needs its region", "give --region, or set AWS_REGION")
    if _OTHER_PARTITION.match(values["region"]):
        raise UsageError(
            f"the host name of a data store in {values['region']} is not documented",
            "give it by --url https://HOST/datastore/ID --server healthimaging --auth sigv4",
        )
    host = f"dicom-medical-imaging.{values['region']}.amazonaws.com"
    values["url"] = f"https://{host}/datastore/{values['datastore']}"
    origins["url"] = f"{where} and {origins['region']}"
    _default(values, origins, "server", "healthimaging", "default with --datastore")
    _default(values, origins, "auth", "sigv4", "default with --datastore")


def _region(
    values: MutableMapping[str, Any],
    origins: MutableMapping[str, str],
    environment: Mapping[str, str],
) -> None:
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        wanted = values["datastore"] is not None or values["auth"] == "sigv4"
        if wanted and values["region"] is None and environment.get(variable):
            values["region"], origins["region"] = environment[variable], f"environment {variable}"
    if values["region"] is not None and not _REGION.fullmatch(values["region"]):
        raise UsageError(f"{origins['region']}: not an AWS region: {values['region']}")


def _default(
    values: MutableMapping[str, Any],
    origins: MutableMapping[str, str],
    name: str,
    value: str,
    origin: str,
) -> None:
    if values[name] is None:
        values[name], origins[name] = value, origin


def normal_url(given: str, where: str) -> str:
    """A base URL in one spelling: the journal is bound to it. Raises UsageError."""
    given = given.strip()
    if not URL_CHARACTERS.fullmatch(given):
        raise UsageError(f"{where}: must be ASCII without spaces: write others as %XX")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise UsageError(f"{where}: not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{where}: a URL must not hold credentials",
            "use --auth basic with INGESTER_USERNAME and INGESTER_PASSWORD",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{where}: must be http://… or https://…")  # unread: it may hold a secret
    if not is_a_host(parts.hostname):
        raise UsageError(f"{where}: not a host name: {parts.hostname}")
    if parts.query or parts.fragment:
        raise UsageError(f"{where}: must not have a query or a fragment")
    path = parts.path.rstrip("/")
    if path.endswith("/studies"):
        raise UsageError(f"{where}: the base URL is what stands before /studies: {given}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host}{f':{port}' if port not in (None, default_port) else ''}{path}"


def is_a_host(name: str) -> bool:
    """Whether it can be looked up at all: no label is empty or longer than 63 (RFC 1035 2.3.4)."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True
