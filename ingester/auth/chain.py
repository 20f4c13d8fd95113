"""Asking botocore's whole chain for credentials.

Environment, profiles, roles, web identity, SSO, container, instance, process. Blocking, for a
thread; what comes back is a value, never an exception.

An exception of botocore's may quote what a process printed or a server said, so of a failure only
its kind goes on. Its log does the same, with tracebacks and answers of STS: it is cut off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ingester.auth import Secret, is_word
from ingester.auth.fetching import Fetched, FetchFailed
from ingester.auth.sigv4 import Credentials

_HINTS = {
    "CredentialRetrievalError": "run the command of credential_process by hand",
    "PartialCredentialsError": "a key is set without the other",
    "SSOTokenLoadError": "log in: aws sso login",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "LoginRefreshRequired": "log in again: aws login",
    "ConfigParseError": "check the AWS configuration and credentials files",
    "RuntimeError": "they have expired already: check the source and this machine's clock",
}

_ORIGINS = {
    "env": " in the environment",
    "shared-credentials-file": " in the AWS credentials file",
    "config-file": " in the AWS configuration file",
    "custom-process": " that credential_process prints",
    "sso": " of the login (aws sso login)",
    "login": " of the login (aws login)",
}
"""By botocore's name of a provider."""


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


def botocore_chain(profile: str | None) -> Resolve:
    """The chain of a profile, or of AWS_PROFILE, or the default one. A new session each time."""

    def resolve() -> Provider | None:
        from botocore.session import (  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.2 s
            Session,
        )

        log = logging.getLogger("botocore")
        log.propagate = False
        log.setLevel(logging.CRITICAL + 1)  # of its children too: no record is made at all
        session = Session(profile=profile)
        roles = session.get_component("credential_provider").get_provider("assume-role")
        roles._prompter = _nobody_types  # noqa: SLF001 - it has no public way, and would ask stdin
        provider: Provider | None = session.get_credentials()
        return provider

    return resolve


def _nobody_types(prompt: str) -> str:
    """A run is unattended, and what a code gives ends within hours: it would be asked for again."""
    raise _CodeWantedError(prompt)


class _CodeWantedError(Exception):
    """A role has an ``mfa_serial``."""


class Chain:
    """Fetches from ``resolve``, or from what it gave last, which may have keys in store."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._provider: Provider | None = None

    def __call__(self, *, anew: bool) -> Fetched[Credentials] | FetchFailed:
        """See Fetch."""
        try:
            source = self._resolve() if anew or self._provider is None else self._provider
            if source is None:
                return FetchFailed("no AWS credentials were found", "set a profile or log in")
            keys = _credentials(source.get_frozen_credentials())
        except Exception as error:  # noqa: BLE001 - any kind, of any library a provider uses
            return _failure(error)
        if keys is None:
            return FetchFailed("the AWS credentials are not keys that a header can carry")
        self._provider = source
        origin = _ORIGINS.get(getattr(source, "method", ""), "")
        return Fetched(
            keys, getattr(source, "_expiry_time", None), f"the AWS session token{origin}"
        )

    def close(self) -> None:
        """See Fetch: what botocore waits for cannot be ended."""


def _credentials(frozen: Frozen) -> Credentials | None:
    if not all(map(is_word, (frozen.access_key, frozen.secret_key, frozen.token or "-"))):
        return None
    return Credentials(
        frozen.access_key, Secret(frozen.secret_key), Secret(frozen.token) if frozen.token else None
    )


def _failure(error: Exception) -> FetchFailed:
    kind = type(error).__name__
    if isinstance(error, _CodeWantedError):
        return FetchFailed(
            "the AWS profile's role wants an MFA code, and a run asks nobody for one",
            "take a role without mfa_serial, or keys that outlast the run: "
            "aws sts get-session-token --token-code",
        )
    if kind == "ProfileNotFound":
        return FetchFailed(
            "the AWS profile does not exist", "see aws configure list-profiles", usage=True
        )
    return FetchFailed(f"the source of the AWS credentials failed: {kind}", _HINTS.get(kind, ""))
