"""Asking botocore's whole chain for credentials.

Environment, profiles, roles, web identity, SSO, container, instance, process. Blocking, for a
thread; what comes back is a value, never an exception.

An exception of botocore's may quote what a process printed or a server said, so of a failure only
its kind goes on. Its log does the same, with tracebacks and answers of STS: it is cut off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from ingester.auth import Secret

_HINTS = {
    "CredentialRetrievalError": "run the command of credential_process by hand",
    "PartialCredentialsError": "a key is set without the other",
    "SSOTokenLoadError": "log in: aws sso login",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "LoginRefreshRequired": "log in again: aws login",
    "ConfigParseError": "check the AWS configuration and credentials files",
    "RuntimeError": "they have expired already: check the source and this machine's clock",
}


class Frozen(Protocol):
    """Keys that belong together, as botocore gives them."""

    @property
    def access_key(self) -> str: ...  # noqa: D102
    @property
    def secret_key(self) -> str: ...  # noqa: D102
    @property
    def token(self) -> str | None: ...  # noqa: D102


class Provider(Protocol):
    """botocore's credentials: static, or refreshing themselves when they are asked."""

    def get_frozen_credentials(self) -> Frozen:
        """Keys that are good now. Blocks as long as their source does."""


Resolve = Callable[[], Provider | None]
"""Goes through the chain anew. Blocking; raises whatever botocore raises."""


class Keys(NamedTuple):
    """Keys that belong together."""

    access_key: str
    secret_key: Secret
    token: Secret | None

    def __repr__(self) -> str:
        return "Keys(…)"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the source gave, and when it says that ends. ``expires`` None: it does not say."""

    keys: Keys = field(repr=False)
    expires: datetime | None
    provider: Provider = field(repr=False)


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """Why there are no keys, in our words. ``usage``: the profile does not exist."""

    text: str
    hint: str = ""
    usage: bool = False


def botocore_chain(profile: str | None) -> Resolve:
    """The chain of a profile, or of AWS_PROFILE, or the default one. A new session each time."""

    def resolve() -> Provider | None:
        from botocore.session import (  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.2 s
            Session,
        )

        log = logging.getLogger("botocore")
        log.propagate = False
        log.setLevel(logging.CRITICAL + 1)  # of its children too: no record is made at all
        provider: Provider | None = Session(profile=profile).get_credentials()
        return provider

    return resolve


def fetch(resolve: Resolve, provider: Provider | None) -> Fetched | FetchFailed:
    """Ask ``provider``, or the chain anew where it is None."""
    try:
        source = resolve() if provider is None else provider
        if source is None:
            return FetchFailed("no AWS credentials were found", "set a profile or log in")
        keys = _keys(source.get_frozen_credentials())
    except Exception as error:  # noqa: BLE001 - any kind, of any library a provider uses
        return _failure(error)
    if keys is None:
        return FetchFailed("the AWS credentials are not keys that a header can carry")
    return Fetched(keys, getattr(source, "_expiry_time", None), source)


def _keys(frozen: Frozen) -> Keys | None:
    for value in (frozen.access_key, frozen.secret_key, frozen.token or "-"):
        if not (value and value.isascii() and value.isprintable()) or " " in value:
            return None
    return Keys(
        frozen.access_key, Secret(frozen.secret_key), Secret(frozen.token) if frozen.token else None
    )


def _failure(error: Exception) -> FetchFailed:
    kind = type(error).__name__
    if kind == "ProfileNotFound":
        return FetchFailed(
            "the AWS profile does not exist", "see aws configure list-profiles", usage=True
        )
    return FetchFailed(f"the source of the AWS credentials failed: {kind}", _HINTS.get(kind, ""))
