"""Bearer tokens (RFC 6750): given once, in a file that somebody renews, or printed by a command.

What a file or a command has is the token itself, or a JSON object with it: ``access_token`` with
``expires_in`` (RFC 6749 5.1), or ``accessToken`` with ``expires_on`` as Azure's command prints.
Where neither says when the token ends, the ``exp`` of a JWT does (RFC 7519 4.1.4): it is read, not
verified, that is for the server. The values are whole Authorization headers.
"""

from __future__ import annotations

import math
import os
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from ingester.auth import Secret, bearer_authorization, is_word
from ingester.auth.commands import COMMAND_TIMEOUT_S, Command, CommandFailed
from ingester.auth.fetching import Fetched, FetchFailed
from ingester.auth.refreshing import Refreshing, back_off_s

LIMIT_BYTES = 64 << 10
"""A token goes into a header; servers take 8 to 16 KiB of those."""
RENEW_BEFORE_S = 300.0
"""Whoever gives tokens gives a new one from about then on; Azure's command does."""
SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 86400.0
FILE_INTERVAL_S = 10.0
"""Reading a file of a few bytes is cheap, and whoever renews it may do so early."""


def token_wait_s(remaining_s: float | None, failures: int) -> float | None:
    """Five minutes before the end, or after half of the life; one that has expired is left alone.

    By this machine's clock, that is, which may be wrong: the server will say so, and then it is
    asked at once.
    """
    if remaining_s is None:
        return None
    if failures:
        return back_off_s(failures)
    if remaining_s <= 0:
        return LONGEST_WAIT_S
    wait_s = max(remaining_s / 2, remaining_s - RENEW_BEFORE_S)
    return min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, wait_s))


def token_source(
    given: Secret | None, path: str | None, command: Sequence[str] | None
) -> Refreshing[Secret]:
    """Of an Authorization header, a file, or the words of a command line: of the one there is."""
    if command is not None:
        return Refreshing(
            TokenCommand(command),
            what="bearer token",
            wait_s=token_wait_s,
            start_timeout_s=COMMAND_TIMEOUT_S + 10,
            hang_timeout_s=COMMAND_TIMEOUT_S + 5,
        )
    if path is not None:
        return Refreshing(
            TokenFile(path), what="bearer token", wait_s=lambda _remaining_s, _n: FILE_INTERVAL_S
        )
    assert given is not None  # noqa: S101 - the configuration has one of them
    return Refreshing(GivenToken(given), what="bearer token", wait_s=lambda _remaining_s, _n: None)


class GivenToken:
    """From the environment, which does not change."""

    def __init__(self, authorization: Secret) -> None:
        self._authorization = authorization

    def __call__(self, *, anew: bool) -> Fetched[Secret]:
        """See Fetch."""
        del anew
        expires = _jwt_expires(self._authorization.reveal().partition(" ")[2])
        return Fetched(self._authorization, expires, "the bearer token of INGESTER_TOKEN")

    def close(self) -> None:
        """See Fetch."""


class TokenFile:
    """A file that is read again each time."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *, anew: bool) -> Fetched[Secret] | FetchFailed:
        """See Fetch."""
        del anew
        try:
            with open(self._path, "rb") as file:
                text = file.read(LIMIT_BYTES + 1)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            return FetchFailed(f"the token file cannot be read ({reason}): {self._path}")
        return read_token(text, "the bearer token in the file of --token-file")

    def close(self) -> None:
        """See Fetch."""


class TokenCommand:
    """A command that prints a token. Its own words, on stderr, go nowhere."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = Command(arguments, LIMIT_BYTES)

    def __call__(self, *, anew: bool) -> Fetched[Secret] | FetchFailed:
        """See Fetch."""
        del anew
        try:
            printed = self._command.run()
        except CommandFailed as failed:
            return FetchFailed(f"the token command {failed}", "run it by hand to see what it says")
        return read_token(printed, "the bearer token that --token-command prints")

    def close(self) -> None:
        """See Fetch: the command is killed."""
        self._command.kill()


def read_token(text: bytes, origin: str) -> Fetched[Secret] | FetchFailed:
    """Read what a file or a command has. ``origin`` names it for a sentence."""
    given = text.decode(errors="replace").strip()
    expires: datetime | None = None
    if given.startswith("{"):
        try:
            printed = msgspec.json.decode(text, type=_Printed)
        except (msgspec.MsgspecError, RecursionError):
            return FetchFailed(f"{origin} is neither a token nor JSON with access_token")
        given = printed.access_token or printed.accessToken
        expires = _from_now(printed.expires_in) or _at(printed.expires_on)
    if len(text) > LIMIT_BYTES or not is_word(given):
        return FetchFailed(f"{origin} is not a token that a header can carry")
    expires = expires or _jwt_expires(given)
    return Fetched(Secret(bearer_authorization(Secret(given))), expires, origin)


class _Printed(msgspec.Struct):
    access_token: str = ""
    accessToken: str = ""  # noqa: N815 - as Azure's command spells it
    expires_in: float | str | None = None
    expires_on: float | str | None = None


class _Claims(msgspec.Struct):
    exp: float | None = None


def _jwt_expires(token: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _at(msgspec.json.decode(claims, type=_Claims).exp)
    except (ValueError, RecursionError):  # a token that only looks like one
        return None


def _from_now(seconds: float | str | None) -> datetime | None:
    life_s = _number(seconds)
    try:
        return None if life_s is None else datetime.now(UTC) + timedelta(seconds=life_s)
    except OverflowError:
        return None


def _at(seconds: float | str | None) -> datetime | None:
    since_epoch_s = _number(seconds)
    try:
        return None if since_epoch_s is None else datetime.fromtimestamp(since_epoch_s, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _number(given: float | str | None) -> float | None:
    try:
        number = math.nan if given is None else float(given)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
