"""Signature Version 4 as its verifier reads it: nothing here is shared with any signer.

``Verifier.open`` checks everything that can be checked before the payload hash is known: the
credential and its scope, the session token, the clock, and which headers are signed. The ``Claim``
it gives then compares the signature, and is the key to the signatures of chunks.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ingester.emulator.answers import Refusal
from ingester.emulator.canonical import Head, canonical_head, wire_bytes
from ingester.emulator.credentials import Credentials

SERVICE = "medical-imaging"
MAX_SKEW_S = 300
EMPTY_SHA256 = hashlib.sha256().hexdigest()

_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} +Credential=(?P<credential>[^,\s]+),[ ]*"
    r"SignedHeaders=(?P<signed>[^,\s]+),[ ]*Signature=(?P<signature>[0-9a-f]{64})"
)
_AMZ_DATE = "%Y%m%dT%H%M%SZ"
_AMZ_DATE_FORM = re.compile(r"[0-9]{8}T[0-9]{6}Z")

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check the secret key and the signing method."
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A signature that only lacks the payload hash to be compared."""

    signature: str
    amz_date: str
    scope: str  # date/region/service/aws4_request
    canonical_head: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def prove(self, payload_hash: str) -> None:
        """Compare the signature of the request.

        Raises:
            Refusal: 403, it is another one.
        """
        canonical = hashlib.sha256(self.canonical_head + wire_bytes(payload_hash)).hexdigest()
        expected = self._sign(_ALGORITHM, self.amz_date, self.scope, canonical)
        if not hmac.compare_digest(expected, self.signature):
            raise invalid_signature(_MISMATCH)

    def chunk_signature(self, previous: str, chunk_hash: str) -> str:
        """The signature of a chunk; the one before the first is that of the request."""
        return self._sign(
            f"{_ALGORITHM}-PAYLOAD", self.amz_date, self.scope, previous, EMPTY_SHA256, chunk_hash
        )

    def _sign(self, *lines: str) -> str:
        return hmac.new(self.key, "\n".join(lines).encode("ascii"), hashlib.sha256).hexdigest()


class Verifier:
    """Knows one region and the credentials that are good at the moment.

    Args:
        region: The region that must be in the scope.
        credentials: What clients sign with.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, region: str, credentials: Credentials, clock: Callable[[], float] = time.time
    ) -> None:
        self.region = region
        self.credentials = credentials
        self._expired: list[Credentials] = []
        self._clock = clock

    def replace(self, credentials: Credentials) -> None:
        """Let others be good from now on; those until now are expired, not unknown."""
        self._expired.append(self.credentials)
        self.credentials = credentials

    def open(self, head: Head) -> Claim:
        """Check everything but the signature itself.

        Raises:
            Refusal: 403, in the words of an AWS service.
        """
        authorization = head.headers.get("authorization", [])
        if not authorization:
            raise _refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        found = _AUTHORIZATION.fullmatch(authorization[0].strip())
        if found is None or len(authorization) > 1:
            raise _incomplete(f"Authorization is not one of {_ALGORITHM} with its three parts.")
        scope = found["credential"].split("/")
        if len(scope) != 5 or scope[4] != "aws4_request":
            raise _incomplete("Credential is not key/date/region/service/aws4_request.")
        access_key, date, region, service, _ = scope
        secret_key = self._secret_key(access_key, head.value("x-amz-security-token"))
        if region != self.region:
            raise invalid_signature("Credential should be scoped to a valid region.")
        if service != SERVICE:
            raise invalid_signature(f"Credential should be scoped to correct service: {SERVICE}.")
        amz_date = self._amz_date(head, date)
        return Claim(
            signature=found["signature"],
            amz_date=amz_date,
            scope="/".join(scope[1:]),
            canonical_head=canonical_head(head, _signed_headers(found["signed"], head)),
            key=_signing_key(secret_key, "/".join(scope[1:])),
        )

    def _secret_key(self, access_key: str, token: str) -> str:
        if _is_of(self.credentials, access_key, token):
            return self.credentials.secret_key
        if any(_is_of(expired, access_key, token) for expired in self._expired):
            raise _refused(
                "ExpiredTokenException", "The security token included in the request is expired"
            )
        raise _refused(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )

    def _amz_date(self, head: Head, scope_date: str) -> str:
        amz_date = head.value("x-amz-date")
        sent = _seconds(amz_date)
        if sent is None:
            raise _incomplete("X-Amz-Date is missing, or not of the form YYYYMMDDThhmmssZ.")
        if amz_date[:8] != scope_date:
            raise invalid_signature("Date in Credential scope does not match that of X-Amz-Date.")
        now = self._clock()
        if abs(now - sent) > MAX_SKEW_S:
            here = time.strftime(_AMZ_DATE, time.gmtime(now))
            kind = "Signature expired" if sent < now else "Signature not yet current"
            raise invalid_signature(f"{kind}: {amz_date} is more than 5 min from {here}.")
        return amz_date


def invalid_signature(message: str) -> Refusal:
    """The refusal of a signature, or of a payload that cannot be the signed one."""
    return _refused("InvalidSignatureException", message)


def _incomplete(message: str) -> Refusal:
    return _refused("IncompleteSignatureException", message)


def _refused(kind: str, message: str) -> Refusal:
    return Refusal(403, message, kind)


def _seconds(amz_date: str) -> int | None:
    if _AMZ_DATE_FORM.fullmatch(amz_date) is None:
        return None
    try:
        return calendar.timegm(time.strptime(amz_date, _AMZ_DATE))
    except ValueError:
        return None


def _is_of(credentials: Credentials, access_key: str, token: str) -> bool:
    same_key = hmac.compare_digest(wire_bytes(credentials.access_key), wire_bytes(access_key))
    same_token = hmac.compare_digest(wire_bytes(credentials.session_token or ""), wire_bytes(token))
    return same_key and same_token


def _signing_key(secret_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_key}".encode("ascii")
    for step in scope.split("/"):
        key = hmac.new(key, step.encode("ascii"), hashlib.sha256).digest()
    return key


def _signed_headers(value: str, head: Head) -> list[str]:
    names = value.split(";")
    if names != sorted(set(names)) or value != value.lower():
        raise _incomplete("SignedHeaders are not in lower case, each once, in their order.")
    for name in head.headers:
        if (name == "host" or name.startswith("x-amz-")) and name not in names:
            raise invalid_signature(f"A header that must be signed is not: {name}.")
    if "host" not in names:
        raise invalid_signature("A header that must be signed is not: host.")
    return names
